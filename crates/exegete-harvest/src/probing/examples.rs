//! From rows of tokens to examples: codes and activations at the positions that are asked about.

use std::collections::BTreeMap;

use exegete_base::settings::{ProbeSettings, TextSettings};
use exegete_base::{DocId, Site};
use exegete_model::{Batch, Hooks, Logits, Model};
use exegete_sae::Dictionary;
use exegete_sae::metrics::probing::Examples;
use exegete_store::Task;
use exegete_tensor::Tape;

use super::rows::{Asked, Row, rows};
use crate::capture::check_finite;
use crate::measure::{checked, tapped};
use crate::{HarvestError, Progress, Result};

/// Tokens of a run of the model.
const BATCH_TOKENS: usize = 2048;

/// Examples to train on and to test on. No document is in both.
pub struct Split {
    /// To train on.
    pub train: Examples,
    /// To test on.
    pub test: Examples,
}

/// Examples of a task for dictionaries that read sites of a model; the model runs once for all of them.
///
/// # Errors
/// Sites of other widths than the dictionaries'; tokens that do not spell the text; too few documents for a split;
/// activations that are not finite.
pub fn examples(
    model: &Model,
    dictionaries: &[(&dyn Dictionary, &[Site])],
    task: &Task,
    text: &TextSettings,
    settings: &ProbeSettings,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Vec<Split>> {
    settings.check().map_err(HarvestError::Request)?;
    let mut sites = Vec::new();
    for (dictionary, site) in dictionaries {
        sites.push(checked(model, site, dictionary.d_in())?);
    }
    let rows = rows(model, task, text, settings, seed)?;
    let mut collecting: Vec<[Collecting; 2]> =
        dictionaries.iter().map(|(dictionary, _)| [(), ()].map(|()| Collecting::new(dictionary.d_in()))).collect();
    let all: u64 = rows.iter().map(|row| row.ids.len() as u64).sum();
    progress.begin("activations", all, "tokens", 0);
    let (mut from, mut done) = (0, 0u64);
    while from < rows.len() {
        progress.check()?;
        let (mut to, mut n) = (from, 0);
        while to < rows.len() && (to == from || n + rows[to].ids.len() <= BATCH_TOKENS) {
            n += rows[to].ids.len();
            to += 1;
        }
        let batch = &rows[from..to];
        let ids: Vec<Vec<u32>> = batch.iter().map(|row| row.ids.clone()).collect();
        let mut hooks = Hooks::none();
        let mut distinct: Vec<Site> = sites.concat();
        distinct.sort_unstable_by_key(Site::to_string);
        distinct.dedup();
        hooks = distinct.iter().fold(hooks, |hooks, site| hooks.tap(*site));
        let last: Option<Vec<usize>> = distinct.iter().map(|site| site.layer).collect();
        let logits = match last.and_then(|layers| layers.into_iter().max()) {
            Some(layer) => {
                hooks = hooks.stop_after(layer);
                Logits::None
            }
            None => Logits::All,
        };
        model.run(&Tape::new(), &Batch::rows(&ids), None, &mut hooks, logits)?;
        for (i, (dictionary, _)) in dictionaries.iter().enumerate() {
            let values = tapped(&hooks, &sites[i], n)?;
            collect(&values, batch, *dictionary, &sites[i], task, &mut collecting[i])?;
        }
        done += n as u64;
        progress.at(done, "");
        from = to;
    }
    let splits: Vec<Split> =
        collecting.into_iter().map(|[train, test]| Split { train: train.end(), test: test.end() }).collect();
    let (n_train, n_test) = splits.first().map_or((0, 0), |split| (split.train.len(), split.test.len()));
    progress.end(&format!("{n_train} examples to train on, {n_test} to test on"));
    if !dictionaries.is_empty() && (n_train == 0 || n_test == 0) {
        let detail = format!("{} has {} documents", task.name, task.documents.len());
        return Err(HarvestError::Request(format!("{detail}, too few to train on some and test on others")));
    }
    Ok(splits)
}

/// Examples so far.
struct Collecting {
    examples: Examples,
    written: exegete_sae::Codes,
    is_scaled: bool,
}

impl Collecting {
    fn new(d: usize) -> Self {
        Self {
            examples: Examples { d, ..Examples::default() },
            written: exegete_sae::Codes::default(),
            is_scaled: false,
        }
    }

    fn end(self) -> Examples {
        Examples { written: self.is_scaled.then_some(self.written), ..self.examples }
    }
}

/// Adds the examples of a batch's rows, `values` being the site's for all its tokens.
fn collect(
    values: &[f32],
    batch: &[Row],
    dictionary: &dyn Dictionary,
    sites: &[Site],
    task: &Task,
    into: &mut [Collecting; 2],
) -> Result<()> {
    let d = dictionary.d_in();
    let (mut x, mut at) = (Vec::new(), 0);
    for row in batch {
        let of_row = &values[at * d..(at + row.ids.len()) * d];
        check_finite((of_row, d, 0), sites, DocId::new(0, u64::from(row.document)), 0)?;
        match &row.asked {
            Asked::Mean(_) => x.extend_from_slice(&of_row[d..]),
            Asked::At(positions) => {
                positions.iter().for_each(|(p, _)| x.extend_from_slice(&of_row[p * d..(p + 1) * d]))
            }
        }
        at += row.ids.len();
    }
    let codes = dictionary.encode(&x)?;
    let mut token = 0;
    for row in batch {
        let into = &mut into[usize::from(row.is_test)];
        let group = task.documents[row.document as usize].group;
        let mut add = |tokens: std::ops::Range<usize>, labels: &[u32]| {
            let n = tokens.len() as f64;
            let (mut acts, mut sums) = (vec![0f64; d], BTreeMap::<u32, [f64; 2]>::new());
            for token in tokens {
                let x = &x[token * d..(token + 1) * d];
                acts.iter_mut().zip(x).for_each(|(sum, x)| *sum += f64::from(*x) / n);
                let unit = f64::from(dictionary.unit(x));
                into.is_scaled |= unit != 1.0;
                for (latent, value) in codes.of(token) {
                    let [plain, written] = sums.entry(latent).or_default();
                    *plain += f64::from(value) / n;
                    *written += f64::from(value) * unit / n;
                }
            }
            let side = |i: usize| sums.iter().map(move |(latent, sums)| (*latent, sums[i] as f32));
            into.examples.codes.push(side(0));
            into.written.push(side(1));
            into.examples.acts_ND.extend(acts.iter().map(|a| *a as f32));
            into.examples.labels.push(labels.to_vec());
            into.examples.documents.push(row.document);
            into.examples.groups.push(group);
        };
        match &row.asked {
            Asked::Mean(labels) => {
                let n = row.ids.len() - 1;
                add(token..token + n, labels);
                token += n;
            }
            Asked::At(positions) => {
                for (_, labels) in positions {
                    add(token..token + 1, labels);
                    token += 1;
                }
            }
        }
    }
    Ok(())
}
