//! TransformerLens's weight processing, which some published dictionaries were trained behind: the same function in
//! other numbers. Off by default.
//!
//! Source: TransformerLens, `HookedTransformer.load_and_process_state_dict`.

use super::load::Reader;
use crate::Result;
use crate::parts::{Part, Weight};
use crate::spec::{Mlp, ModelSpec, Norm};

/// Which of its steps are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Processing {
    /// Gains and biases of norms move into the maps that read them; what reads a centred stream is centred too.
    pub fold_norms: bool,
    /// What writes to the residual stream is made to have mean 0 over its width (LayerNorm models only: their norms
    /// take the mean out anyway).
    pub centre_writing: bool,
    /// Logits are made to have mean 0 over the vocabulary.
    pub centre_unembed: bool,
}

/// The specification of a model after processing.
///
/// # Errors
/// A step that would change what the model computes.
pub(super) fn processed_spec(spec: &ModelSpec, p: &Processing) -> std::result::Result<ModelSpec, String> {
    let mut out = spec.clone();
    if *p == Processing::default() {
        return Ok(out);
    }
    if p.centre_writing && !matches!(spec.norm, Norm::Layer { .. }) {
        return Err(
            "writing weights can be centred where norms take the mean out (LayerNorm), not before RMSNorm".into()
        );
    }
    if p.centre_writing && spec.norms.behind {
        return Err("writing weights cannot be centred where a norm stands behind them".into());
    }
    if p.centre_unembed && spec.logit_soft_cap.is_some() {
        return Err("logits with a soft cap cannot be centred: the cap would bend them differently".into());
    }
    if (p.fold_norms || p.centre_unembed) && spec.mixture.is_some() {
        return Err("processing is not defined for mixtures of experts".into());
    }
    // The unembedding gets numbers of its own.
    out.tied = false;
    if p.fold_norms && matches!(spec.norm, Norm::Layer { .. }) {
        (out.biases.qkv, out.biases.mlp, out.biases.unembed) = (true, true, true);
    }
    Ok(out)
}

/// The norm whose result a weight reads.
fn reads(spec: &ModelSpec, part: Part) -> Option<Part> {
    match part {
        Part::Q | Part::K | Part::V => spec.norms.before.then_some(Part::Norm1),
        Part::Gate | Part::Up => spec.norms.before.then_some(Part::Norm2),
        Part::Unembed => Some(Part::NormFinal),
        _ => None,
    }
}

impl Processing {
    /// A weight's values after processing; `spec` is the processed specification.
    pub(super) fn value(&self, reader: &Reader, spec: &ModelSpec, w: Weight) -> Result<Vec<f32>> {
        let before = reader.spec;
        let layered = |part: Part| Weight {
            part,
            bias: false,
            layer: if part == Part::NormFinal { None } else { w.layer },
            expert: None,
        };
        let mut v = match w.part {
            Part::Unembed if before.tied && !w.bias => reader.stored(Weight::global(Part::Embed))?,
            part if w.bias && !before.has_bias(part) => vec![0.0; spec.weight_shape(w)[0]],
            _ => reader.stored(w)?,
        };
        if *self == Self::default() {
            return Ok(v);
        }
        let d = spec.d_model;
        let layer_norm = matches!(spec.norm, Norm::Layer { .. });
        if self.fold_norms {
            let is_norm = matches!(w.part, Part::NormFinal)
                || (before.norms.before && matches!(w.part, Part::Norm1 | Part::Norm2));
            if is_norm {
                v.fill(if w.bias { 0.0 } else { 1.0 });
            }
            if let Some(norm) = reads(before, w.part) {
                if w.bias {
                    let matrix = match w.part {
                        Part::Unembed if before.tied => reader.stored(Weight::global(Part::Embed))?,
                        _ => reader.stored(Weight { bias: false, ..w })?,
                    };
                    let bias = reader.stored(layered(norm).bias())?;
                    for (out, row) in v.iter_mut().zip(matrix.chunks_exact(d)) {
                        *out += row.iter().zip(&bias).map(|(w, b)| f64::from(w * b)).sum::<f64>() as f32;
                    }
                } else {
                    let gain = reader.stored(layered(norm))?;
                    for row in v.chunks_exact_mut(d) {
                        row.iter_mut().zip(&gain).for_each(|(w, g)| *w *= g);
                        if layer_norm {
                            subtract_mean(row);
                        }
                    }
                }
            }
        }
        if self.centre_writing {
            match (w.part, w.bias) {
                (Part::Embed | Part::PosEmbed, _) => v.chunks_exact_mut(d).for_each(subtract_mean),
                (Part::O | Part::Down, true) => subtract_mean(&mut v),
                (Part::O | Part::Down, false) => subtract_mean_row(&mut v, d),
                _ => {}
            }
        }
        if self.centre_unembed && w.part == Part::Unembed {
            match w.bias {
                true => subtract_mean(&mut v),
                false => subtract_mean_row(&mut v, spec.vocab_size),
            }
        }
        debug_assert!(!matches!(spec.mlp, Mlp::Plain(_)) || w.part != Part::Gate);
        Ok(v)
    }
}

fn subtract_mean(x: &mut [f32]) {
    let mean = x.iter().map(|x| f64::from(*x)).sum::<f64>() / x.len().max(1) as f64;
    x.iter_mut().for_each(|x| *x = (f64::from(*x) - mean) as f32);
}

/// Subtracts the mean of the `n` rows from each.
fn subtract_mean_row(x: &mut [f32], n: usize) {
    let k = x.len() / n.max(1);
    let mut mean = vec![0f64; k];
    for row in x.chunks_exact(k) {
        mean.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x));
    }
    for row in x.chunks_exact_mut(k) {
        row.iter_mut().zip(&mean).for_each(|(x, m)| *x = (f64::from(*x) - m / n as f64) as f32);
    }
}
