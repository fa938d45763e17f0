//! Proof on load: what a dictionary does on a little text, beside what its publisher says.
//!
//! A dictionary that is read with a wrong convention, or at a wrong site, runs without a word; its numbers tell.

use exegete_base::Site;
use exegete_base::settings::TextSettings;
use exegete_base::stats::{Estimate, ratio_of_sums};
use exegete_model::edits::{Replace, Scale, Vectors};
use exegete_model::{Batch, Edit, Hooks, Logits, Model, Positions};
use exegete_sae::Dictionary;
use exegete_sae::metrics::Reconstruction;
use exegete_store::{Corpus, Window};
use exegete_tensor::{Tape, f32s, tensor};
use serde::Serialize;
use std::sync::Arc;

use crate::windows::{bos_and_room, of_document};
use crate::{HarvestError, Progress, Result};

/// Windows that run together.
const BATCH: usize = 8;
/// A measured L0 may be so far from the stated one, as a share of it: the texts differ.
const L0_TOLERANCE: f64 = 0.25;

/// What a dictionary does on a text. Position 0 is left out, as everywhere.
#[derive(Debug, Clone, Serialize)]
pub struct Proof {
    /// Tokens measured.
    pub tokens: u64,
    /// Mean number of active latents.
    pub l0: f64,
    /// Fraction of variance unexplained.
    pub fvu: Estimate,
    /// Loss of the model, in nats a token: as it is, with the reconstruction in the site's place, with zeros there.
    pub loss: [f64; 3],
    /// Share of the loss between zeros and the model as it is that the reconstruction keeps.
    pub ce_recovered: Estimate,
    /// Share of latents that were active on none of these tokens.
    pub silent: f64,
    /// Share of latents that were active on more than a tenth of them.
    pub dense: f64,
}

/// Whether what was measured is what was stated.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", content = "why")]
pub enum Verdict {
    /// It is.
    #[serde(rename = "consistent")]
    Consistent(String),
    /// It is not, and why.
    #[serde(rename = "not consistent")]
    NotConsistent(String),
    /// Nothing was stated that could be compared, and nothing speaks against the dictionary.
    #[serde(rename = "no published figure")]
    NoFigure,
}

/// Compares what was measured with what the publisher states: the mean number of active latents.
pub fn verdict(proof: &Proof, published_l0: Option<f64>) -> Verdict {
    let fvu = proof.fvu.value;
    if fvu.is_nan() || fvu >= 1.0 {
        return Verdict::NotConsistent(format!(
            "its reconstruction is worse than the mean of the activations (FVU {fvu:.2}): another site, another model, or a \
             convention that was understood wrongly"
        ));
    }
    let recovered = proof.ce_recovered.value;
    if recovered < 0.0 {
        return Verdict::NotConsistent(format!(
            "with it the model does worse than with zeros (CE recovered {recovered:.2})"
        ));
    }
    match published_l0 {
        None => Verdict::NoFigure,
        Some(stated) => {
            let off = (proof.l0 - stated).abs() / stated;
            let text = format!("L0 {:.1} measured, {stated:.1} stated", proof.l0);
            match off <= L0_TOLERANCE {
                true => Verdict::Consistent(text),
                false => Verdict::NotConsistent(text),
            }
        }
    }
}

/// Measures a dictionary that reads `site` and writes `out` (the same, unless it is a transcoder) on the first tokens of a
/// text.
///
/// # Errors
/// Sites of other widths than the dictionary's; the model's and the text's errors; activations that are not finite, with the
/// document and the position.
pub fn measure(
    model: &Model,
    dictionary: &dyn Dictionary,
    (site, out): (Site, Site),
    corpus: &Corpus,
    settings: &TextSettings,
    progress: &dyn Progress,
) -> Result<Proof> {
    let site = model.spec.site(site).map_err(exegete_model::ModelError::from)?;
    let out = model.spec.site(out).map_err(exegete_model::ModelError::from)?;
    for (site, width) in [(site, dictionary.d_in()), (out, dictionary.d_out())] {
        let there = model.spec.site_width(site, 0);
        if there != width {
            let detail = format!("the dictionary is {width} wide, and {site} of this model is {there}");
            return Err(HarvestError::Request(format!("{detail}; is it of another model or site?")));
        }
    }
    let mut sums = Sums {
        reconstruction: Reconstruction::new(dictionary.d_out()),
        losses: Vec::new(),
        fired_F: vec![0; dictionary.n_latents()],
        last_doc: None,
    };
    let (tokenizer, cut) = (model.tokenizer()?, bos_and_room(model, settings)?);
    let (mut batch, mut taken) = (Vec::new(), 0);
    progress.begin("proof", settings.max_tokens, "tokens", 0);
    'text: for document in corpus.documents() {
        let document = document?;
        for window in of_document(tokenizer, &document, settings, cut)? {
            taken += window.token_ids.len() as u64;
            batch.push(window);
            if batch.len() == BATCH {
                progress.check()?;
                sums.add(model, dictionary, (site, out), &batch)?;
                batch.clear();
                progress.at(taken.min(settings.max_tokens), "");
            }
            if taken >= settings.max_tokens && settings.max_tokens > 0 {
                break 'text;
            }
        }
    }
    if !batch.is_empty() {
        sums.add(model, dictionary, (site, out), &batch)?;
    }
    progress.end("");
    sums.proof()
}

/// Sums over the windows so far.
struct Sums {
    reconstruction: Reconstruction,
    /// For each document: summed losses as in [`Proof::loss`], and predicted tokens.
    losses: Vec<([f64; 3], f64)>,
    fired_F: Vec<u64>,
    last_doc: Option<exegete_base::DocId>,
}

