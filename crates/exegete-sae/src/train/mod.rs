//! One training step of a dictionary, sparse where the codes are sparse, Adam fused in.
//!
//! Inside, everything is in scaled units `x_s = scale * x`, `y_s = scale_out * y`. The loss is
//! `error + sparsity * penalty + aux_weight * aux`, where the error is `|y_s - y'|^2` over `|y_s - mean|^2` or summed over
//! the width, `aux = |e - e'|^2 / |e - mean e|^2` with `e = y_s - y'` held fixed and `e'` its reconstruction from the
//! k_aux dead latents that fire most (AuxK, Gao et al. 2024, appendix A.2; its gradient reaches the encoder too), and the
//! penalty a formula of each token's activations; a loss that raises dead latents may be added, see `pre_act_gradient`. Nested dictionaries (Matryoshka, Bussmann et al. 2025, arXiv 2503.17547)
//! take the mean of the errors of all prefixes. No weight gradient is ever stored: each latent's rows are summed from its
//! own tokens and handed to Adam at once, by one task, in the order of the tokens; only while codes are not sparse yet
//! (module `dense`) are there arrays of gradients.
//!
//! A step may be taken in two halves, [`Trainer::forward`] and [`Trainer::backward`], so that the error and its gradient
//! come from elsewhere: from a model that runs on with the reconstruction, or from an error that several trainers share.

mod apply;
mod block;
mod checkpoint;
mod cross_layer;
mod dense;
mod encode;
mod error;
mod penalty;
mod pursuit;
mod resample;
mod rules;
mod screened;
mod select;
mod sparsity;
mod state;
mod term;

use exegete_base::settings::{Activation, DecoderRows, TrainSettings};
use exegete_tensor::cpu::simd::dot;
use rayon::prelude::*;

pub use self::cross_layer::CrossLayerTrainer;
use self::dense::{Dense, Sums};
use self::encode::BLOCK;
pub use self::penalty::Formula;
use self::pursuit::Pursuit;
use self::select::Selector;
pub use self::state::{Side, TrainState};
use self::term::Term;
use crate::screening::{self, Screening};
use crate::{Result, SaeError};

/// How much the last step counts in the running mean of active latents.
const L0_DECAY: f64 = 0.05;
/// How much the logarithm of the penalty's weight moves in a step, for that of the running L0 over its target.
const STEERING: f64 = 0.03;
/// How much more that is with each step in which L0 stays on the same side of its target, and not far above it, for weights of
/// some penalties have to grow or fall tenfold before L0 follows. Where L0 meets its target, it is halved.
const IMPATIENCE: f64 = 1.007;
/// The most that it becomes so.
const MOST_STEERING: f64 = 0.3;
/// How far a weight falls below the largest that it was: a smaller one does nothing, and takes long to come back from.
const LEAST_WEIGHT: f64 = 1e-2;
/// The logarithm of L0 over its target from which on it is far above: there the weight moves at the first rate.
const ABOVE: f64 = 0.2;
/// The logarithm of L0 over its target beyond which the weight moves no faster: latents that are silenced quicker than the
/// others learn to do without them leave a worse dictionary.
const FAR: f64 = 0.5;
/// How much the logarithm of the weight moves for the step that the logarithm of L0 itself made. Where L0 falls towards its
/// target at the rate of STEERING over DAMPING of what is left, the weight stays as it is. Without this part, a weight that
/// rises while thousands of latents of a young dictionary are active is a thousand times too strong when they have gone.
const DAMPING: f64 = 2.0;

/// What a step measured, before it moved the parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStats {
    /// Whole loss.
    pub loss: f64,
    /// FVU about the batch mean.
    pub fvu: f64,
    /// Auxiliary part, before its weight; 0 where no latent is dead.
    pub aux: f64,
    /// The loss that raises dead latents to their thresholds, before its weight, mean over tokens.
    pub pre_act: f64,
    /// The penalty, before its weight, mean over tokens.
    pub penalty: f64,
    /// The penalty's weight.
    pub sparsity: f64,
    /// Mean number of active latents.
    pub l0: f64,
    /// Latents that counted as dead.
    pub n_dead: usize,
}

