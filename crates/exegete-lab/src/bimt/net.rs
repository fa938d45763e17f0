//! A multilayer perceptron whose neurons have places, in `f32`, with its gradient written out.

use exegete_tensor::cpu::activation::{Act, activate, activate_back};
use exegete_tensor::cpu::gemm::{Into, Mat, gemm};

use super::formula::Samples;
use super::twister::Twister;

/// The network: layers of weights `[out, in]` with biases `[out]` and SiLU between them.
///
/// Place `p` of the input layer holds input `in_perm[p]`, place `p` of the output layer output `out_perm[p]`, so that
/// neurons of those layers can change places too.
#[derive(Debug, Clone, PartialEq)]
pub struct Net {
    shape: Vec<usize>,
    /// Layer after layer: weights, row by row, then biases.
    pub params: Vec<f32>,
    /// Which input lies at each place.
    pub in_perm: Vec<usize>,
    /// Which output lies at each place.
    pub out_perm: Vec<usize>,
}

impl Net {
    /// A network of the given widths (inputs first, outputs last), initialised as PyTorch does it: everything uniform
    /// on +-1/sqrt(inputs of the layer), drawn layer by layer, weights before biases.
    pub fn new(shape: &[usize], seed: u32) -> Self {
        let mut twister = Twister::new(seed);
        let mut params = Vec::new();
        for pair in shape.windows(2) {
            let bound = 1.0 / (pair[0] as f32).sqrt();
            params.extend((0..pair[1] * (pair[0] + 1)).map(|_| twister.float(bound)));
        }
        let (first, last) = (shape[0], shape[shape.len() - 1]);
        Self { shape: shape.to_vec(), params, in_perm: (0..first).collect(), out_perm: (0..last).collect() }
    }

    /// Widths of the layers of neurons.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Layers of weights.
    pub fn depth(&self) -> usize {
        self.shape.len() - 1
    }

    /// Where the weights of a layer begin in `params`, and where its biases do.
    pub fn offsets(&self, layer: usize) -> (usize, usize) {
        let before: usize = self.shape.windows(2).take(layer).map(|p| p[1] * (p[0] + 1)).sum();
        (before, before + self.shape[layer + 1] * self.shape[layer])
    }

    /// Weights of a layer, [out, in].
    pub fn weights(&self, layer: usize) -> &[f32] {
        let (from, to) = self.offsets(layer);
        &self.params[from..to]
    }

    /// Biases of a layer.
    pub fn biases(&self, layer: usize) -> &[f32] {
        let from = self.offsets(layer).1;
        &self.params[from..from + self.shape[layer + 1]]
    }

    /// Outputs at inputs `x` [inputs, n], in the order of the formula: [outputs, n].
    pub fn outputs(&self, x: &[f32], n: usize) -> Vec<f32> {
        let mut pass = Pass::new(self, n);
        pass.forward(self, x);
        pass.outputs(self)
    }

    /// Mean squared error over samples and outputs.
    pub fn mse(&self, samples: &Samples) -> f64 {
        mse(&self.outputs(&samples.x, samples.n), &samples.y)
    }
}

/// Mean squared difference.
pub fn mse(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64
}

/// Buffers of a forward and a backward pass over `n` samples; rows are neurons.
pub struct Pass {
    n: usize,
    /// Activations of each layer of neurons, [width, n]; the last is the output by place.
    pub acts: Vec<Vec<f32>>,
    sums: Vec<Vec<f32>>,
    back: Vec<Vec<f32>>,
}

impl Pass {
    /// Buffers for a network.
    pub fn new(net: &Net, n: usize) -> Self {
        let rows = || net.shape.iter().map(|width| vec![0f32; width * n]).collect::<Vec<_>>();
        Self { n, acts: rows(), sums: rows(), back: rows() }
    }

    /// Computes all activations from inputs `x` [inputs, n].
    pub fn forward(&mut self, net: &Net, x: &[f32]) {
        for (row, &input) in self.acts[0].chunks_exact_mut(self.n).zip(&net.in_perm) {
            row.copy_from_slice(&x[input * self.n..(input + 1) * self.n]);
        }
        self.forward_from(net, 0);
    }

    /// Computes the activations above layer `from` of neurons from those that stand there.
    pub fn forward_from(&mut self, net: &Net, from: usize) {
        let n = self.n;
        for layer in from..net.depth() {
            let (n_in, n_out) = (net.shape[layer], net.shape[layer + 1]);
            let (below, above) = self.acts.split_at_mut(layer + 1);
            let is_last = layer + 1 == net.depth();
            let sums = if is_last { &mut above[0] } else { &mut self.sums[layer + 1] };
            sums.chunks_exact_mut(n).zip(net.biases(layer)).for_each(|(row, bias)| row.fill(*bias));
            let weights = Mat::rows(net.weights(layer), n_in);
            gemm((n_out, n, n_in), sums, n, Into::Add, 1.0, weights, Mat::rows(&below[layer], n), false);
            if !is_last {
                activate(Act::Silu, &self.sums[layer + 1], &mut above[0]);
            }
        }
    }

    /// The outputs in the order of the formula.
    pub fn outputs(&self, net: &Net) -> Vec<f32> {
        let by_place = &self.acts[net.depth()];
        let mut out = vec![0f32; by_place.len()];
        for (row, &output) in by_place.chunks_exact(self.n).zip(&net.out_perm) {
            out[output * self.n..(output + 1) * self.n].copy_from_slice(row);
        }
        out
    }

    /// Runs forward and backward: writes the gradient of the mean squared error, gives the error.
    pub fn gradient(&mut self, net: &Net, samples: &Samples, grad: &mut [f32]) -> f64 {
        let n = self.n;
        self.forward(net, &samples.x);
        let depth = net.depth();
        let scale = 2.0 / samples.y.len() as f32;
        let mut error = 0.0;
        for (place, &output) in net.out_perm.iter().enumerate() {
            let (at, want) = (place * n..(place + 1) * n, &samples.y[output * n..(output + 1) * n]);
            for ((back, out), want) in self.back[depth][at.clone()].iter_mut().zip(&self.acts[depth][at]).zip(want) {
                let off = out - want;
                error += f64::from(off).powi(2);
                *back = scale * off;
            }
        }
        for layer in (0..depth).rev() {
            let (n_in, n_out) = (net.shape[layer], net.shape[layer + 1]);
            let (weights, biases) = net.offsets(layer);
            let (below, above) = self.back.split_at_mut(layer + 1);
            let back = &above[0];
            for (slot, row) in grad[biases..biases + n_out].iter_mut().zip(back.chunks_exact(n)) {
                *slot = row.iter().sum();
            }
            let (back, acts) = (Mat::rows(back, n), Mat::rows(&self.acts[layer], n));
            gemm((n_out, n_in, n), &mut grad[weights..biases], n_in, Into::Overwrite, 1.0, back, acts.t(), false);
            if layer > 0 {
                // The forward pass is done with the activations below, so their rows hold the product.
                let product = &mut self.acts[layer];
                let weights = Mat::rows(net.weights(layer), n_in);
                gemm((n_in, n, n_out), product, n, Into::Overwrite, 1.0, weights.t(), back, false);
                activate_back(Act::Silu, &self.sums[layer], product, &mut below[layer]);
            }
        }
        error / samples.y.len() as f64
    }
}
