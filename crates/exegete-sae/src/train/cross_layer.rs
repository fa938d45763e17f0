//! Training a cross-layer transcoder: a transcoder for each layer that is read, all with one error.
//!
//! The error of an output is that of the sum of what all layers before it, and its own, give it; the loss is the mean of the
//! outputs' FVUs, or the sum of their squared errors, and each layer adds its own penalty and AuxK (Ameisen et al. 2025,
//! "Circuit Tracing", Transformer Circuits Thread).

use exegete_base::settings::{Reconstruction, TrainSettings};

use super::state::normalise;
use super::term::squares;
use super::{Given, Side, StepStats, TrainState, Trainer};
use crate::{CrossLayer, Dictionary, Result, SaeError};

/// Steps the layers of a cross-layer transcoder together.
pub struct CrossLayerTrainer {
    reconstruction: Reconstruction,
    layers: Vec<Trainer>,
    x: Vec<f32>,
    left: Vec<f32>,
    grad: Vec<f32>,
}

impl CrossLayerTrainer {
    /// A trainer of `n` layers for a run of `n_steps`.
    ///
    /// # Errors
    /// Settings out of range, and those that have no meaning for several layers.
    pub fn new(settings: &TrainSettings, n: usize, n_steps: u64) -> Result<Self> {
        if settings.skip || !settings.prefixes.is_empty() {
            return Err(SaeError::Shape("a cross-layer transcoder is trained without --skip and --prefixes".into()));
        }
        let layers = (0..n).map(|_| Trainer::new(settings.clone(), n_steps)).collect::<Result<_>>()?;
        let reconstruction = settings.reconstruction;
        Ok(Self { reconstruction, layers, x: Vec::new(), left: Vec::new(), grad: Vec::new() })
    }

    /// The start of training: of each layer random unit decoder rows, an encoder that is the direction in which they write
    /// their own layer, biases that take the mean of the inputs off and give that of the outputs. `reads` has each layer's
    /// input, `writes` all outputs behind each other.
    pub fn init(settings: &TrainSettings, reads: &[Side], writes: Side, seed: u64) -> Vec<TrainState> {
        let o = writes.mean_D.len() / reads.len().max(1);
        let layer = |(i, input): (usize, &Side)| {
            let mut mean_D = writes.mean_D[i * o..].to_vec();
            // Each output's mean is given by its own layer alone.
            mean_D[o..].fill(0.0);
            let output = Side { scale: writes.scale, mean_D: &mean_D };
            let (d, seed) = (input.mean_D.len(), exegete_base::sampling::pair_hash(seed, i as u64, 0));
            let mut state = TrainState::init_transcoder(settings, *input, output, seed);
            if d == o {
                let rows = state.w_enc.values.chunks_exact_mut(d).zip(state.w_dec.values.chunks_exact(mean_D.len()));
                for ((row, written), b) in rows.zip(&mut state.b_enc.values) {
                    row.copy_from_slice(&written[..o]);
                    normalise(row);
                    *b = -row.iter().zip(input.mean_D).map(|(w, m)| w * m * input.scale).sum::<f32>();
                }
            }
            state
        };
        reads.iter().enumerate().map(layer).collect()
    }

