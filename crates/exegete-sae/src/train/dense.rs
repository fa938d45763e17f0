//! A step of ReLU or JumpReLU whose codes are not sparse yet: early in training half of all latents are active under a threshold, and products
//! of whole matrices are quicker than sums over entries.
//!
//! Blocks of tokens go forward and backward one after the other; the gradients of the matrices are summed in arrays of
//! their size, which a sparse step does without.

use exegete_base::settings::{Activation, TrainSettings};
use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::cpu::{buffer, for_rows};
use rayon::prelude::*;

use super::encode::dead;
use super::rules::Threshold;
use super::select::Rule;
use super::term::squares;
use super::{Formula, Given, TrainState, Trainer};
use crate::sae::pre_activations;

/// From what share of active latents on a step is dense.
const FROM: f64 = 1.0 / 24.0;
/// Tokens of a block.
const BLOCK: usize = 512;

/// Gradients that a dense step leaves to the optimiser, each empty where there are none, and scratch.
#[derive(Default)]
pub(super) struct Dense {
    /// `[F, D]`
    pub(super) w_enc: Vec<f32>,
    /// `[F, D_out]`
    pub(super) w_dec: Vec<f32>,
    /// `[F]`
    pub(super) b_enc: Vec<f32>,
    /// Whether each latent was active.
    pub(super) fired: Vec<bool>,
    active: Vec<f32>,
    slopes: Vec<f32>,
}

impl Dense {
    /// Leaves no gradients.
    pub(super) fn clear(&mut self) {
        [&mut self.w_enc, &mut self.w_dec, &mut self.b_enc].into_iter().for_each(Vec::clear);
        self.fired.clear();
    }
}

/// Sums over the tokens of a step.
#[derive(Default)]
pub(super) struct Sums {
    pub(super) error: f64,
    pub(super) fvu: f64,
    pub(super) penalty: f64,
    pub(super) l0: f64,
}

/// Whether a step is dense: activations by thresholds, many of them, as far as the steps before tell.
pub(super) fn is_dense(settings: &TrainSettings, state: &TrainState) -> bool {
    let by_threshold = matches!(settings.activation, Activation::Relu | Activation::JumpRelu);
    // The band in which pre-activations feel thresholds is wide, and has most latents in it.
    let is_crowded = settings.ste_to_input || state.step == 0 || state.l0 > FROM * state.n_latents() as f64;
    by_threshold && settings.prefixes.is_empty() && is_crowded
}

