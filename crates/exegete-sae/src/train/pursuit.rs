//! The step of matching pursuit, whose activations are products of what is left with the decoder itself.
//!
//! The choices are held fixed, as in SAELens, and gradients flow through everything else: through each activation to what was
//! left before it, and so to all earlier ones. With `r_t = r_(t-1) - v_t w_t`, `v_t = r_(t-1) . w_t`, the reconstruction
//! is `x - r_T`; going back from `g_T`, the loss's gradient at `r_T`, with `a = -g_t . w_t` the gradient at `v_t`:
//! `g_(t-1) = g_t + a w_t`, and `w_t` gets `a r_(t-1) - v_t g_t`. These are vectors of single entries, so tokens are taken in
//! blocks, and each latent's are summed in the order of the tokens into an array of the decoder's size.

use exegete_base::settings::TrainSettings;
use exegete_tensor::cpu::buffer;
use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::cpu::simd::{axpy, dot};
use exegete_tensor::cpu::sparse::ByLatent;
use rayon::prelude::*;

use super::encode::BLOCK;
use super::{Dense, TrainState, Trainer};
use crate::kinds::{Gram, MatchingPursuit};

/// Tokens whose entries' vectors are held at once.
const HELD: usize = 256;

/// Scratch of a pursuit.
#[derive(Default)]
pub(super) struct Pursuit {
    gram: Gram,
    /// What is left at the end, `[N, D]`.
    left_ND: Vec<f32>,
    /// Gradients of single entries at their decoder rows.
    each: Vec<f32>,
    by_latent: ByLatent,
    starts: Vec<usize>,
}

/// The rule of some settings, what is left measured in units of `scale` times the input's.
pub(super) fn rule(settings: &TrainSettings, scale: f32) -> MatchingPursuit {
    let residual_threshold = settings.residual_threshold as f32 / scale;
    MatchingPursuit { max_iterations: settings.k, residual_threshold, stops_on_duplicate: true }
}

/// Bytes that a pursuit takes besides what every step does.
pub(super) fn bytes(settings: &TrainSettings, d: usize) -> usize {
    let vectors = HELD.min(settings.batch).saturating_mul(settings.k).saturating_add(settings.batch);
    Gram::most_bytes(settings.latents).saturating_add(vectors.saturating_mul(4 * d))
}

impl Trainer {
    /// Entries of the batch, those of a token in the order in which they were chosen.
    pub(super) fn pursue(&mut self, state: &TrainState) {
        let (d, f, n) = (state.d, state.n_latents(), self.xs_ND.len() / state.d);
        let (rule, w_dec) = (rule(&self.settings, 1.0), &state.w_dec.values[..]);
        let Pursuit { gram, left_ND, .. } = &mut self.pursuit;
        gram.clear();
        left_ND.clear();
        left_ND.extend_from_slice(&self.centred_ND);
        let block = BLOCK.min(n);
        if self.pre.len() < block * f {
            self.pre = buffer(block * f);
        }
        let entries = &mut self.main.entries;
        for left in left_ND.chunks_mut(block * d) {
            let rows = left.len() / d;
            let pre = &mut self.pre[..rows * f];
            gemm((rows, f, d), pre, f, Into::Overwrite, 1.0, Mat::rows(left, d), Mat::rows(w_dec, d).t(), true);
            for choices in rule.pursue((w_dec, d), left, pre, gram) {
                choices.into_iter().for_each(|(latent, value)| entries.push(latent, value, value));
                entries.end();
            }
        }
    }

    /// Turns the gradient at the reconstruction into those of the decoder and of its bias; the mean number of active latents.
    pub(super) fn pursuit_gradient(&mut self, state: &TrainState) -> f64 {
        let (d, f, n) = (state.d, state.n_latents(), self.xs_ND.len() / state.d);
        let w_dec = &state.w_dec.values[..];
        let Pursuit { left_ND, each, by_latent, starts, .. } = &mut self.pursuit;
        let Dense { w_dec: sums, .. } = &mut self.dense;
        sums.clear();
        sums.resize(f * d, 0.0);
        let (entries, grad_ND) = (&self.main.entries, &mut self.main.grads[0]);
        let mut active = 0;
        for from in (0..n).step_by(HELD) {
            let to = n.min(from + HELD);
            let of = entries.starts[from]..entries.starts[to];
            if each.len() < of.len() * d {
                *each = buffer(of.len() * d);
            }
            let (idx, values) = (&entries.idx[of.clone()], &entries.values[of.clone()]);
            starts.clear();
            starts.extend(entries.starts[from..=to].iter().map(|start| start - of.start));
            let mut tokens = Vec::with_capacity(to - from);
            let mut rest = &mut each[..of.len() * d];
            let rows = left_ND[from * d..to * d].chunks_exact_mut(d).zip(grad_ND[from * d..to * d].chunks_exact_mut(d));
            for (range, (left, grad)) in starts.windows(2).zip(rows) {
                let (own, behind) = rest.split_at_mut((range[1] - range[0]) * d);
                rest = behind;
                let idx = &idx[range[0]..range[1]];
                // Chosen again, a latent is still one that is active.
                let again = idx.split_last().is_some_and(|(last, before)| before.contains(last));
                active += idx.len() - usize::from(again);
                tokens.push((idx, &values[range[0]..range[1]], left, grad, own));
            }
            tokens.into_par_iter().for_each(|(idx, values, left, grad, each)| {
                // The gradient at the reconstruction is that at what is left with the other sign, and at the bias too.
                for ((latent, value), each) in idx.iter().zip(values).zip(each.chunks_exact_mut(d)).rev() {
                    let w = &w_dec[*latent as usize * d..][..d];
                    let through = dot(grad, w);
                    axpy(*value, w, left);
                    each.iter_mut().zip(&*left).zip(&*grad).for_each(|((e, l), g)| *e = through * l + value * g);
                    axpy(-through, w, grad);
                }
            });
            by_latent.build(f, idx, starts, |_| true);
            let (each, by_latent) = (&each[..], &*by_latent);
            sums.par_chunks_exact_mut(d).enumerate().for_each(|(latent, sum)| {
                for e in by_latent.of(latent) {
                    axpy(1.0, &each[*e as usize * d..][..d], sum);
                }
            });
        }
        // Nothing is left to be summed from entries.
        self.main.d.clear();
        self.main.by_latent.build(f, &[], &[0], |_| false);
        active as f64 / n as f64
    }
}
