//! What a dictionary does on a text, and what it costs the model: the loop behind `sae info` and `sae eval`.

use std::sync::Arc;

use exegete_base::settings::TextSettings;
use exegete_base::stats::{Estimate, ratio_of_sums};
use exegete_base::{DocId, Site};
use exegete_model::edits::{Replace, Scale, Vectors};
use exegete_model::{Batch, Edit, Hooks, Logits, Model, Positions};
use exegete_sae::Dictionary;
use exegete_sae::metrics::compat::Batches;
use exegete_sae::metrics::density::{DENSE, DensityBin};
use exegete_sae::metrics::losses::{ce_recovered, kl_divergence, kl_score};
use exegete_sae::metrics::{Measure, Reconstruction};
use exegete_store::{Corpus, Window};
use exegete_tensor::{SiteFn, Tape, Value, f32s, tensor};
use serde::Serialize;

use crate::capture::check_finite;
use crate::training::Sites;
use crate::windows::{bos_and_room, of_document};
use crate::{HarvestError, Progress, Result};

/// Windows that run together.
const BATCH: usize = 8;
/// The name of the share of the loss between zeros and the model as it is that the reconstruction keeps.
pub const CE_RECOVERED: &str = "CE recovered";
/// The name of the same share of the divergence from the model as it is.
pub const KL_SCORE: &str = "KL score";

/// A number that was measured, with what it takes to compare it.
#[derive(Debug, Clone, Serialize)]
pub struct Number {
    /// Its name.
    pub name: &'static str,
    /// The number, with its interval over documents.
    #[serde(flatten)]
    pub estimate: Estimate,
    /// Numerator and denominator of each document.
    #[serde(skip)]
    pub pairs: Vec<(f64, f64)>,
}

/// What a dictionary does on a text. Position 0 is left out, as everywhere.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Tokens measured.
    pub tokens: u64,
    /// The numbers of [`Measure`], CE recovered and the KL score.
    pub numbers: Vec<Number>,
    /// Loss of the model, in nats a token: as it is, with the reconstruction in the site's place, with zeros there.
    pub loss: [f64; 3],
    /// Divergence of what the model says from what it says as it is, in nats a token: with the reconstruction, with zeros.
    pub kl: [f64; 2],
    /// Share of latents that were active on none of these tokens.
    pub dead: Estimate,
    /// Share of latents that were active on more than a share of the tokens.
    pub dense: Vec<(f64, Estimate)>,
    /// How often latents are active.
    pub densities: Vec<DensityBin>,
    /// Sums over batches, for the numbers of other tools.
    #[serde(skip)]
    pub batches: Batches,
}

impl Measured {
    /// A number by its name; not a number if there is none.
    pub fn value(&self, name: &str) -> f64 {
        self.numbers.iter().find(|number| number.name == name).map_or(f64::NAN, |number| number.estimate.value)
    }
}

/// A dictionary with its sites. Values of several lie behind each other.
pub type Placed<'a> = (&'a dyn Dictionary, &'a Sites);

/// Measures dictionaries on the first tokens of a text. What the model does as it is, and with zeros at what is written, is
/// computed once for all of them; all sites that a dictionary writes are replaced at once.
///
/// # Errors
/// Sites of other widths than a dictionary's; the model's and the text's errors; activations that are not finite, with the
/// document and the position.
pub fn measure(
    model: &Model,
    dictionaries: &[Placed],
    corpus: &Corpus,
    settings: &TextSettings,
    progress: &dyn Progress,
) -> Result<Vec<Measured>> {
    let mut all = Vec::new();
    for (dictionary, sites) in dictionaries {
        let reads = checked(model, &sites.reads, dictionary.d_in())?;
        all.push(Sums::new(*dictionary, (reads, checked(model, sites.written(), dictionary.d_out())?)));
    }
    let (tokenizer, cut) = (model.tokenizer()?, bos_and_room(model, settings)?);
    let (mut batch, mut taken) = (Vec::new(), 0);
    progress.begin("measure", settings.max_tokens, "tokens", 0);
    'text: for document in corpus.documents() {
        let document = document?;
        for window in of_document(tokenizer, &document, settings, cut)? {
            taken += window.token_ids.len() as u64;
            batch.push(window);
            if batch.len() == BATCH {
                run(model, &mut all, &batch, progress)?;
                batch.clear();
                progress.at(taken.min(settings.max_tokens), "");
            }
            if taken >= settings.max_tokens && settings.max_tokens > 0 {
                break 'text;
            }
        }
    }
    if !batch.is_empty() {
        run(model, &mut all, &batch, progress)?;
    }
    progress.end("");
    all.into_iter().map(Sums::measured).collect()
}

