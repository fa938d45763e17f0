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
use exegete_tensor::{Tape, Value, f32s, tensor};
use serde::Serialize;

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

/// Measures a dictionary of some sites on the first tokens of a text. Values of several sites lie behind each other, in their
/// own units; what the model loses is measured with all that are written replaced at once.
///
/// # Errors
/// Sites of other widths than the dictionary's; the model's and the text's errors; activations that are not finite, with the
/// document and the position.
pub fn measure(
    model: &Model,
    dictionary: &dyn Dictionary,
    sites: &Sites,
    corpus: &Corpus,
    settings: &TextSettings,
    progress: &dyn Progress,
) -> Result<Measured> {
    let reads = checked(model, &sites.reads, dictionary.d_in())?;
    let out = checked(model, sites.written(), dictionary.d_out())?;
    let sites = (&reads[..], &out[..]);
    let mut sums = Sums {
        reconstruction: Reconstruction::new(dictionary.d_out(), dictionary.n_latents()),
        batches: Batches::default(),
        losses: Vec::new(),
        last_doc: None,
    };
    let (tokenizer, cut) = (model.tokenizer()?, bos_and_room(model, settings)?);
    let (mut batch, mut taken) = (Vec::new(), 0);
    progress.begin("measure", settings.max_tokens, "tokens", 0);
    'text: for document in corpus.documents() {
        let document = document?;
        for window in of_document(tokenizer, &document, settings, cut)? {
            taken += window.token_ids.len() as u64;
            batch.push(window);
            if batch.len() == BATCH {
                progress.check()?;
                sums.add(model, dictionary, sites, &batch)?;
                batch.clear();
                progress.at(taken.min(settings.max_tokens), "");
            }
            if taken >= settings.max_tokens && settings.max_tokens > 0 {
                break 'text;
            }
        }
    }
    if !batch.is_empty() {
        sums.add(model, dictionary, sites, &batch)?;
    }
    progress.end("");
    sums.measured()
}

/// Sites as the model has them.
///
/// # Errors
/// The model has no such site, or they are together of another width than the dictionary.
pub(crate) fn checked(model: &Model, sites: &[Site], width: usize) -> Result<Vec<Site>> {
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

/// Sums over the windows so far.
struct Sums {
    reconstruction: Reconstruction,
    batches: Batches,
    losses: Vec<Cost>,
    last_doc: Option<DocId>,
}

impl Sums {
    fn add(
        &mut self,
        model: &Model,
        sae: &dyn Dictionary,
        (reads, writes): (&[Site], &[Site]),
        windows: &[Window],
    ) -> Result<()> {
        let rows: Vec<Vec<u32>> = windows.iter().map(|w| w.token_ids.clone()).collect();
        let o = sae.d_out();
        let untapped = |site: &&Site| !reads.contains(site);
        let all = reads.iter().chain(writes.iter().filter(untapped));
        let mut hooks = all.fold(Hooks::none(), |hooks, site| hooks.tap(*site));
        let clean = Said::by(model, &rows, &mut hooks)?;
        let n = rows.iter().map(Vec::len).sum();
        let behind_first = |sites: &[Site], d: usize| {
            let (all, mut kept, mut at) = (tapped(&hooks, sites, n)?, Vec::new(), 0);
            for window in windows {
                let to = at + window.token_ids.len();
                check_finite(&all[at * d..to * d], d, sites, window.doc, window.start)?;
                kept.extend_from_slice(&all[(at + 1) * d..to * d]);
                at = to;
            }
            Ok::<_, HarvestError>(kept)
        };
        let (x, y) = (behind_first(reads, sae.d_in())?, behind_first(writes, o)?);
        // All tokens of the windows together: a rule over a batch sees more of them.
        let codes = sae.encode(&x)?;
        let mut recon = vec![0f32; y.len()];
        sae.reconstruct(&x, &codes, &mut recon)?;
        self.batches.add(&y, &recon, o, &codes);
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let each = o / writes.len();
        let mut padded = vec![vec![0f32; rows.len() * longest * each]; writes.len()];
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
        let behind = || Positions::Where(Arc::new(|spot| spot.position > 0));
        let edited = |by: Vec<Arc<dyn exegete_tensor::SiteFn>>| {
            let edits = writes.iter().zip(by).map(|(site, f)| Edit::everywhere(*site, f).at(behind()));
            let said = Said::by(model, &rows, &mut edits.fold(Hooks::none(), Hooks::edit))?;
            Ok::<_, HarvestError>((said.losses(&rows)?, said.kl_from(&clean, &rows)?))
        };
        let mut replaced: Vec<Arc<dyn exegete_tensor::SiteFn>> = Vec::new();
        for padded in padded {
            replaced.push(Arc::new(Replace(Vectors::PerPlace(tensor(padded, (rows.len(), longest, each))?))));
        }
        let (with, with_kl) = edited(replaced)?;
        let (zeros, zeros_kl) = edited(writes.iter().map(|_| Arc::new(Scale(0.0)) as Arc<_>).collect())?;
        let clean = clean.losses(&rows)?;
        for (i, doc) in docs.into_iter().enumerate() {
            let cost = &mut self.losses[doc];
            cost.loss.iter_mut().zip([clean[i], with[i], zeros[i]]).for_each(|(sum, loss)| *sum += loss);
            cost.kl.iter_mut().zip([with_kl[i], zeros_kl[i]]).for_each(|(sum, kl)| *sum += kl);
            cost.n += rows[i].len() as f64 - 1.0;
        }
        Ok(())
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

/// Checks activations of a piece of a document, which begins at token `start` of it.
///
/// # Errors
/// A value that is not finite, with the document and the position.
pub(crate) fn check_finite(x_ND: &[f32], d: usize, sites: &[Site], doc: DocId, start: u64) -> Result<()> {
    let Some(bad) = x_ND.iter().position(|v| !v.is_finite()) else { return Ok(()) };
    let site = sites[bad % d * sites.len() / d];
    Err(HarvestError::Request(format!(
        "activations at {site} are not finite: document {} of text file {}, position {}",
        doc.record_idx(),
        doc.source_idx(),
        start as usize + bad / d
    )))
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
