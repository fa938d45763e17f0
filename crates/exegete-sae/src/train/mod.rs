//! One training step of a dictionary, sparse where the codes are sparse, Adam fused in.
//!
//! Inside, everything is in scaled units `x_s = scale * x`. The loss is
//! `error + sparsity * penalty + aux_weight * aux`, where the error is `|y_s - y'|^2` over `|y_s - mean|^2` or summed over
//! the width, `aux = |e - e'|^2 / |e - mean e|^2` with `e = y_s - y'` held fixed and `e'` its reconstruction from the
//! k_aux dead latents that fire most (AuxK, Gao et al. 2024, appendix A.2; its gradient reaches the encoder too), and the
//! penalty a formula of each token's activations. Nested dictionaries (Matryoshka, Bussmann et al. 2025, arXiv 2503.17547)
//! take the mean of the errors of all prefixes. No weight gradient is ever stored: each latent's rows are summed from its
//! own tokens and handed to Adam at once, by one task, in the order of the tokens; only while codes are not sparse yet
//! (module `dense`) are there arrays of gradients.

mod apply;
mod checkpoint;
mod dense;
mod penalty;
mod select;
mod state;
mod term;

use exegete_base::settings::{Activation, DecoderRows, Penalty, Reconstruction, TrainSettings};
use exegete_tensor::cpu::buffer;
use exegete_tensor::cpu::simd::dot;
use rayon::prelude::*;

use self::dense::{Dense, Sums};
pub use self::penalty::Formula;
use self::select::Selector;
pub use self::state::TrainState;
use self::term::{Term, squares};
use crate::sae::pre_activations;
use crate::{Result, SaeError};

/// Tokens of the batch whose pre-activations are held at once: enough to pay for packing the encoder, few enough to stay
/// near the cache.
const BLOCK: usize = 1024;
/// How much the last step counts in the running mean of active latents.
const L0_DECAY: f64 = 0.05;
/// How quickly the penalty's weight follows the number of active latents: the factor of its logarithm, a step.
const STEERING: f64 = 0.01;

/// What a step measured, before it moved the parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStats {
    /// Whole loss.
    pub loss: f64,
    /// FVU about the batch mean.
    pub fvu: f64,
    /// Auxiliary part, before its weight; 0 where no latent is dead.
    pub aux: f64,
    /// The penalty, before its weight, mean over tokens.
    pub penalty: f64,
    /// The penalty's weight.
    pub sparsity: f64,
    /// Mean number of active latents.
    pub l0: f64,
    /// Latents that counted as dead.
    pub n_dead: usize,
}

/// Runs training steps; holds the scratch that they reuse.
pub struct Trainer {
    settings: TrainSettings,
    n_steps: u64,
    selector: Selector,
    xs_ND: Vec<f32>,
    ys_ND: Vec<f32>,
    centred_ND: Vec<f32>,
    pre: Vec<f32>,
    left_ND: Vec<f32>,
    main: Term,
    aux: Term,
    dense: Dense,
    dead: Vec<u32>,
    penalty_d: Vec<f32>,
    /// Lengths of decoder rows; empty where these are held.
    norms_F: Vec<f32>,
    /// Gradients of the penalty at the lengths of decoder rows; empty where these are held.
    norm_d_F: Vec<f32>,
    /// The penalty over what it would be under the next step's formula, where that is another.
    annealed: Option<f64>,
    /// Gradients of the latents' extras.
    extra_d: Vec<Vec<f32>>,
}