/// Runs the model over some windows, and adds what each dictionary does there.
fn run(model: &Model, all: &mut [Sums], windows: &[Window], progress: &dyn Progress) -> Result<()> {
    let rows: Vec<Vec<u32>> = windows.iter().map(|w| w.token_ids.clone()).collect();
    let mut sites: Vec<Site> = Vec::new();
    for site in all.iter().flat_map(|sums| sums.reads.iter().chain(&sums.writes)) {
        if !sites.contains(site) {
            sites.push(*site);
        }
    }
    progress.check()?;
    let mut hooks = sites.iter().fold(Hooks::none(), |hooks, site| hooks.tap(*site));
    let clean = Said::by(model, &rows, &mut hooks)?;
    let losses = clean.losses(&rows)?;
    let mut zeroed: Vec<(Vec<Site>, Costs)> = Vec::new();
    for sums in all {
        progress.check()?;
        let (recon, docs) = sums.add(&hooks, windows)?;
        let (shape, mut replaced) = ((rows.len(), longest(windows), sums.width()), Vec::<Arc<dyn SiteFn>>::new());
        for recon in recon {
            replaced.push(Arc::new(Replace(Vectors::PerPlace(tensor(recon, shape)?))));
        }
        let with = Costs::of(model, &rows, &clean, &sums.writes, replaced)?;
        if !zeroed.iter().any(|(sites, _)| *sites == sums.writes) {
            let zeros = sums.writes.iter().map(|_| Arc::new(Scale(0.0)) as Arc<dyn SiteFn>).collect();
            zeroed.push((sums.writes.clone(), Costs::of(model, &rows, &clean, &sums.writes, zeros)?));
        }
        let Some((_, zeros)) = zeroed.iter().find(|(sites, _)| *sites == sums.writes) else { continue };
        for (i, doc) in docs.into_iter().enumerate() {
            let cost = &mut sums.losses[doc];
            cost.loss.iter_mut().zip([losses[i], with.losses[i], zeros.losses[i]]).for_each(|(sum, loss)| *sum += loss);
            cost.kl.iter_mut().zip([with.kl[i], zeros.kl[i]]).for_each(|(sum, kl)| *sum += kl);
            cost.n += rows[i].len() as f64 - 1.0;
        }
    }
    Ok(())
}

/// What an edit at each of some sites costs, summed over each row.
struct Costs {
    losses: Vec<f64>,
    kl: Vec<f64>,
}

impl Costs {
    /// Of edits at all positions but the first.
    fn of(model: &Model, rows: &[Vec<u32>], clean: &Said, at: &[Site], by: Vec<Arc<dyn SiteFn>>) -> Result<Self> {
        let behind = || Positions::Where(Arc::new(|spot| spot.position > 0));
        let edits = at.iter().zip(by).map(|(site, f)| Edit::everywhere(*site, f).at(behind()));
        let said = Said::by(model, rows, &mut edits.fold(Hooks::none(), Hooks::edit))?;
        Ok(Self { losses: said.losses(rows)?, kl: said.kl_from(clean, rows)? })
    }
}

fn longest(windows: &[Window]) -> usize {
    windows.iter().map(|w| w.token_ids.len()).max().unwrap_or(0)
}

