//! The logit lens: every layer's residual stream read as if it were the last (nostalgebraist 2020), and direct logit
//! attribution: what each component's output adds to one logit (Elhage et al. 2021).
//!
//! All layers and positions are read in one product with the unembedding. As a control, the distance of a layer's
//! distribution to the final one at its own position stands beside its distance to the final one of another position:
//! a layer that says something about this text is nearer to its own.

use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, Hooks, Logits, Model, Norm};
use exegete_tensor::cpu::loss::log_sum_exp;
use exegete_tensor::cpu::topk::row_topk;
use exegete_tensor::{Tape, f32s, tensor};
use serde::Serialize;

use crate::{MethodError, Result};

/// Name of the method.
pub const NAME: &str = "lens";

/// What one layer says at one position.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cell {
    /// The likeliest tokens with their probabilities.
    pub top: Vec<(u32, f64)>,
    /// Entropy, in nats.
    pub entropy: f64,
    /// KL divergence of this from the final distribution (final || this), in nats.
    pub kl_to_final: f64,
    /// The same from the final distribution of another position; `None` for a text of one token.
    pub kl_to_other: Option<f64>,
    /// Rank of the token that comes next in the text (0 is the likeliest); `None` at the end.
    pub rank_of_next: Option<usize>,
}

/// The lens over a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Lens {
    /// The text's tokens.
    pub ids: Vec<u32>,
    /// Sites that were read, in their order: the embedding, then every layer's end.
    pub sites: Vec<String>,
    /// `[site][position]`
    pub cells: Vec<Vec<Cell>>,
}

/// What a component adds to a logit.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    /// Where it was read.
    pub site: String,
    /// Its part of the logit.
    pub logit: f64,
}

/// A logit as the sum of what wrote it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Attribution {
    /// The logit, before any soft cap.
    pub logit: f64,
    /// Its parts, in the order of computation; with `constant` they sum to it.
    pub shares: Vec<Share>,
    /// What the final norm's bias and the unembedding's bias add.
    pub constant: f64,
}

/// The sites that the lens reads.
fn sites(model: &Model) -> Vec<Site> {
    let ends = (0..model.spec.n_layers).map(|l| Site::at(SiteKind::ResidPost, l));
    [Site::at(SiteKind::ResidPre, 0)].into_iter().chain(ends).collect()
}

/// Reads every layer at every position.
///
/// # Errors
/// The model's; more tokens asked for than there are.
pub fn lens(model: &Model, ids: &[u32], top: usize, hooks: Hooks) -> Result<Lens> {
    let (v, t) = (model.spec.vocab_size, ids.len());
    if top == 0 || top > v {
        return Err(MethodError::Request(format!("--top must lie in 1..={v}, the size of the vocabulary")));
    }
    let sites = sites(model);
    let mut hooks = sites.iter().fold(hooks, |h, s| h.tap(*s));
    model.run(&Tape::new(), &Batch::one(ids), None, &mut hooks, Logits::None)?;
    let mut stacked = Vec::with_capacity(sites.len() * t * model.spec.d_model);
    for site in &sites {
        let value = hooks.value(*site).ok_or_else(|| MethodError::Request(format!("{site} was not reached")))?;
        stacked.extend_from_slice(&f32s(value.tensor())?);
    }
    let stacked = tensor(stacked, (sites.len() * t, model.spec.d_model))?.into();
    let logits = model.unembed(&Tape::new(), &stacked)?;
    let logits = f32s(logits.tensor())?;
    let (mut values, mut idx) = (vec![0f32; sites.len() * t * top], vec![0u32; sites.len() * t * top]);
    row_topk(&logits, v, top, &mut values, &mut idx);
    let rows: Vec<&[f32]> = logits.chunks_exact(v).collect();
    let lse: Vec<f32> = rows.iter().map(|row| log_sum_exp(row)).collect();
    let last = (sites.len() - 1) * t;
    let log_p = |row: usize, id: usize| f64::from(rows[row][id] - lse[row]);
    let kl = |p: usize, q: usize| (0..v).map(|id| log_p(p, id).exp() * (log_p(p, id) - log_p(q, id))).sum::<f64>();
    let cell = |layer: usize, position: usize| {
        let row = layer * t + position;
        let picked = row * top..(row + 1) * top;
        let probability = |(id, x): (&u32, &f32)| (*id, f64::from(x - lse[row]).exp());
        // The other position is the one half the text away, so that neighbours, which are alike, are not compared.
        let other = (position + t / 2) % t;
        Cell {
            top: idx[picked.clone()].iter().zip(&values[picked]).map(probability).collect(),
            entropy: (0..v).map(|id| -log_p(row, id).exp() * log_p(row, id)).sum(),
            kl_to_final: kl(last + position, row),
            kl_to_other: (other != position).then(|| kl(last + other, row)),
            rank_of_next: ids.get(position + 1).map(|next| {
                let mine = rows[row][*next as usize];
                rows[row].iter().filter(|x| **x > mine).count()
            }),
        }
    };
    let cells = (0..sites.len()).map(|layer| (0..t).map(|p| cell(layer, p)).collect()).collect();
    Ok(Lens { ids: ids.to_vec(), sites: sites.iter().map(Site::to_string).collect(), cells })
}

