//! A step of ReLU, JumpReLU or Gated whose codes are not sparse yet: early in training half of all latents are active under a
//! threshold, and products of whole matrices are quicker than sums over entries.
//!
//! Blocks of tokens go forward and backward one after the other; the gradients of the matrices are summed in arrays of
//! their size, which a sparse step does without.

use exegete_base::settings::{Activation, TrainSettings};
use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::cpu::simd::dot;
use exegete_tensor::cpu::{buffer, for_rows};

use super::block::{groups, penalties, per_active, through_gate, through_rule};
use super::encode::dead;
use super::rules::Single;
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
    /// Tokens at which each latent was active.
    pub(super) fired: Vec<u64>,
    active: Vec<f32>,
    slopes: Vec<f32>,
    gate: Vec<f32>,
    gate_slopes: Vec<f32>,
}

impl Dense {
    /// No gradients yet of widths `(F, D, D_out)`, and room for so many values of a block.
    fn begin(&mut self, (f, d, o): (usize, usize, usize), values: usize, is_gated: bool) {
        for (array, len) in [(&mut self.w_enc, f * d), (&mut self.w_dec, f * o), (&mut self.b_enc, f)] {
            array.clear();
            array.resize(len, 0.0);
        }
        self.fired.clear();
        self.fired.resize(f, 0);
        let gated = if is_gated { values } else { 0 };
        let scratch = [(&mut self.active, values), (&mut self.slopes, values)];
        for (array, len) in scratch.into_iter().chain([(&mut self.gate, gated), (&mut self.gate_slopes, gated)]) {
            if array.len() < len {
                *array = buffer(len);
            }
        }
    }

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
    let by_threshold = matches!(settings.activation, Activation::Relu | Activation::JumpRelu | Activation::Gated);
    // The band in which pre-activations feel thresholds is wide, and has most latents in it.
    let is_crowded = settings.ste_to_input || state.step == 0 || state.l0 > FROM * state.n_latents() as f64;
    by_threshold && is_crowded
}