/// An error of the reconstruction that is not the trainer's own, for [`Trainer::backward`].
#[derive(Debug, Clone, Copy)]
pub struct Given<'a> {
    /// The error, in the units of the loss.
    pub loss: f64,
    /// Its FVU, or what the caller has in its place; it goes to the statistics and no further.
    pub fvu: f64,
    /// The error's gradient at the reconstruction that [`Trainer::forward`] gave, in scaled units, `[N, D_out]`. It is that of the
    /// whole batch: a mean over tokens has its `1 / N` in it.
    pub grad_ND: &'a [f32],
    /// What is left of the target, `y_s - y'` in scaled units, `[N, D_out]`: what dead latents (AuxK, resampling) are to explain, and,
    /// with the reconstruction added, what a gate alone is to reconstruct. Where several trainers share an error, it is the
    /// shared one. An autoencoder that is given none takes its input less its reconstruction.
    pub left_ND: Option<&'a [f32]>,
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
    recon_ND: Vec<f32>,
    left_ND: Vec<f32>,
    main: Term,
    aux: Term,
    /// Dead latents below their thresholds, for the pre-activation loss.
    low: Term,
    dense: Dense,
    pursuit: Pursuit,
    screening: Screening,
    /// Encoder rows of dead latents.
    w_dead: Vec<f32>,
    dead: Vec<u32>,
    penalty_d: Vec<f32>,
    /// Thresholds; empty where there are none.
    theta_F: Vec<f32>,
    /// Lengths of decoder rows; empty where these are held.
    norms_F: Vec<f32>,
    /// Gradients of the penalty at the lengths of decoder rows; empty where these are held.
    norm_d_F: Vec<f32>,
    /// The penalty over what it would be under the next step's formula, where that is another.
    annealed: Option<f64>,
    /// Gradients of the latents' extras.
    extra_d: Vec<Vec<f32>>,
    /// The step whose forward half is done.
    forwarded: Option<u64>,
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
            recon_ND: Vec::new(),
            left_ND: Vec::new(),
            main,
            aux,
            low: Term::default(),
            dense: Dense::default(),
            pursuit: Pursuit::default(),
            screening: Screening::default(),
            w_dead: Vec::new(),
            dead: Vec::new(),
            penalty_d: Vec::new(),
            theta_F: Vec::new(),
            norms_F: Vec::new(),
            norm_d_F: Vec::new(),
            annealed: None,
            extra_d: Vec::new(),
            forwarded: None,
        })
    }

    /// Bytes that a training takes, about: the state, and the scratch of a step.
    pub fn bytes(settings: &TrainSettings, d: usize, d_out: usize) -> usize {
        let (f, both) = (settings.latents, settings.latents.saturating_mul(d + d_out));
        let (arrays, blocks, more) = match settings.activation {
            Activation::Relu | Activation::JumpRelu => (16, 3, 0),
            Activation::Gated => (16, 5, 0),
            Activation::MatchingPursuit => (14, 1, pursuit::bytes(settings, d)),
            _ => (12, 1, 0),
        };
        let rows = settings.batch.saturating_mul(4 * (3 * d + 4 * d_out));
        let rest = f.saturating_mul(60 + 4 * BLOCK * blocks).saturating_add(rows).saturating_add(more);
        // The rounded encoder, and the rows of dead latents, which are at most half of it.
        let rest = rest.saturating_add(screening::bytes(f, d).saturating_mul(2));
        let skip = if settings.skip { d.saturating_mul(16 * d_out) } else { 0 };
        both.saturating_mul(arrays).saturating_add(rest).saturating_add(skip)
    }

    /// One step on a batch of activations, in the input's units; a transcoder's targets besides, in the output's.
    ///
    /// # Shapes
    /// `x_ND [N, D]`, `y_ND [N, D_out]`
    ///
    /// # Errors
    /// A batch of another width, or one that is not finite; targets for an autoencoder, or none for a transcoder.
    pub fn step(&mut self, state: &mut TrainState, x_ND: &[f32], y_ND: Option<&[f32]>) -> Result<StepStats> {
        let n = self.begin(state, x_ND)?;
        if y_ND.is_some() != state.transcodes {
            let detail = match state.transcodes {
                true => "a transcoder is trained on targets: give the outputs beside the inputs",
                false => "an autoencoder's target is its input: start a transcoder to train on others",
            };
            return Err(SaeError::Shape(detail.into()));
        }
        let y_ND = y_ND.unwrap_or(x_ND);
        if y_ND.len() != n * state.d_out {
            let widths = format!("widths of {} and {}", state.d, state.d_out);
            let detail = format!("a batch of {} values and {} targets for {widths}", x_ND.len(), y_ND.len());
            return Err(SaeError::Shape(detail));
        }
        self.ys_ND.clear();
        self.ys_ND.extend(y_ND.iter().map(|y| y * state.scale_out));
        let sums = match dense::is_dense(&self.settings, state) {
            true => self.dense_gradients(state, None),
            false => {
                self.encode(state, n)?;
                self.sparse_gradients(state, None)
            }
        };
        self.end(state, sums)
    }

    /// The first half of a step: what the dictionary makes of a batch of inputs, which are in the input's units. The
    /// reconstruction is that of all latents, in scaled units (`scale_out` times the output's).
    ///
    /// # Shapes
    /// `x_ND [N, D]`; returns `[N, D_out]`
    ///
    /// # Errors
    /// A batch of another width; nested dictionaries, whose prefixes have errors of their own.
    pub fn forward(&mut self, state: &mut TrainState, x_ND: &[f32]) -> Result<&[f32]> {
        if !self.settings.prefixes.is_empty() {
            let detail = "an error from elsewhere is one of the whole reconstruction, and the prefixes of a nested \
                          dictionary have their own: leave --prefixes away";
            return Err(SaeError::Shape(detail.into()));
        }
        let n = self.begin(state, x_ND)?;
        match dense::is_dense(&self.settings, state) {
            true => self.dense_forward(state),
            false => {
                self.encode(state, n)?;
                self.reconstruct(state);
            }
        }
        self.forwarded = Some(state.step);
        Ok(&self.recon_ND)
    }

    /// The second half of a step, by an error of the reconstruction that [`Self::forward`] gave: penalty and AuxK are
    /// added to it, and the parameters moved. The state must be the one that went forward, unchanged.
    ///
    /// # Errors
    /// No forward half; a gradient of another size; no `left_ND` for a transcoder that needs one; a loss that is not finite.
    pub fn backward(&mut self, state: &mut TrainState, error: Given) -> Result<StepStats> {
        if self.forwarded.take() != Some(state.step) {
            return Err(SaeError::Shape("a backward half without its forward half".into()));
        }
        self.take_given(state, &error)?;
        let sums = match dense::is_dense(&self.settings, state) {
            true => self.dense_gradients(state, Some(&error)),
            false => self.sparse_gradients(state, Some(&error)),
        };
        self.end(state, sums)
    }

    /// Takes in a batch: scales it, finds what is dead and how long decoder rows are. Returns its number of tokens.
    fn begin(&mut self, state: &TrainState, x_ND: &[f32]) -> Result<usize> {
        self.forwarded = None;
        let (d, o) = (state.d, state.d_out);
        let n = x_ND.len() / d;
        if n == 0 || x_ND.len() != n * d {
            return Err(SaeError::Shape(format!("a batch of {} values for a width of {d}", x_ND.len())));
        }
        if state.w_skip.is_some() != self.settings.skip {
            let detail = "--skip is a path beside a transcoder's latents, from its start on";
            return Err(SaeError::Shape(detail.into()));
        }
        if self.settings.activation == Activation::MatchingPursuit && (state.transcodes || !state.centres) {
            let detail = "matching pursuit reads with its decoder, so what it reads is what it writes, less the bias: take \
                          another --activation for a transcoder";
            return Err(SaeError::Shape(detail.into()));
        }
        self.take_in(state, x_ND);
        self.find_dead(state);
        rules::thresholds(&self.settings, state, &mut self.theta_F);
        self.norms_F.clear();
        if self.settings.decoder_rows == DecoderRows::Free {
            let block = o / state.blocks;
            let length = |row: &[f32]| row.chunks_exact(block).map(|b| dot(b, b).sqrt()).sum::<f32>();
            self.norms_F.par_extend(state.w_dec.values.par_chunks_exact(o).map(length));
        }
        Ok(n)
    }

    /// Whether dead latents are to explain what is left.
    fn has_aux(&self) -> bool {
        self.settings.uses_aux() && !self.dead.is_empty()
    }

    /// Whether dead latents are to be raised to their thresholds.
    fn has_low(&self) -> bool {
        self.settings.pre_act_weight > 0.0 && !self.dead.is_empty()
    }

    /// AuxK, the optimiser and what is counted.
    fn end(&mut self, state: &mut TrainState, sums: Sums) -> Result<StepStats> {
        let Sums { error, fvu, penalty, l0 } = sums;
        let (n, sparsity) = (self.xs_ND.len() / state.d, self.sparsity(state));
        let aux = if self.has_aux() { self.aux_gradient(state) } else { 0.0 };
        let pre_act = if self.has_low() { self.pre_act_gradient(n) } else { 0.0 };
        let weighed = self.settings.aux_weight * aux + self.settings.pre_act_weight * pre_act;
        let loss = error + sparsity * penalty + weighed;
        if !loss.is_finite() {
            let (d, xs) = (state.d, &self.xs_ND);
            let all_alike = xs.chunks_exact(d).all(|row| row == &xs[..d]) && xs.iter().all(|x| x.is_finite());
            let detail = match all_alike {
                true => {
                    "all activations of the batch are the same, which leaves no variance to explain: look at the text"
                }
                false => "the loss is not finite: look for NaN or infinity in the activations, or lower --lr",
            };
            return Err(SaeError::Shape(format!("step {}: {detail}", state.step)));
        }
        let stats = StepStats { loss, fvu, aux, pre_act, penalty, sparsity, l0, n_dead: self.dead.len() };
        let lr = self.settings.peak_lr() * self.settings.lr_factor(state.step, self.n_steps);
        self.apply(state, lr);
        state.since_fired_F.iter_mut().for_each(|since| *since += n as u64);
        let entries = &self.main.entries;
        for (latent, _) in entries.idx.iter().zip(&entries.values).filter(|(_, value)| **value > 0.0) {
            state.since_fired_F[*latent as usize] = 0;
            state.fired_F[*latent as usize] += 1;
        }
        for (latent, fired) in self.dense.fired.iter().enumerate().filter(|(_, fired)| **fired > 0) {
            state.since_fired_F[latent] = 0;
            state.fired_F[latent] += fired;
        }
        state.counted += n as u64;
        let l0_before = if state.step == 0 { stats.l0 } else { state.l0 };
        state.l0 = l0_before + L0_DECAY * (stats.l0 - l0_before);
        // Where a penalty becomes another, both are weights of that.
        let annealed = self.annealed.take().unwrap_or(1.0);
        state.steering *= annealed;
        state.most_steering *= annealed;
        if self.settings.steers() {
            let (moved, rate) = steered((state.l0, l0_before), self.settings.target_l0, state.steering_rate);
            let least = (LEAST_WEIGHT * state.most_steering).clamp(1e-6, 1e6);
            state.steering = (state.steering * moved.exp()).clamp(least, 1e6);
            state.most_steering = state.most_steering.max(state.steering);
            state.steering_rate = rate;
        }
        if resample::is_due(&self.settings, state.step) {
            self.resample(state);
        }
        state.step += 1;
        Ok(stats)
    }

    /// Everything of a sparse step between the codes and what is summed by latent.
    fn sparse_gradients(&mut self, state: &TrainState, given: Option<&Given>) -> Sums {
        let n = self.xs_ND.len() / state.d;
        let sparsity = self.sparsity(state);
        let penalty = self.penalty(state, n, sparsity);
        let (error, fvu) = match given {
            None => self.error_gradient(state, n),
            Some(given) => self.given_gradient(state, given),
        };
        if self.settings.activation == Activation::MatchingPursuit {
            return Sums { error, fvu, penalty, l0: self.pursuit_gradient(state) };
        }
        let is_gated = self.settings.activation == Activation::Gated;
        if !is_gated {
            self.main.d.iter_mut().zip(&self.penalty_d).for_each(|(d, penalty)| *d += penalty);
        }
        let per_active_N = self.per_active(state, n, sparsity);
        let main = &mut self.main;
        let latents = (state, &self.theta_F[..]);
        self.extra_d = rules::backward(&self.settings, latents, &main.entries, &per_active_N, &mut main.d);
        let gate = if is_gated { self.gate_gradient(state, n) } else { 0.0 };
        self.main.group_by_latent(state.n_latents());
        let l0 = self.main.entries.values.iter().filter(|v| **v > 0.0).count() as f64 / n as f64;
        Sums { error: error + gate, fvu, penalty, l0 }
    }
}

