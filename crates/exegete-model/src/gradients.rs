//! What gradients are made into: per-example gradients of weights, and gradients at one-hot tokens.

use exegete_base::{Site, SiteKind};
use exegete_tensor::cpu::topk::row_topk;

use crate::parts::{Part, Weight};
use crate::{Model, ModelError, Result};

/// The gradient of a linear layer's matrix for one example, never multiplied out: it is `sum over t of dy_t x_t^T`.
///
/// Inner products between examples' gradients are sums over pairs of positions of `(x . x') (dy . dy')`, which is how
/// gradient-similarity attribution uses them.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearGradient {
    /// Inputs of the layer, `[T, in]`.
    pub x_TI: Vec<f32>,
    /// Gradients at its outputs, `[T, out]`.
    pub dy_TO: Vec<f32>,
    /// Positions.
    pub n: usize,
}

impl LinearGradient {
    /// The pairs of every example of a batch, from the layer's inputs and the gradients at its outputs, both token by
    /// token over rows of these lengths.
    ///
    /// # Errors
    /// Values that are not as many for each token.
    pub fn of_batch(x: &[f32], dy: &[f32], lens_B: &[usize]) -> Result<Vec<Self>> {
        let n: usize = lens_B.iter().sum();
        if n == 0 || !x.len().is_multiple_of(n) || !dy.len().is_multiple_of(n) {
            let detail = format!("{} inputs and {} gradients for {n} tokens", x.len(), dy.len());
            return Err(ModelError::Request(format!("per-example gradients: {detail}")));
        }
        let (i, o, mut at) = (x.len() / n, dy.len() / n, 0);
        let one = |len: &usize| {
            let range = at..at + len;
            at += len;
            let x_TI = x[range.start * i..range.end * i].to_vec();
            Self { x_TI, dy_TO: dy[range.start * o..range.end * o].to_vec(), n: *len }
        };
        Ok(lens_B.iter().map(one).collect())
    }

    /// The gradient itself, `[out, in]`.
    pub fn outer(&self) -> Vec<f32> {
        let n = self.n.max(1);
        let (i, o) = (self.x_TI.len() / n, self.dy_TO.len() / n);
        let mut out = vec![0f32; o * i];
        for (x, dy) in self.x_TI.chunks_exact(i).zip(self.dy_TO.chunks_exact(o)) {
            for (row, d) in out.chunks_exact_mut(i).zip(dy) {
                row.iter_mut().zip(x).for_each(|(w, x)| *w += d * x);
            }
        }
        out
    }

    /// The inner product with another example's gradient, without making either.
    pub fn dot(&self, other: &Self) -> f64 {
        let (n, m) = (self.n.max(1), other.n.max(1));
        let (i, o) = (self.x_TI.len() / n, self.dy_TO.len() / n);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a * b)).sum::<f64>();
        let mut sum = 0.0;
        for t in 0..n {
            for u in 0..m {
                let xs = dot(&self.x_TI[t * i..(t + 1) * i], &other.x_TI[u * i..(u + 1) * i]);
                sum += xs * dot(&self.dy_TO[t * o..(t + 1) * o], &other.dy_TO[u * o..(u + 1) * o]);
            }
        }
        sum
    }
}

impl Model {
    /// The sites at which the input and the output of a linear layer can be read: tap the one, watch the other, and the
    /// two are the per-example gradients of its matrix. `None` where norms or experts stand between, and for the
    /// embeddings.
    pub fn linear_sites(&self, weight: Weight) -> Option<(Site, Site)> {
        use SiteKind::*;
        let pair = match (weight.part, weight.layer) {
            (Part::Unembed, None) => {
                // A soft cap bends what comes out of the matrix before it can be read.
                let plain = self.spec.logit_soft_cap.is_none() && !self.spec.tied;
                return plain.then(|| (Site::global(FinalResid), Site::global(Logits)));
            }
            (Part::Q, Some(_)) => (AttnIn, AttnQ),
            (Part::K, Some(_)) => (AttnIn, AttnK),
            (Part::V, Some(_)) => (AttnIn, AttnV),
            (Part::O, Some(_)) => (AttnZ, AttnModuleOut),
            (Part::Gate, Some(_)) => (MlpIn, MlpPre),
            (Part::Up, Some(l)) if self.spec.site(Site::at(MlpPreLinear, l)).is_ok() => (MlpIn, MlpPreLinear),
            (Part::Up, Some(_)) => (MlpIn, MlpPre),
            (Part::Down, Some(_)) => (MlpPost, MlpModuleOut),
            _ => return None,
        };
        let layer = weight.layer?;
        let site = |kind: SiteKind| self.spec.site(Site::at(kind, layer)).ok();
        Some((site(pair.0)?, site(pair.1)?))
    }

    /// Gradients with respect to one-hot tokens, from those at the embeddings (`hook_embed`): `dL/de W_E^T`, one number
    /// for each token that could stand at each position. The one-hot vectors are never made.
    ///
    /// # Shapes
    /// `grad_ND -> [N, V]`
    ///
    /// # Errors
    /// Gradients of another width than the model's.
    pub fn token_gradients(&self, grad_ND: &[f32]) -> Result<Vec<f32>> {
        let n = self.check_gradients(grad_ND)?;
        let mut out = vec![0f32; n * self.spec.vocab_size];
        self.weights.embed.forward(n, grad_ND, None, &mut out);
        out.iter_mut().for_each(|x| *x *= self.spec.embed_scale);
        Ok(out)
    }

    /// For each position the `k` tokens whose one-hot gradient is lowest (which lower the loss most, to first order), and
    /// these gradients, lowest first. Positions are handled a few at a time, so that `[N, V]` never exists.
    ///
    /// # Errors
    /// As for [`Model::token_gradients`]; a `k` outside `1..=V`.
    pub fn best_tokens(&self, grad_ND: &[f32], k: usize) -> Result<Vec<Vec<(u32, f32)>>> {
        self.check_gradients(grad_ND)?;
        let (v, d) = (self.spec.vocab_size, self.spec.d_model);
        if k == 0 || k > v {
            return Err(ModelError::Request(format!("{k} tokens of a vocabulary of {v} were asked for")));
        }
        let mut best = Vec::new();
        for rows in grad_ND.chunks(d * 32) {
            let n = rows.len() / d;
            let mut scores = self.token_gradients(rows)?;
            scores.iter_mut().for_each(|x| *x = -*x);
            let (mut values, mut idx) = (vec![0f32; n * k], vec![0u32; n * k]);
            row_topk(&scores, v, k, &mut values, &mut idx);
            let row = |(idx, values): (&[u32], &[f32])| idx.iter().copied().zip(values.iter().map(|x| -x)).collect();
            best.extend(idx.chunks(k).zip(values.chunks(k)).map(row));
        }
        Ok(best)
    }

    fn check_gradients(&self, grad_ND: &[f32]) -> Result<usize> {
        let d = self.spec.d_model;
        match grad_ND.len().is_multiple_of(d) {
            true => Ok(grad_ND.len() / d),
            false => Err(ModelError::Request(format!("{} gradients are no rows of width {d}", grad_ND.len()))),
        }
    }
}
