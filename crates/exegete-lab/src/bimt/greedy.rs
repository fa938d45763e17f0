//! Greedy layer-wise acceptance: a network built up unit by unit, each frozen, each kept only if the validation error
//! falls.
//!
//! A unit of layer `l` computes `SiLU(w . features + b)` of the inputs and of all units of the layers below. Outputs read
//! all units linearly. Eight candidates are trained by gradient descent on what the network so far leaves unexplained; with
//! the best of them the readout is refitted (ridge), and it stays if the validation error falls by [`LEAST_FALL`] of itself.
//! After [`PATIENCE`] refusals in a row the layer is closed and the next begins. The control draws the weights of
//! candidates at random and leaves them so.

use exegete_tensor::cpu::activation::{Act, activate, activate_back};
use exegete_tensor::cpu::adam::{AdamStep, update};
use exegete_tensor::optim::AdamW;
use serde::Serialize;

use super::ensemble::Additivity;
use super::formula::{Data, Samples};
use super::graph::Graph;
use super::net::mse;
use super::ridge;
use super::twister::Twister;

/// A unit is accepted if it takes this share off the validation error.
pub const LEAST_FALL: f64 = 0.01;
/// Refusals in a row that close a layer.
pub const PATIENCE: usize = 5;
/// Steps of a candidate's training.
const STEPS: u64 = 500;
/// Candidates that are trained for each trial; the one that explains most is tried.
const POOL: usize = 8;
const LR: f64 = 1e-2;

/// A network that was built up greedily.
#[derive(Debug, Clone, PartialEq)]
pub struct Built {
    n_inputs: usize,
    n_outputs: usize,
    layers: Vec<Vec<Unit>>,
    /// Readout [outputs, units + 1], the constant last.
    readout: Vec<f64>,
    /// What happened to each candidate.
    pub trials: Vec<Trial>,
}

/// A candidate and its fate.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Trial {
    /// Hidden layer, from 0.
    pub layer: usize,
    /// Whether it was kept.
    pub accepted: bool,
    /// Validation error of the network after the decision.
    pub valid_mse: f64,
}

#[derive(Debug, Clone, PartialEq)]
struct Unit {
    weights: Vec<f32>,
    bias: f32,
}

impl Unit {
    fn sums(&self, features: &[Vec<f32>], n: usize) -> Vec<f32> {
        let mut sums = vec![self.bias; n];
        for (weight, row) in self.weights.iter().zip(features) {
            sums.iter_mut().zip(row).for_each(|(s, x)| *s += weight * x);
        }
        sums
    }

    fn values(&self, features: &[Vec<f32>], n: usize) -> Vec<f32> {
        let mut values = vec![0f32; n];
        activate(Act::Silu, &self.sums(features, n), &mut values);
        values
    }

    /// Fits the unit, with a readout `out` of its own, to `left` [outputs, n]; gives the squared error.
    fn train(&mut self, features: &[Vec<f32>], left: &[f32], n: usize, out: Vec<f32>) -> f64 {
        // In-weights, bias, then out-weights and constants: one list for the optimiser.
        let (f, n_outputs) = (features.len(), out.len());
        let mut params = self.weights.clone();
        params.push(self.bias);
        params.extend(out);
        params.resize(f + 1 + 2 * n_outputs, 0.0);
        let (mut m, mut v, mut grad) = (vec![0f32; params.len()], vec![0f32; params.len()], vec![0f32; params.len()]);
        let (mut values, mut back, mut slope) = (vec![0f32; n], vec![0f32; n], vec![0f32; n]);
        let (adam, mut error) = (AdamW::default(), 0.0);
        for t in 1..=STEPS {
            let sums = self.sums(features, n);
            activate(Act::Silu, &sums, &mut values);
            back.fill(0.0);
            error = 0.0;
            for o in 0..n_outputs {
                let (out, constant) = (params[f + 1 + o], params[f + 1 + n_outputs + o]);
                let (mut by_out, mut by_constant, mut squares) = (0.0, 0.0, 0.0);
                for s in 0..n {
                    let off = out * values[s] + constant - left[o * n + s];
                    squares += off * off;
                    let slope = 2.0 / left.len() as f32 * off;
                    by_out += slope * values[s];
                    by_constant += slope;
                    back[s] += slope * out;
                }
                grad[f + 1 + o] = by_out;
                grad[f + 1 + n_outputs + o] = by_constant;
                error += f64::from(squares);
            }
            activate_back(Act::Silu, &sums, &back, &mut slope);
            for (slot, row) in grad.iter_mut().zip(features) {
                *slot = row.iter().zip(&slope).map(|(x, d)| x * d).sum();
            }
            grad[f] = slope.iter().sum();
            update(AdamStep::new(LR, adam.betas, adam.eps, t), &mut params, &mut m, &mut v, &grad);
            self.weights.copy_from_slice(&params[..f]);
            self.bias = params[f];
        }
        error
    }
}