/// The columns of some latents in rows of F.
fn columns(rows_NF: &[f32], f: usize, first: usize) -> Mat<'_> {
    Mat { data: &rows_NF[first..], row_stride: f, col_stride: 1 }
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
        let is_gated = self.settings.activation == Activation::Gated;
        // Dead latents look at what is left with what a sparse pass would have at hand.
        self.clear();
        self.main.d.clear();
        self.main.group_by_latent(f);
        let block = BLOCK.min(n);
        self.dense.begin((f, d, o), block * f, is_gated);
        if self.pre.len() < block * f {
            self.pre = buffer(block * f);
        }
        self.extra_d = state.extras.iter().map(|p| vec![0f32; p.values.len()]).collect();
        self.norm_d_F.clear();
        self.norm_d_F.resize(self.norms_F.len(), 0.0);
        let spread = squares(&self.ys_ND, &self.ys_ND, o).1;
        let (whole, n_groups) = (self.error_factor(n, spread), self.main.ends.len());
        let factor = whole / n_groups as f64;
        // What is left of the target, by what comes before any latent; behind the loop by everything.
        let mut gate_left_ND = Vec::new();
        if is_gated {
            self.base(state, &mut gate_left_ND);
        }
        match given {
            Some(given) => self.main.take_grad(given.grad_ND),
            None => {
                let mut base = std::mem::take(&mut self.left_ND);
                self.base(state, &mut base);
                self.left_ND = base;
                self.main.grads.resize_with(n_groups, Vec::new);
                self.main.grads.iter_mut().for_each(|grad| grad.resize(n * o, 0.0));
            }
        }
        let rule = Single::of(&self.settings, state, &self.theta_F);
        let dead = dead(&self.settings, d, &self.dead, &self.theta_F);
        let w_dec = &state.w_dec.values[..];
        let (mut sums, mut of_groups, mut of_gate) = (Sums::default(), vec![0f64; n_groups], 0.0);
        for from in (0..n).step_by(block) {
            let rows = block.min(n - from);
            let dense = &mut self.dense;
            let (pre, active) = (&mut self.pre[..rows * f], &mut dense.active[..rows * f]);
            let (slopes, out) = (&mut dense.slopes[..rows * f], from * o..(from + rows) * o);
            let (x, ys) =
                (&self.centred_ND[from * d..(from + rows) * d], self.ys_ND.get(out.clone()).unwrap_or_default());
            pre_activations(x, d, &state.w_enc.values, &state.b_enc.values, pre);
            let into = [&mut self.main.entries, &mut self.aux.entries, &mut self.low.entries];
            if dead.highest > 0 || dead.below.is_some() {
                self.selector.block(Rule::Nothing, (pre, f), dead, into);
            }
            for_rows(active, f, |n, row| {
                row.iter_mut().zip(&pre[n * f..]).enumerate().for_each(|(f, (a, h))| *a = rule.value(f, *h));
            });
            // What a gate lets through is what it costs, and what has an error of its own.
            let len = if is_gated { rows * f } else { 0 };
            let (gate, gate_slopes) = (&mut dense.gate[..len], &mut dense.gate_slopes[..len]);
            for_rows(gate, f, |n, row| row.iter_mut().zip(&pre[n * f..]).for_each(|(g, h)| *g = h.max(0.0)));
            let (costs, cost_slopes) = if is_gated { (&*gate, &mut *gate_slopes) } else { (&*active, &mut *slopes) };
            if let Some(next) = next {
                sum_next += penalties(next, 0.0, costs, &self.norms_F, &mut self.norm_d_F, (cost_slopes, f));
            }
            sums.penalty += penalties(formula, weight, costs, &self.norms_F, &mut self.norm_d_F, (cost_slopes, f));
            let onto_costs = if formula == Formula::None { Into::Overwrite } else { Into::Add };
            let grads = &mut self.main.grads;
            if given.is_none() {
                let left = &mut self.left_ND[out.clone()];
                for (group, of) in groups(&self.main.ends).enumerate() {
                    let w_dec = Mat::rows(&w_dec[of.start * o..], o);
                    gemm((rows, o, of.len()), left, o, Into::Add, 1.0, columns(active, f, of.start), w_dec, true);
                    let grad = &mut grads[group][out.clone()];
                    grad.iter_mut().zip(ys).zip(&*left).for_each(|((g, y), l)| *g = y - l);
                    of_groups[group] = grad.chunks_exact(o).fold(of_groups[group], |sum, l| sum + f64::from(dot(l, l)));
                    if group + 1 == n_groups {
                        left.copy_from_slice(grad);
                    }
                    grad.iter_mut().for_each(|g| *g *= (-2.0 * factor) as f32);
                }
                // What a group's latents add to is in every prefix from theirs on.
                for group in (0..n_groups - 1).rev() {
                    let (before, after) = grads.split_at_mut(group + 1);
                    let next = &after[0][out.clone()];
                    before[group][out.clone()].iter_mut().zip(next).for_each(|(g, next)| *g += next);
                }
            }
            let into = if is_gated { Into::Overwrite } else { onto_costs };
            for (grad, of) in grads.iter().zip(groups(&self.main.ends)) {
                let (grad, w_dec) = (Mat::rows(&grad[out.clone()], o), Mat::rows(&w_dec[of.start * o..], o).t());
                gemm((rows, of.len(), o), &mut slopes[of.start..], f, into, 1.0, grad, w_dec, true);
                let (active, dw_dec) = (columns(active, f, of.start).t(), &mut dense.w_dec[of.start * o..]);
                gemm((of.len(), o, rows), dw_dec, o, Into::Add, 1.0, active, grad, true);
            }
            let per_active_N = per_active(formula, active, f, (weight, mean_l0));
            for (latent, c) in through_rule(&rule, pre, slopes, (f, &per_active_N)).into_iter().enumerate() {
                dense.b_enc[latent] += c.d;
                dense.fired[latent] += u64::from(c.n_active);
                sums.l0 += f64::from(c.n_active);
                self.extra_d.iter_mut().zip(c.extras).for_each(|(extra, sum)| extra[latent] += sum);
            }
            if is_gated {
                // The decoder is held fixed here.
                let (left, w_dec) = (&mut gate_left_ND[out], Mat::rows(w_dec, o));
                gemm((rows, o, f), left, o, Into::Add, 1.0, Mat::rows(gate, f), w_dec, true);
                left.iter_mut().zip(ys).for_each(|(l, y)| *l = y - *l);
                of_gate = left.chunks_exact(o).fold(of_gate, |sum, l| sum + f64::from(dot(l, l)));
                left.iter_mut().for_each(|l| *l *= (-2.0 * whole) as f32);
                gemm((rows, f, o), gate_slopes, f, onto_costs, 1.0, Mat::rows(left, o), w_dec.t(), true);
                through_gate(gate, gate_slopes, slopes, &mut dense.b_enc);
            }
            gemm((f, d, rows), &mut dense.w_enc, d, Into::Add, 1.0, Mat::rows(slopes, f).t(), Mat::rows(x, d), true);
        }
        self.annealed = (sum_next > 0.0).then(|| sums.penalty / sum_next);
        let (l0, penalty) = (sums.l0 / n as f64, formula.of_mean(sums.penalty / n as f64));
        let (error, fvu) = match given {
            Some(given) => (given.loss, given.fvu),
            None => {
                let error = of_groups.iter().map(|square| factor * square).sum();
                (error, of_groups[n_groups - 1] / spread)
            }
        };
        Sums { error: error + if is_gated { whole * of_gate } else { 0.0 }, fvu, l0, penalty }
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
        let rule = Single::of(&self.settings, state, &self.theta_F);
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