/// Sites as the model has them, for a dictionary of some width.
///
/// # Errors
/// The model has no such site, or they are together of another width than the dictionary.
pub fn checked(model: &Model, sites: &[Site], width: usize) -> Result<Vec<Site>> {
    let named = |site: &Site| model.spec.site(*site).map_err(exegete_model::ModelError::from);
    let sites: Vec<Site> = sites.iter().map(named).collect::<std::result::Result<_, _>>()?;
    let there: usize = sites.iter().map(|site| model.spec.site_width(*site, 0)).sum();
    if there == width {
        return Ok(sites);
    }
    let names = sites.iter().map(Site::to_string).collect::<Vec<_>>().join(", ");
    let detail = format!("the dictionary is {width} wide, and {names} of this model is {there}");
    Err(HarvestError::Request(format!("{detail}; is it of another model or site?")))
}

/// Sums of losses and divergences over the predicted tokens of a document.
#[derive(Default)]
struct Cost {
    loss: [f64; 3],
    kl: [f64; 2],
    n: f64,
}

/// Sums over the windows so far, of one dictionary.
struct Sums<'a> {
    dictionary: &'a dyn Dictionary,
    reads: Vec<Site>,
    writes: Vec<Site>,
    reconstruction: Reconstruction,
    batches: Batches,
    losses: Vec<Cost>,
    last_doc: Option<DocId>,
}

impl<'a> Sums<'a> {
    fn new(dictionary: &'a dyn Dictionary, (reads, writes): (Vec<Site>, Vec<Site>)) -> Self {
        let reconstruction = Reconstruction::new(dictionary.d_out(), dictionary.n_latents());
        let batches = Batches::default();
        Self { dictionary, reads, writes, reconstruction, batches, losses: Vec::new(), last_doc: None }
    }

    /// Width of one of the sites that are written.
    fn width(&self) -> usize {
        self.dictionary.d_out() / self.writes.len()
    }

    /// Encodes what was tapped, and adds up how well it is reconstructed. Gives the reconstruction of the windows at each
    /// site, padded to the longest, and each window's place among the documents.
    fn add(&mut self, hooks: &Hooks, windows: &[Window]) -> Result<(Vec<Vec<f32>>, Vec<usize>)> {
        let o = self.dictionary.d_out();
        let n = windows.iter().map(|w| w.token_ids.len()).sum();
        let behind_first = |sites: &[Site], d: usize| {
            let (all, mut kept, mut at) = (tapped(hooks, sites, n)?, Vec::new(), 0);
            for window in windows {
                let to = at + window.token_ids.len();
                check_finite((&all[at * d..to * d], d, 0), sites, window.doc, window.start)?;
                kept.extend_from_slice(&all[(at + 1) * d..to * d]);
                at = to;
            }
            Ok::<_, HarvestError>(kept)
        };
        let (x, y) = (behind_first(&self.reads, self.dictionary.d_in())?, behind_first(&self.writes, o)?);
        // All tokens of the windows together: a rule over a batch sees more of them.
        let codes = self.dictionary.encode(&x)?;
        let mut recon = vec![0f32; y.len()];
        self.dictionary.reconstruct(&x, &codes, &mut recon)?;
        self.batches.add(&y, &recon, o, &codes);
        let longest = longest(windows);
        let each = self.width();
        let mut padded = vec![vec![0f32; windows.len() * longest * each]; self.writes.len()];
        let (mut from, mut docs) = (0, Vec::new());
        for (row, window) in windows.iter().enumerate() {
            let n = window.token_ids.len() - 1;
            let values = from * o..(from + n) * o;
            let part = codes.part(from..from + n);
            let continues = self.last_doc == Some(window.doc);
            self.reconstruction.add(&y[values.clone()], &recon[values.clone()], &part, continues);
            for (i, recon) in recon[values].chunks_exact(o).enumerate() {
                let to = (row * longest + 1 + i) * each;
                for (padded, part) in padded.iter_mut().zip(recon.chunks_exact(each)) {
                    padded[to..to + each].copy_from_slice(part);
                }
            }
            from += n;
            self.last_doc = Some(window.doc);
            if !continues {
                self.losses.push(Cost::default());
            }
            docs.push(self.losses.len() - 1);
        }
        Ok((padded, docs))
    }