impl Sums {
    fn add(
        &mut self,
        model: &Model,
        sae: &dyn Dictionary,
        (site, out): (Site, Site),
        windows: &[Window],
    ) -> Result<()> {
        let rows: Vec<Vec<u32>> = windows.iter().map(|w| w.token_ids.clone()).collect();
        let (d, o) = (sae.d_in(), sae.d_out());
        let (mut x, mut y, mut at) = (Vec::new(), Vec::new(), 0);
        let mut hooks = Hooks::none().tap(site);
        if out != site {
            hooks = hooks.tap(out);
        }
        let clean = losses(model, &rows, &mut hooks)?;
        let tapped = |site: Site| {
            let value = hooks.value(site).ok_or_else(|| HarvestError::Request(format!("{site} was not reached")))?;
            Ok::<_, HarvestError>(f32s(value.tensor())?.to_vec())
        };
        let (all_x, all_y) = (tapped(site)?, tapped(out)?);
        for window in windows {
            let len = window.token_ids.len();
            let (from, to) = (at + 1, at + len);
            if let Some(bad) = all_x[at * d..to * d].iter().position(|v| !v.is_finite()) {
                let doc = window.doc;
                return Err(HarvestError::Request(format!(
                    "activations at {site} are not finite: document {} of text file {}, position {}",
                    doc.record_idx(),
                    doc.source_idx(),
                    window.start as usize + bad / d
                )));
            }
            x.extend_from_slice(&all_x[from * d..to * d]);
            y.extend_from_slice(&all_y[from * o..to * o]);
            at = to;
        }
        // All tokens of the windows together: a rule over a batch sees more of them.
        let codes = sae.encode(&x)?;
        let mut recon = vec![0f32; y.len()];
        sae.reconstruct(&x, &codes, &mut recon)?;
        codes.latents().iter().for_each(|latent| self.fired_F[*latent as usize] += 1);
        let longest = rows.iter().map(Vec::len).max().unwrap_or(0);
        let mut padded = vec![0f32; rows.len() * longest * o];
        let mut from = 0;
        for (row, window) in windows.iter().enumerate() {
            let n = window.token_ids.len() - 1;
            let values = from * o..(from + n) * o;
            let part = codes.part(from..from + n);
            let continues = self.last_doc == Some(window.doc);
            self.reconstruction.add(&y[values.clone()], &recon[values.clone()], &part, continues);
            let to = (row * longest + 1) * o;
            padded[to..to + n * o].copy_from_slice(&recon[values]);
            from += n;
            self.last_doc = Some(window.doc);
            if !continues {
                self.losses.push(([0.0; 3], 0.0));
            }
        }
        let places = Vectors::PerPlace(tensor(padded, (rows.len(), longest, o))?);
        let behind = || Positions::Where(Arc::new(|spot| spot.position > 0));
        let edited = |f: Arc<dyn exegete_tensor::SiteFn>| {
            losses(model, &rows, &mut Hooks::none().edit(Edit::everywhere(out, f).at(behind())))
        };
        let (with, without) = (edited(Arc::new(Replace(places)))?, edited(Arc::new(Scale(0.0)))?);
        // The windows of this batch end with the last document; earlier ones of it may go on from the batch before.
        let mut docs: Vec<usize> = Vec::new();
        let mut now = self.losses.len();
        for (i, window) in windows.iter().enumerate().rev() {
            if i + 1 == windows.len() || windows[i + 1].doc != window.doc {
                now -= 1;
            }
            docs.push(now);
        }
        for (i, doc) in docs.into_iter().rev().enumerate() {
            let (sums, n) = &mut self.losses[doc];
            for (sum, loss) in sums.iter_mut().zip([clean[i], with[i], without[i]]) {
                *sum += loss;
            }
            *n += rows[i].len() as f64 - 1.0;
        }
        Ok(())
    }

    fn proof(&self) -> Result<Proof> {
        let tokens = self.reconstruction.n_tokens();
        if tokens == 0 {
            return Err(HarvestError::Request("the text holds no document of two tokens or more".into()));
        }
        let n: f64 = self.losses.iter().map(|(_, n)| n).sum();
        let loss = [0, 1, 2].map(|i| self.losses.iter().map(|(sums, _)| sums[i]).sum::<f64>() / n);
        let kept: Vec<(f64, f64)> = self.losses.iter().map(|([c, w, z], _)| (z - w, z - c)).collect();
        let share = |count: usize| count as f64 / self.fired_F.len() as f64;
        Ok(Proof {
            tokens,
            l0: self.reconstruction.l0(),
            fvu: self.reconstruction.fvu(),
            loss,
            ce_recovered: ratio_of_sums(&kept),
            silent: share(self.fired_F.iter().filter(|n| **n == 0).count()),
            dense: share(self.fired_F.iter().filter(|n| **n as f64 > 0.1 * tokens as f64).count()),
        })
    }
}

/// Summed losses of each row, in nats, from its second token on.
fn losses(model: &Model, rows: &[Vec<u32>], hooks: &mut Hooks) -> Result<Vec<f64>> {
    let (mut asked, mut targets, mut at) = (Vec::new(), Vec::new(), 0u32);
    for row in rows {
        asked.extend(at..at + row.len() as u32 - 1);
        targets.extend_from_slice(&row[1..]);
        at += row.len() as u32;
    }
    let tape = Tape::new();
    let logits = model.run(&tape, &Batch::rows(rows), None, hooks, Logits::At(asked))?;
    let logits = logits.ok_or_else(|| HarvestError::Request("the model gave no logits".into()))?;
    let losses = tape.cross_entropy(&logits, &targets)?;
    let mut each = f32s(losses.tensor())?.to_vec().into_iter();
    Ok(rows.iter().map(|row| each.by_ref().take(row.len() - 1).map(f64::from).sum()).collect())
}