    /// One step on inputs and outputs of all layers, behind each other, in their own units.
    ///
    /// # Shapes
    /// `x_ND [N, L D]`, `y_ND [N, L D_out]`
    ///
    /// # Errors
    /// Those of [`Trainer::forward`] and [`Trainer::backward`].
    pub fn step(&mut self, states: &mut [TrainState], x_ND: &[f32], y_ND: &[f32]) -> Result<StepStats> {
        let n_layers = states.len();
        let (d, all) = (states[0].d, states[0].d_out);
        let (o, n) = (all / n_layers, x_ND.len() / (d * n_layers));
        if n == 0 || x_ND.len() != n * d * n_layers || y_ND.len() != n * all {
            let detail = format!("a batch of {} values and {} targets for {n_layers} layers", x_ND.len(), y_ND.len());
            return Err(SaeError::Shape(detail));
        }
        let scale_out = states[0].scale_out;
        self.left.clear();
        self.left.extend(y_ND.iter().map(|y| y * scale_out));
        for (i, (layer, state)) in self.layers.iter_mut().zip(states.iter_mut()).enumerate() {
            columns(x_ND, d * n_layers, i * d..(i + 1) * d, &mut self.x);
            let recon = layer.forward(state, &self.x)?;
            for (left, recon) in self.left.chunks_exact_mut(all).zip(recon.chunks_exact(state.d_out)) {
                left[i * o..].iter_mut().zip(recon).for_each(|(l, r)| *l -= r);
            }
        }
        let (mut loss, mut fvu) = (0.0, 0.0);
        self.grad.clone_from(&self.left);
        let (mut target, mut left) = (Vec::new(), Vec::new());
        for i in 0..n_layers {
            columns(y_ND, all, i * o..(i + 1) * o, &mut target);
            target.iter_mut().for_each(|y| *y *= scale_out);
            columns(&self.left, all, i * o..(i + 1) * o, &mut left);
            let (square, spread) = squares(&target, &left, o);
            let factor = match self.reconstruction {
                Reconstruction::Mse => 1.0 / n as f64,
                _ => 1.0 / (spread * n_layers as f64),
            };
            loss += factor * square;
            fvu += square / spread / n_layers as f64;
            for row in self.grad.chunks_exact_mut(all) {
                row[i * o..(i + 1) * o].iter_mut().for_each(|g| *g *= (-2.0 * factor) as f32);
            }
        }
        if !loss.is_finite() {
            let detail = "look for NaN or infinity in the activations, and for an output that is the same everywhere";
            return Err(SaeError::Shape(format!(
                "step {}: the loss is not finite: {detail}, or lower --lr",
                states[0].step
            )));
        }
        let mut sum = StepStats { loss, fvu, aux: 0.0, pre_act: 0.0, penalty: 0.0, sparsity: 0.0, l0: 0.0, n_dead: 0 };
        let (mut grad, mut left) = (Vec::new(), Vec::new());
        for (i, (layer, state)) in self.layers.iter_mut().zip(states).enumerate() {
            columns(&self.grad, all, i * o..all, &mut grad);
            columns(&self.left, all, i * o..all, &mut left);
            let given = Given { loss: 0.0, fvu, grad_ND: &grad, left_ND: Some(&left) };
            let own = layer.backward(state, given)?;
            sum.loss += own.loss;
            sum.aux += own.aux;
            sum.pre_act += own.pre_act;
            sum.penalty += own.penalty;
            sum.sparsity += own.sparsity / n_layers as f64;
            sum.l0 += own.l0;
            sum.n_dead += own.n_dead;
        }
        Ok(sum)
    }

    /// The dictionary as it stands, in the units of its inputs and outputs.
    pub fn dictionary(states: &[TrainState], settings: &TrainSettings) -> CrossLayer {
        let mut layers: Vec<_> = states.iter().map(|state| state.dictionary(settings)).collect();
        let all = layers.first().map_or(0, Dictionary::d_out);
        let mut b_dec_LD = vec![0f32; all];
        for layer in &mut layers {
            let from = all - layer.d_out;
            b_dec_LD[from..].iter_mut().zip(&layer.b_dec_D).for_each(|(sum, b)| *sum += b);
            layer.b_dec_D.fill(0.0);
        }
        CrossLayer { layers, b_dec_LD, w_skip_LDD: None }
    }
}

/// Some columns of all rows.
fn columns(x_ND: &[f32], width: usize, of: std::ops::Range<usize>, out: &mut Vec<f32>) {
    out.clear();
    x_ND.chunks_exact(width).for_each(|row| out.extend_from_slice(&row[of.clone()]));
}