impl Trainer {
    /// The forward and backward pass of a dense step.
    ///
    /// An error from elsewhere comes with the gradient at the reconstruction that [`Self::dense_forward`] made.
    pub(super) fn dense_gradients(&mut self, state: &TrainState, given: Option<&Given>) -> Sums {
        let (n, sparsity) = (self.xs_ND.len() / state.d, self.sparsity(state));
        let (formula, next, mut sum_next) = (self.formula(state.step), self.annealed_to(state.step), 0.0);
        let (d, o, f) = (state.d, state.d_out, state.n_latents());
        let (weight, mean_l0) = ((sparsity / n as f64) as f32, self.mean_l0(state, formula));
        // Dead latents look at what is left with what a sparse pass would have at hand.
        self.clear();
        let dense = &mut self.dense;
        for (array, len) in [(&mut dense.w_enc, f * d), (&mut dense.w_dec, f * o), (&mut dense.b_enc, f)] {
            array.clear();
            array.resize(len, 0.0);
        }
        dense.fired.clear();
        dense.fired.resize(f, false);
        let block = BLOCK.min(n);
        for array in [&mut self.pre, &mut dense.active, &mut dense.slopes] {
            if array.len() < block * f {
                *array = buffer(block * f);
            }
        }
        self.extra_d = state.extras.iter().map(|p| vec![0f32; p.values.len()]).collect();
        let mut factor = 0.0;
        if given.is_none() {
            let mut base = std::mem::take(&mut self.left_ND);
            self.base(state, &mut base);
            self.left_ND = base;
            factor = self.error_factor(n, squares(&self.ys_ND, &self.ys_ND, o).1);
        }
        let rule = Threshold::new(&self.settings, &self.theta_F);
        let dead = dead(&self.settings, d, &self.dead, &self.theta_F);
        self.norm_d_F.clear();
        self.norm_d_F.resize(self.norms_F.len(), 0.0);
        let mut grad = buffer(block * o);
        let mut sums = Sums::default();
        for from in (0..n).step_by(block) {
            let rows = block.min(n - from);
            let dense = &mut self.dense;
            let (pre, active) = (&mut self.pre[..rows * f], &mut dense.active[..rows * f]);
            let (slopes, grad) = (&mut dense.slopes[..rows * f], &mut grad[..rows * o]);
            let x = &self.centred_ND[from * d..(from + rows) * d];
            pre_activations(x, d, &state.w_enc.values, &state.b_enc.values, pre);
            let into = [&mut self.main.entries, &mut self.aux.entries, &mut self.low.entries];
            if dead.highest > 0 || dead.below.is_some() {
                self.selector.block(Rule::Nothing, (pre, f), dead, into);
            }
            for_rows(active, f, |n, row| {
                row.iter_mut().zip(&pre[n * f..]).enumerate().for_each(|(f, (a, h))| *a = rule.value(f, *h));
            });
            if let Some(next) = next {
                sum_next += penalties(next, 0.0, active, &self.norms_F, &mut self.norm_d_F, (slopes, f));
            }
            sums.penalty += penalties(formula, weight, active, &self.norms_F, &mut self.norm_d_F, (slopes, f));
            match given {
                Some(given) => grad.copy_from_slice(&given.grad_ND[from * o..(from + rows) * o]),
                None => {
                    let left = &mut self.left_ND[from * o..(from + rows) * o];
                    let w_dec = Mat::rows(&state.w_dec.values, o);
                    gemm((rows, o, f), left, o, Into::Add, 1.0, Mat::rows(active, f), w_dec, true);
                    let target = &self.ys_ND[from * o..(from + rows) * o];
                    for ((l, g), y) in left.iter_mut().zip(grad.iter_mut()).zip(target) {
                        *l = y - *l;
                        *g = (-2.0 * factor) as f32 * *l;
                    }
                }
            }
            let into = if formula == Formula::None { Into::Overwrite } else { Into::Add };
            gemm((rows, f, o), slopes, f, into, 1.0, Mat::rows(grad, o), Mat::rows(&state.w_dec.values, o).t(), true);
            let per_active_N = per_active(formula, active, f, (weight, mean_l0));
            for (latent, c) in through_rule(&rule, pre, slopes, (f, &per_active_N)).into_iter().enumerate() {
                dense.b_enc[latent] += c.d;
                dense.fired[latent] |= c.n_active > 0;
                sums.l0 += f64::from(c.n_active);
                if let Some(extra) = self.extra_d.first_mut() {
                    extra[latent] += c.extra;
                }
            }
            gemm((f, o, rows), &mut dense.w_dec, o, Into::Add, 1.0, Mat::rows(active, f).t(), Mat::rows(grad, o), true);
            gemm((f, d, rows), &mut dense.w_enc, d, Into::Add, 1.0, Mat::rows(slopes, f).t(), Mat::rows(x, d), true);
        }
        self.annealed = (sum_next > 0.0).then(|| sums.penalty / sum_next);
        self.main.d.clear();
        self.main.group_by_latent(f);
        let (l0, penalty) = (sums.l0 / n as f64, formula.of_mean(sums.penalty / n as f64));
        if let Some(given) = given {
            self.main.take_grad(given.grad_ND);
            return Sums { error: given.loss, fvu: given.fvu, l0, penalty };
        }
        self.main.grads.resize(1, Vec::new());
        self.main.grads[0].clear();
        self.main.grads[0].extend(self.left_ND.iter().map(|l| (-2.0 * factor) as f32 * l));
        let (square, spread) = squares(&self.ys_ND, &self.left_ND, o);
        Sums { error: factor * square, fvu: square / spread, l0, penalty }
    }

    /// The forward pass of a dense step alone: pre-activations are computed again on the way back, for those of a whole
    /// batch are too many to hold.
    pub(super) fn dense_forward(&mut self, state: &TrainState) {
        let (o, f) = (state.d_out, state.n_latents());
        let mut recon = std::mem::take(&mut self.recon_ND);
        self.base(state, &mut recon);
        self.each_block(state, |from, active| {
            let rows = active.len() / f;
            let (active, w_dec) = (Mat::rows(active, f), Mat::rows(&state.w_dec.values, o));
            gemm((rows, o, f), &mut recon[from * o..(from + rows) * o], o, Into::Add, 1.0, active, w_dec, true);
        });
        self.recon_ND = recon;
    }

    /// The batch's mean number of active latents, where a penalty's gradient cannot go without; 0 elsewhere.
    fn mean_l0(&mut self, state: &TrainState, formula: Formula) -> f64 {
        let mut count = 0;
        if let Formula::L0TargetBatch(_) = formula {
            self.each_block(state, |_, active| count += active.iter().filter(|a| **a > 0.0).count());
        }
        count as f64 / (self.xs_ND.len() / state.d) as f64
    }