/// How much the logarithm of the penalty's weight moves, and its rate: how much for the logarithm of L0 over its target. Given
/// are the running L0 and what it was a step before, the target, and the rate of the step before.
fn steered((l0, before): (f64, f64), target: f64, rate: f64) -> (f64, f64) {
    let log = |to: f64, l0: f64| (l0.max(1e-3) / to.max(1e-3)).ln();
    let (off, was) = (log(target, l0), log(target, before));
    let is_met = (off > 0.0) != (was > 0.0);
    let rate = if off > ABOVE {
        STEERING
    } else if is_met {
        (rate / 2.0).max(STEERING)
    } else {
        (rate * IMPATIENCE).clamp(STEERING, MOST_STEERING)
    };
    (rate * off.clamp(-FAR, FAR) + DAMPING * log(before, l0), rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_weight_follows_where_active_latents_are_and_go() {
        let near = |a: (f64, f64), b: (f64, f64)| {
            assert!((a.0 - b.0).abs() < 1e-12 && (a.1 - b.1).abs() < 1e-12, "{a:?} and {b:?}");
        };
        let rate = 0.03 * IMPATIENCE;
        near(steered((35.2, 35.2), 32.0, 0.03), (rate * 1.1f64.ln(), rate));
        near(steered((28.8, 28.8), 32.0, 0.03), (rate * 0.9f64.ln(), rate));
        near(steered((28.8, 28.8), 32.0, 0.3), (0.3 * 0.9f64.ln(), 0.3));
        // Far above it moves no faster, however long; a fifth above it is not far.
        near(steered((38.0, 38.0), 32.0, 0.03), (rate * (38.0f64 / 32.0).ln(), rate));
        near(steered((40.0, 40.0), 32.0, 0.3), (0.03 * (40.0f64 / 32.0).ln(), 0.03));
        near(steered((3200.0, 3200.0), 32.0, 0.3), (0.03 * 0.5, 0.03));
        near(steered((0.0, 0.0), 32.0, 0.3), (0.3 * -0.5, 0.3));
        // Where the target is met it is patient again; where L0 falls by three quarters of a percent a step, the weight stays.
        near(steered((31.0, 33.0), 32.0, 0.2), (0.1 * (31.0f64 / 32.0).ln() + 2.0 * (31.0f64 / 33.0).ln(), 0.1));
        near(steered((3200.0 * (-0.0075f64).exp(), 3200.0), 32.0, 0.03), (0.0, 0.03));
    }
}