    fn measured(self) -> Result<Measured> {
        let tokens = self.reconstruction.n_tokens();
        if tokens == 0 {
            return Err(HarvestError::Request("the text holds no document of two tokens or more".into()));
        }
        let n: f64 = self.losses.iter().map(|cost| cost.n).sum();
        let number = |name, pairs: Vec<(f64, f64)>| Number { name, estimate: ratio_of_sums(&pairs), pairs };
        let each = |of: &dyn Fn(&Cost) -> (f64, f64)| self.losses.iter().map(of).collect();
        let measures = Measure::NAMES.map(|(name, measure)| number(name, self.reconstruction.pairs(measure)));
        let mut numbers = Vec::from(measures);
        numbers.push(number(CE_RECOVERED, each(&|cost| ce_recovered(cost.loss[0], cost.loss[1], cost.loss[2]))));
        numbers.push(number(KL_SCORE, each(&|cost| kl_score(cost.kl[0], cost.kl[1]))));
        let density = self.reconstruction.density();
        Ok(Measured {
            tokens,
            numbers,
            loss: [0, 1, 2].map(|i| self.losses.iter().map(|cost| cost.loss[i]).sum::<f64>() / n),
            kl: [0, 1].map(|i| self.losses.iter().map(|cost| cost.kl[i]).sum::<f64>() / n),
            dead: density.dead(),
            dense: DENSE.map(|above| (above, density.dense(above))).into(),
            densities: density.histogram(),
            batches: self.batches,
        })
    }
}

/// What was tapped at sites in a run over `n` tokens: of each token the sites' values behind each other.
pub(crate) fn tapped(hooks: &Hooks, sites: &[Site], n: usize) -> Result<Vec<f32>> {
    let mut each = Vec::new();
    for site in sites {
        let value = hooks.value(*site).ok_or_else(|| HarvestError::Request(format!("{site} was not reached")))?;
        each.push(f32s(value.tensor())?.to_vec());
    }
    if each.len() == 1 {
        return Ok(each.remove(0));
    }
    let row = |token: usize| each.iter().flat_map(move |v| &v[token * (v.len() / n)..(token + 1) * (v.len() / n)]);
    Ok((0..n).flat_map(row).copied().collect())
}

/// What the model says behind each token of some rows but the last of each.
struct Said {
    tape: Tape,
    logits: Value,
}

impl Said {
    fn by(model: &Model, rows: &[Vec<u32>], hooks: &mut Hooks) -> Result<Self> {
        let (mut asked, mut at) = (Vec::new(), 0u32);
        for row in rows {
            asked.extend(at..at + row.len() as u32 - 1);
            at += row.len() as u32;
        }
        let tape = Tape::new();
        let logits = model.run(&tape, &Batch::rows(rows), None, hooks, Logits::At(asked))?;
        let logits = logits.ok_or_else(|| HarvestError::Request("the model gave no logits".into()))?;
        Ok(Self { tape, logits })
    }

    /// Summed losses of each row, in nats, from its second token on.
    fn losses(&self, rows: &[Vec<u32>]) -> Result<Vec<f64>> {
        let targets: Vec<u32> = rows.iter().flat_map(|row| &row[1..]).copied().collect();
        let losses = self.tape.cross_entropy(&self.logits, &targets)?;
        let each: Vec<f64> = f32s(losses.tensor())?.iter().map(|loss| f64::from(*loss)).collect();
        Ok(by_row(&each, rows))
    }

    /// Summed divergences of each row from what the model says as it is, in nats.
    fn kl_from(&self, clean: &Self, rows: &[Vec<u32>]) -> Result<Vec<f64>> {
        let (clean, own) = (f32s(clean.logits.tensor())?, f32s(self.logits.tensor())?);
        let n: usize = rows.iter().map(|row| row.len() - 1).sum();
        Ok(by_row(&kl_divergence(&clean, &own, own.len() / n), rows))
    }
}

fn by_row(each: &[f64], rows: &[Vec<u32>]) -> Vec<f64> {
    let mut each = each.iter();
    rows.iter().map(|row| each.by_ref().take(row.len() - 1).sum()).collect()
}