impl Trainer {
    /// A trainer for a run of `n_steps`.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(settings: TrainSettings, n_steps: u64) -> Result<Self> {
        settings.check().map_err(SaeError::Shape)?;
        let mut ends = settings.prefixes.clone();
        ends.push(settings.latents);
        let main = Term { ends, ..Term::default() };
        let aux = Term { ends: vec![settings.latents], ..Term::default() };
        Ok(Self {
            settings,
            n_steps,
            selector: Selector::default(),
            xs_ND: Vec::new(),
            ys_ND: Vec::new(),
            centred_ND: Vec::new(),
            pre: Vec::new(),
            left_ND: Vec::new(),
            main,
            aux,
            dense: Dense::default(),
            dead: Vec::new(),
            penalty_d: Vec::new(),
            norms_F: Vec::new(),
            norm_d_F: Vec::new(),
            annealed: None,
            extra_d: Vec::new(),
        })
    }

    /// Bytes that a training takes, about: the state, and the scratch of a step.
    pub fn bytes(settings: &TrainSettings, d: usize, d_out: usize) -> usize {
        let (f, both) = (settings.latents, settings.latents.saturating_mul(d + d_out));
        let by_threshold = matches!(settings.activation, Activation::Relu | Activation::JumpRelu);
        let (arrays, blocks) = if by_threshold { (16, 3) } else { (12, 1) };
        let rows = settings.batch.saturating_mul(4 * (3 * d + 3 * d_out));
        both.saturating_mul(arrays).saturating_add(f.saturating_mul(48 + 4 * BLOCK * blocks)).saturating_add(rows)
    }

    /// One step on a batch of activations, in the input's units; a transcoder's targets besides.
    ///
    /// # Shapes
    /// `x_ND, y_ND [N, D_out]`
    ///
    /// # Errors
    /// A batch of another width, or one that is not finite.
    pub fn step(&mut self, state: &mut TrainState, x_ND: &[f32], y_ND: Option<&[f32]>) -> Result<StepStats> {
        let stats = self.gradients(state, x_ND, y_ND)?;
        let lr = self.settings.peak_lr() * self.settings.lr_factor(state.step, self.n_steps);
        self.apply(state, lr, y_ND.is_none());
        let n = (x_ND.len() / state.d) as u64;
        state.since_fired_F.iter_mut().for_each(|since| *since += n);
        let entries = &self.main.entries;
        for (latent, _) in entries.idx.iter().zip(&entries.values).filter(|(_, value)| **value > 0.0) {
            state.since_fired_F[*latent as usize] = 0;
        }
        for (since, _) in state.since_fired_F.iter_mut().zip(&self.dense.fired).filter(|(_, fired)| **fired) {
            *since = 0;
        }
        state.l0 = if state.step == 0 { stats.l0 } else { state.l0 + L0_DECAY * (stats.l0 - state.l0) };
        state.steering *= self.annealed.take().unwrap_or(1.0);
        if self.settings.target_l0 > 0.0 {
            let off = (state.l0.max(1e-3) / self.settings.target_l0).ln();
            state.steering = (state.steering * (STEERING * off.clamp(-1.0, 1.0)).exp()).clamp(1e-6, 1e6);
        }
        state.step += 1;
        Ok(stats)
    }

    /// The forward pass and everything of the backward pass that is not summed by latent.
    fn gradients(&mut self, state: &mut TrainState, x_ND: &[f32], y_ND: Option<&[f32]>) -> Result<StepStats> {
        let (d, o) = (state.d, state.d_out);
        let n = x_ND.len() / d;
        if n == 0 || x_ND.len() != n * d || y_ND.map_or(o != d, |y| y.len() != n * o) {
            let targets = y_ND.map_or(x_ND.len(), <[f32]>::len);
            let detail = format!("a batch of {} values and {targets} targets for widths of {d} and {o}", x_ND.len());
            return Err(SaeError::Shape(detail));
        }
        self.take_in(state, x_ND, y_ND);
        self.find_dead(state);
        self.norms_F.clear();
        if self.settings.decoder_rows == DecoderRows::Free {
            self.norms_F.par_extend(state.w_dec.values.par_chunks_exact(o).map(|row| dot(row, row).sqrt()));
        }
        let sparsity =
            self.settings.sparsity * self.settings.sparsity_factor(state.step, self.n_steps) * state.steering;
        let Sums { error, fvu, penalty, l0 } = match dense::is_dense(&self.settings, state) {
            true => self.dense_gradients(state, n, sparsity),
            false => self.sparse_gradients(state, n, sparsity)?,
        };
        let aux = if self.dead.is_empty() { 0.0 } else { self.aux_gradient(state) };
        let loss = error + sparsity * penalty + self.settings.aux_weight * aux;
        if !loss.is_finite() {
            let all_alike = x_ND.chunks_exact(d).all(|row| row == &x_ND[..d]) && x_ND.iter().all(|x| x.is_finite());
            let detail = match all_alike {
                true => {
                    "all activations of the batch are the same, which leaves no variance to explain: look at the text"
                }
                false => "the loss is not finite: look for NaN or infinity in the activations, or lower --lr",
            };
            return Err(SaeError::Shape(format!("step {}: {detail}", state.step)));
        }
        Ok(StepStats { loss, fvu, aux, penalty, sparsity, l0, n_dead: self.dead.len() })
    }

    /// The forward and backward pass of a sparse step.
    fn sparse_gradients(&mut self, state: &mut TrainState, n: usize, sparsity: f64) -> Result<Sums> {
        self.dense.fired.clear();
        self.encode(state, n)?;
        select::activate(&self.settings, state, &mut self.main.entries);
        let penalty = self.penalty(state, n, sparsity);
        let (error, fvu) = self.error_gradient(state, n);
        let is_gated = self.settings.activation == Activation::Gated;
        if !is_gated {
            self.main.d.iter_mut().zip(&self.penalty_d).for_each(|(d, penalty)| *d += penalty);
        }
        let per_active = self.per_active(sparsity, n);
        let main = &mut self.main;
        self.extra_d = select::backward(&self.settings, state, &main.entries, per_active, &mut main.d);
        let gate = if is_gated { self.gate_gradient(state, n) } else { 0.0 };
        self.main.group_by_latent(state.n_latents());
        let l0 = self.main.entries.values.iter().filter(|v| **v > 0.0).count() as f64 / n as f64;
        Ok(Sums { error: error + gate, fvu, penalty, l0 })
    }

    /// The loss's gradient at an activity itself, where it counts them.
    fn per_active(&self, sparsity: f64, n: usize) -> f32 {
        match self.settings.resolved_penalty() {
            Penalty::L0 => (sparsity / n as f64) as f32,
            _ => 0.0,
        }
    }

    /// The next step's formula, where P-annealing changes its power: the weight then changes too, so that the penalty keeps
    /// its size.
    fn annealed_to(&self, step: u64) -> Option<Formula> {
        let next = self.formula(step + 1);
        (self.settings.resolved_penalty() == Penalty::PAnneal && next != self.formula(step)).then_some(next)
    }

    /// The formula of a step's penalty.
    fn formula(&self, step: u64) -> Formula {
        Formula::at(&self.settings, step as f64 / self.n_steps.max(1) as f64)
    }

    /// Takes in a batch, in scaled units. Where there are targets, the decoder's bias belongs to them and stays on the input.
    fn take_in(&mut self, state: &TrainState, x_ND: &[f32], y_ND: Option<&[f32]>) {
        let scaled = |out: &mut Vec<f32>, x: &[f32]| {
            out.clear();
            out.extend(x.iter().map(|x| x * state.scale));
        };
        scaled(&mut self.xs_ND, x_ND);
        scaled(&mut self.ys_ND, y_ND.unwrap_or(x_ND));
        self.centred_ND.clear();
        self.centred_ND.extend_from_slice(&self.xs_ND);
        if y_ND.is_none() {
            for row in self.centred_ND.chunks_exact_mut(state.d) {
                row.iter_mut().zip(&state.b_dec.values).for_each(|(c, b)| *c -= b);
            }
        }
    }

    /// The latents that count as dead.
    fn find_dead(&mut self, state: &TrainState) {
        self.dead.clear();
        if self.settings.aux_weight > 0.0 {
            let is_dead = |(_, since): &(usize, &u64)| **since > self.settings.dead_after_tokens;
            self.dead.extend(state.since_fired_F.iter().enumerate().filter(is_dead).map(|(i, _)| i as u32));
        }
    }

    /// Entries of the batch, and the dead latents' entries while the pre-activations are at hand.
    fn encode(&mut self, state: &mut TrainState, n: usize) -> Result<()> {
        let most = self.settings.k * n;
        let is_batch = self.settings.activation == Activation::BatchTopK;
        // Nothing is known at first of where the largest end, so some are taken of each token, and more if that may miss one.
        let few = (4 * self.settings.k).min(state.n_latents());
        let mut limit = (is_batch && state.reached == 0.0).then_some(few);
        loop {
            self.look_through(state, n, limit);
            if !is_batch || select::keep_largest(&mut self.main.entries, most, limit, state) {
                break;
            }
            limit = Some(limit.map_or(few, |limit| (2 * limit).min(state.n_latents())));
        }
        if self.main.entries.idx.len() > u32::MAX as usize {
            return Err(SaeError::Shape("more than 2^32 activations in a batch: lower --batch".into()));
        }
        Ok(())
    }

    fn look_through(&mut self, state: &TrainState, n: usize, limit: Option<usize>) {
        let (d, f) = (state.d, state.n_latents());
        let k_aux = self.settings.resolved_aux_k(d).min(self.dead.len());
        self.main.entries.clear();
        self.aux.entries.clear();
        let rule = self.selector.begin(&self.settings, state, limit);
        let block = BLOCK.min(n);
        if self.pre.len() < block * f {
            self.pre = buffer(block * f);
        }
        for from in (0..n).step_by(block) {
            let rows = block.min(n - from);
            let pre = &mut self.pre[..rows * f];
            pre_activations(
                &self.centred_ND[from * d..(from + rows) * d],
                d,
                &state.w_enc.values,
                &state.b_enc.values,
                pre,
            );
            let both = (&mut self.main.entries, &mut self.aux.entries);
            self.selector.block(rule, (pre, f), (&self.dead, k_aux), both);
        }
    }

    /// The mean penalty of a token, its gradients at the activations, and at the lengths of decoder rows that are free.
    fn penalty(&mut self, state: &TrainState, n: usize, sparsity: f64) -> f64 {
        let (formula, next) = (self.formula(state.step), self.annealed_to(state.step));
        self.annealed = None;
        self.penalty_d.clear();
        self.norm_d_F.clear();
        if formula == Formula::None {
            return 0.0;
        }
        let Term { entries, .. } = &self.main;
        // What a gate lets through is what it costs.
        let is_gated = self.settings.activation == Activation::Gated;
        let values = if is_gated { &entries.pre } else { &entries.values };
        let norm = |latent: &u32| self.norms_F.get(*latent as usize).copied().unwrap_or(1.0);
        let u: Vec<f32> = values.iter().zip(&entries.idx).map(|(v, latent)| v * norm(latent)).collect();
        self.penalty_d.resize(u.len(), 0.0);
        let weight = (sparsity / n as f64) as f32;
        let (mut sum, mut sum_next) = (0.0, 0.0);
        let mut other = Vec::new();
        for range in entries.starts.windows(2).map(|r| r[0]..r[1]) {
            let u = &u[range.clone()];
            sum += formula.row(u, &mut self.penalty_d[range.clone()]);
            if let Some(next) = next {
                other.resize(u.len(), 0.0);
                sum_next += next.row(u, &mut other);
            }
        }
        self.annealed = (sum_next > 0.0).then(|| sum / sum_next);
        self.norm_d_F.resize(self.norms_F.len(), 0.0);
        if !self.norms_F.is_empty() {
            for ((d, latent), value) in self.penalty_d.iter().zip(&entries.idx).zip(values) {
                self.norm_d_F[*latent as usize] += weight * d * value;
            }
        }
        for (d, latent) in self.penalty_d.iter_mut().zip(&entries.idx) {
            *d *= weight * norm(latent);
        }
        sum / n as f64
    }

    /// What a squared error counts for in the loss; `-2` times that is the factor of its gradient at the reconstruction.
    fn error_factor(&self, n: usize, spread: f64) -> f64 {
        match self.settings.reconstruction {
            Reconstruction::Fvu => 1.0 / spread,
            Reconstruction::Mse => 1.0 / n as f64,
        }
    }

    /// The error of all prefixes and its gradients; the FVU of the whole. `left_ND` is then the error of the whole.
    fn error_gradient(&mut self, state: &TrainState, n: usize) -> (f64, f64) {
        let o = state.d_out;
        let n_groups = self.main.ends.len();
        self.left_ND.clear();
        self.left_ND.extend((0..n).flat_map(|_| &state.b_dec.values));
        self.main.grads.resize(n_groups, Vec::new());
        let (mut error, mut fvu) = (0.0, 0.0);
        let mut recon = std::mem::take(&mut self.left_ND);
        for group in 0..n_groups {
            self.main.decode_onto(group, &self.main.entries.values, &state.w_dec.values, o, &mut recon);
            let mut grad = std::mem::take(&mut self.main.grads[group]);
            grad.clear();
            grad.extend(self.ys_ND.iter().zip(&recon).map(|(y, r)| y - r));
            let (square, spread) = squares(&self.ys_ND, &grad, o);
            let factor = self.error_factor(n, spread) / n_groups as f64;
            error += factor * square;
            fvu = square / spread;
            if group + 1 == n_groups {
                self.left_ND = std::mem::take(&mut recon);
                self.left_ND.copy_from_slice(&grad);
            }
            grad.iter_mut().for_each(|g| *g *= (-2.0 * factor) as f32);
            self.main.grads[group] = grad;
        }
        // What a group's latents add to is in every prefix from theirs on.
        for group in (0..n_groups - 1).rev() {
            let (before, after) = self.main.grads.split_at_mut(group + 1);
            before[group].iter_mut().zip(&after[0]).for_each(|(g, next)| *g += next);
        }
        self.main.gather(None, &state.w_dec.values, o);
        (error, fvu)
    }

    /// The error of what a gate alone reconstructs, by a decoder that is held fixed (Rajamanoharan et al. 2024, equation 8).
    fn gate_gradient(&mut self, state: &TrainState, n: usize) -> f64 {
        let o = state.d_out;
        let mut left: Vec<f32> = (0..n).flat_map(|_| &state.b_dec.values).copied().collect();
        for group in 0..self.main.ends.len() {
            self.main.decode_onto(group, &self.main.entries.pre, &state.w_dec.values, o, &mut left);
        }
        left.iter_mut().zip(&self.ys_ND).for_each(|(l, y)| *l = y - *l);
        let (square, spread) = squares(&self.ys_ND, &left, o);
        let factor = self.error_factor(n, spread);
        left.iter_mut().for_each(|l| *l *= (-2.0 * factor) as f32);
        let through_magnitudes = std::mem::take(&mut self.main.d);
        self.main.gather(Some(&left), &state.w_dec.values, o);
        // The penalty is one of the gate, and has its gradient here.
        let all = through_magnitudes.iter().zip(&self.penalty_d);
        self.main.d.iter_mut().zip(all).for_each(|(d, (m, penalty))| *d += m + penalty);
        factor * square
    }

    /// The auxiliary loss on the error left by the main one.
    fn aux_gradient(&mut self, state: &TrainState) -> f64 {
        let o = state.d_out;
        let mut left = vec![0f32; self.left_ND.len()];
        self.aux.decode_onto(0, &self.aux.entries.values, &state.w_dec.values, o, &mut left);
        left.iter_mut().zip(&self.left_ND).for_each(|(l, e)| *l = e - *l);
        let (square, spread) = squares(&self.left_ND, &left, o);
        // An error that is the same for all tokens is none that latents could explain.
        let over = if spread > 0.0 { 1.0 / spread } else { 0.0 };
        let factor = (-2.0 * self.settings.aux_weight * over) as f32;
        left.iter_mut().for_each(|l| *l *= factor);
        self.aux.grads = vec![left];
        self.aux.gather(None, &state.w_dec.values, o);
        self.aux.entries.mask(&mut self.aux.d);
        self.aux.group_by_latent(state.n_latents());
        square * over
    }
}