    /// Hands out the activations of block after block, with the first token of each.
    fn each_block(&mut self, state: &TrainState, mut take: impl FnMut(usize, &[f32])) {
        let (d, f, n) = (state.d, state.n_latents(), self.xs_ND.len() / state.d);
        let block = BLOCK.min(n);
        if self.pre.len() < block * f {
            self.pre = buffer(block * f);
        }
        let rule = Threshold::new(&self.settings, &self.theta_F);
        for from in (0..n).step_by(block) {
            let rows = block.min(n - from);
            let pre = &mut self.pre[..rows * f];
            let x = &self.centred_ND[from * d..(from + rows) * d];
            pre_activations(x, d, &state.w_enc.values, &state.b_enc.values, pre);
            for_rows(pre, f, |_, row| row.iter_mut().enumerate().for_each(|(f, h)| *h = rule.value(f, *h)));
            take(from, pre);
        }
    }
}

/// The loss's gradient at the activities of a block's tokens; empty where it has none.
fn per_active(formula: Formula, active: &[f32], f: usize, (weight, mean_l0): (f32, f64)) -> Vec<f32> {
    if !formula.counts() {
        return Vec::new();
    }
    let one = |row: &[f32]| weight * formula.per_active(row.iter().filter(|a| **a > 0.0).count(), mean_l0);
    active.par_chunks_exact(f).map(one).collect()
}

/// Penalties of a block's tokens, summed in their order, and their gradients at the activations.
fn penalties(
    formula: Formula,
    weight: f32,
    active: &[f32],
    norms_F: &[f32],
    norm_d_F: &mut [f32],
    (slopes, f): (&mut [f32], usize),
) -> f64 {
    if formula == Formula::None {
        return 0.0;
    }
    let is_free = !norms_F.is_empty();
    let one = |(active, slopes): (&[f32], &mut [f32])| match is_free {
        true => {
            let u: Vec<f32> = active.iter().zip(norms_F).map(|(a, norm)| a * norm).collect();
            formula.row(&u, slopes)
        }
        false => formula.row(active, slopes),
    };
    let each: Vec<f64> = active.par_chunks_exact(f).zip(slopes.par_chunks_exact_mut(f)).map(one).collect();
    if is_free {
        for (active, slopes) in active.chunks_exact(f).zip(slopes.chunks_exact(f)) {
            norm_d_F.iter_mut().zip(active).zip(slopes).for_each(|((n, a), s)| *n += weight * a * s);
        }
    }
    slopes.par_chunks_exact_mut(f).for_each(|row| match is_free {
        true => row.iter_mut().zip(norms_F).for_each(|(s, norm)| *s *= weight * norm),
        false => row.iter_mut().for_each(|s| *s *= weight),
    });
    each.iter().sum()
}

/// What a block gives to a latent.
#[derive(Clone, Copy, Default)]
struct Column {
    d: f32,
    extra: f32,
    n_active: u32,
}

/// Turns gradients at activations into those at pre-activations, and sums each latent's over the tokens, in order.
fn through_rule(rule: &Threshold, pre: &[f32], slopes: &mut [f32], (f, per_active_N): (usize, &[f32])) -> Vec<Column> {
    let mut columns = vec![Column::default(); f];
    // Each thread takes a stretch of latents of all tokens.
    let stretch = f.div_ceil(4 * rayon::current_num_threads()).max(64);
    let mut parts: Vec<Vec<&mut [f32]>> = (0..f.div_ceil(stretch)).map(|_| Vec::new()).collect();
    for row in slopes.chunks_exact_mut(f) {
        parts.iter_mut().zip(row.chunks_mut(stretch)).for_each(|(part, slopes)| part.push(slopes));
    }
    parts.into_par_iter().zip(columns.par_chunks_mut(stretch)).enumerate().for_each(|(i, (rows, columns))| {
        let first = i * stretch;
        for (n, slopes) in rows.into_iter().enumerate() {
            let pre = &pre[n * f + first..];
            let per_active = per_active_N.get(n).copied().unwrap_or(0.0);
            for (l, ((d, h), c)) in slopes.iter_mut().zip(pre).zip(columns.iter_mut()).enumerate() {
                let (through, extra) = rule.back(first + l, *h, *d, per_active);
                c.n_active += u32::from(rule.value(first + l, *h) > 0.0);
                (*d, c.d, c.extra) = (through, c.d + through, c.extra + extra);
            }
        }
    });
    columns
}