/// Splits the logit of `token` at the last position into what each component wrote: the embeddings, and each layer's
/// attention and MLP. The final norm's divisor is taken as it was.
///
/// # Errors
/// The model's; a token outside the vocabulary.
pub fn attribute(model: &Model, ids: &[u32], token: u32, hooks: Hooks) -> Result<Attribution> {
    let (d, s) = (model.spec.d_model, &model.spec);
    if token as usize >= s.vocab_size {
        return Err(MethodError::Request(format!("token {token} is outside the vocabulary of {}", s.vocab_size)));
    }
    let mut components = vec![Site::at(SiteKind::ResidPre, 0)];
    for l in 0..s.n_layers {
        components.extend([Site::at(SiteKind::AttnOut, l), Site::at(SiteKind::MlpOut, l)]);
    }
    let end = Site::at(SiteKind::ResidPost, s.n_layers - 1);
    let mut hooks = components.iter().fold(hooks, |h, site| h.tap(*site)).tap(end);
    model.run(&Tape::new(), &Batch::one(ids), None, &mut hooks, Logits::None)?;
    let last = |site: Site| -> Result<Vec<f32>> {
        let value = hooks.value(site).ok_or_else(|| MethodError::Request(format!("{site} was not reached")))?;
        let values = f32s(value.tensor())?;
        Ok(values[values.len() - d..].to_vec())
    };
    let resid = last(end)?;
    let mean = |x: &[f32]| x.iter().map(|x| f64::from(*x)).sum::<f64>() / d as f64;
    let (centre, divisor) = match s.norm {
        Norm::Rms { eps } => {
            (false, (mean(&resid.iter().map(|x| x * x).collect::<Vec<f32>>()) + f64::from(eps)).sqrt())
        }
        Norm::Layer { eps } => {
            let m = mean(&resid) as f32;
            (true, (mean(&resid.iter().map(|x| (x - m) * (x - m)).collect::<Vec<f32>>()) + f64::from(eps)).sqrt())
        }
    };
    // The direction in the residual stream along which this logit grows.
    let weights = &model.weights;
    let mut row = vec![0f32; d];
    weights.unembed.w.row(token as usize, &mut row);
    let gain = f32s(weights.norm_final.gain.tensor())?;
    let direction: Vec<f64> =
        row.iter().zip(gain.iter()).map(|(w, g)| f64::from(*w) * f64::from(*g) / divisor).collect();
    let along = |x: &[f32]| -> f64 {
        let m = if centre { mean(x) } else { 0.0 };
        x.iter().zip(&direction).map(|(x, u)| (f64::from(*x) - m) * u).sum()
    };
    let mut constant = 0.0;
    if let Some(bias) = &weights.norm_final.bias {
        constant += f32s(bias.tensor())?.iter().zip(&row).map(|(b, w)| f64::from(*b) * f64::from(*w)).sum::<f64>();
    }
    if let Some(bias) = &weights.unembed.bias {
        constant += f64::from(f32s(bias.tensor())?[token as usize]);
    }
    let share = |site: &Site| Ok(Share { site: site.to_string(), logit: along(&last(*site)?) });
    let shares = components.iter().map(share).collect::<Result<_>>()?;
    Ok(Attribution { logit: along(&resid) + constant, shares, constant })
}