/// Builds a network of at most `max_layers` hidden layers of at most `width` units; `None` if cancelled.
pub fn build(
    data: &Data,
    (n_inputs, n_outputs): (usize, usize),
    (width, max_layers): (usize, usize),
    seed: u32,
    trains: bool,
    is_cancelled: &(dyn Fn() -> bool + Sync),
) -> Option<Built> {
    let mut twister = Twister::new(seed);
    let mut net = Built { n_inputs, n_outputs, layers: Vec::new(), readout: vec![0.0; n_outputs], trials: Vec::new() };
    net.readout = net.refit(data);
    let mut valid = net.mse(&data.valid);
    for layer in 0..max_layers {
        net.layers.push(Vec::new());
        let mut refusals = 0;
        while refusals < PATIENCE && net.layers[layer].len() < width {
            if is_cancelled() {
                return None;
            }
            let unit = net.candidate(data, layer, &mut twister, trains);
            let mut grown = net.clone();
            grown.layers[layer].push(unit);
            grown.readout = grown.refit(data);
            let error = grown.mse(&data.valid);
            let accepted = error < (1.0 - LEAST_FALL) * valid;
            if accepted {
                (valid, net, refusals) = (error, grown, 0);
            } else {
                refusals += 1;
            }
            net.trials.push(Trial { layer, accepted, valid_mse: valid });
        }
        if net.layers[layer].is_empty() {
            net.layers.pop();
            break;
        }
    }
    Some(net)
}

impl Built {
    /// Units of each layer.
    pub fn widths(&self) -> Vec<usize> {
        self.layers.iter().map(Vec::len).collect()
    }

    /// Mean squared error.
    pub fn mse(&self, samples: &Samples) -> f64 {
        mse(&self.outputs(samples, None), &samples.y)
    }

    /// Its graph: inputs, units, outputs; weights between them by magnitude.
    pub fn graph(&self) -> Graph {
        let (mut edges, mut node) = (Vec::new(), self.n_inputs);
        for unit in self.layers.iter().flatten() {
            edges.extend(unit.weights.iter().enumerate().map(|(i, w)| (i, node, f64::from(*w))));
            node += 1;
        }
        let n_units = node - self.n_inputs;
        for (o, row) in self.readout.chunks_exact(n_units + 1).enumerate() {
            edges.extend(row[..n_units].iter().enumerate().map(|(u, w)| (self.n_inputs + u, node + o, *w)));
        }
        Graph::new(node + self.n_outputs, edges)
    }

    /// The ensemble index over its layers but the last.
    pub fn ensemble_index(&self, samples: &Samples) -> Option<f64> {
        let mut sums = Additivity::default();
        for layer in 0..self.layers.len().saturating_sub(1) {
            sums.add_layer(self.layers[layer].len(), |held| self.outputs(samples, Some((layer, held))));
        }
        sums.index()
    }

    /// Inputs and the units of the layers below `layer`; units of `held.0` in `held.1` are at their means.
    fn features(&self, samples: &Samples, layer: usize, held: Option<(usize, &[usize])>) -> Vec<Vec<f32>> {
        let mut features: Vec<Vec<f32>> = samples.x.chunks_exact(samples.n).map(<[f32]>::to_vec).collect();
        for (idx, units) in self.layers.iter().take(layer).enumerate() {
            let below = features.len();
            for (u, unit) in units.iter().enumerate() {
                let mut values = unit.values(&features[..below], samples.n);
                if held.is_some_and(|(at, held)| at == idx && held.contains(&u)) {
                    let mean = values.iter().sum::<f32>() / samples.n as f32;
                    values.fill(mean);
                }
                features.push(values);
            }
        }
        features
    }

    fn outputs(&self, samples: &Samples, held: Option<(usize, &[usize])>) -> Vec<f32> {
        let units = &self.features(samples, self.layers.len(), held)[self.n_inputs..];
        let mut out = Vec::with_capacity(self.n_outputs * samples.n);
        for row in self.readout.chunks_exact(units.len() + 1) {
            let at = |s: usize| units.iter().zip(row).map(|(u, w)| f64::from(u[s]) * w).sum::<f64>();
            out.extend((0..samples.n).map(|s| (at(s) + row[units.len()]) as f32));
        }
        out
    }

    fn refit(&self, data: &Data) -> Vec<f64> {
        let features = self.features(&data.train, self.layers.len(), None);
        ridge::fit(&features[self.n_inputs..], &data.train)
    }

    /// The best of [`POOL`] candidates that were trained on what is left to explain, or one random unit.
    fn candidate(&self, data: &Data, layer: usize, twister: &mut Twister, trains: bool) -> Unit {
        let features = self.features(&data.train, layer, None);
        let left: Vec<f32> = data.train.y.iter().zip(self.outputs(&data.train, None)).map(|(y, p)| y - p).collect();
        let mut best: Option<(f64, Unit)> = None;
        for _ in 0..if trains { POOL } else { 1 } {
            // Drawn wider than PyTorch's, since a unit that begins all but linear tends to stay so.
            let bound = 3.0 / (features.len() as f32).sqrt();
            let weights = features.iter().map(|_| twister.float(bound)).collect();
            let mut unit = Unit { weights, bias: twister.float(bound) };
            let out = (0..self.n_outputs).map(|_| twister.float(1.0)).collect();
            let error = if trains { unit.train(&features, &left, data.train.n, out) } else { 0.0 };
            if best.as_ref().is_none_or(|b| error < b.0) {
                best = Some((error, unit));
            }
        }
        // The pool is never empty.
        best.map_or_else(|| Unit { weights: vec![0.0; features.len()], bias: 0.0 }, |(_, unit)| unit)
    }
}
