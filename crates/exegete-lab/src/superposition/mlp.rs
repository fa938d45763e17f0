//! A layer `y = W_out ReLU(W_in x + b)` that widens, rectifies and projects back, and its training on the tape.

use std::sync::Arc;

use exegete_tensor::optim::{AdamW, Parameter};
use exegete_tensor::{Act, Keep, Matrix, Stack, Tape, Value, f32s, tensor};

use super::draws::Draws;
use crate::Result;

/// The layer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    /// Width of inputs and outputs.
    pub d: usize,
    /// `[M, D]`.
    pub w_in_MD: Vec<f32>,
    /// `[M]`.
    pub b_in_M: Vec<f32>,
    /// `[D, M]`.
    pub w_out_DM: Vec<f32>,
}

impl Mlp {
    /// A layer as training begins: normal weights of variance 2 / inputs, biases 0.
    pub fn random(d: usize, n_neurons: usize, draws: &mut Draws) -> Self {
        let mut normals = |n: usize, inputs: usize| -> Vec<f32> {
            (0..n).map(|_| ((2.0 / inputs as f64).sqrt() * draws.normal()) as f32).collect()
        };
        let (w_in_MD, w_out_DM) = (normals(n_neurons * d, d), normals(n_neurons * d, n_neurons));
        Self { d, w_in_MD, b_in_M: vec![0.0; n_neurons], w_out_DM }
    }

    /// Number of hidden neurons.
    pub fn n_neurons(&self) -> usize {
        self.b_in_M.len()
    }

    /// Hidden activations `[M]` of an input `[D]`.
    pub fn hidden(&self, x_D: &[f32]) -> Vec<f32> {
        let of = |(w, b): (&[f32], &f32)| (w.iter().zip(x_D).map(|(w, x)| w * x).sum::<f32>() + b).max(0.0);
        self.w_in_MD.chunks_exact(self.d).zip(&self.b_in_M).map(of).collect()
    }

    /// `W_out h`, `[D]`.
    pub fn project(&self, h_M: &[f32]) -> Vec<f32> {
        self.w_out_DM.chunks_exact(h_M.len()).map(|w| w.iter().zip(h_M).map(|(w, h)| w * h).sum()).collect()
    }

    /// The column of `W_out` of a neuron, `[D]`.
    pub fn column(&self, neuron: usize) -> Vec<f32> {
        self.w_out_DM.iter().skip(neuron).step_by(self.n_neurons()).copied().collect()
    }
}

/// Trains on batches of inputs and targets, `[N, D]` both, by the squared error.
///
/// # Errors
/// Batches whose length is no multiple of the width.
pub fn train(start: Mlp, steps: u64, lr: f64, mut batch: impl FnMut() -> (Vec<f32>, Vec<f32>)) -> Result<Mlp> {
    let (d, m) = (start.d, start.n_neurons());
    let mut w_in = Parameter::new(start.w_in_MD);
    let mut b_in = Parameter::new(start.b_in_M);
    let mut w_out = Parameter::new(start.w_out_DM);
    for step in 1..=steps {
        let (x_ND, target_ND) = batch();
        let n = x_ND.len() / d;
        let tape = Tape::new();
        let watch = |p: &Parameter, shape: &[usize]| -> Result<Value> {
            Ok(tape.watch(&tensor(p.values.clone(), shape)?.into()))
        };
        let (v_in, v_bias, v_out) = (watch(&w_in, &[m, d])?, watch(&b_in, &[m])?, watch(&w_out, &[d, m])?);
        let x: Value = tensor(x_ND, (n, d))?.into();
        let h = tape.linear(&x, &packed(&w_in.values, m, d), Some(&v_in), Some(&v_bias))?;
        let h = tape.activate(Act::Relu, &h)?;
        let y = tape.linear(&h, &packed(&w_out.values, d, m), Some(&v_out), None)?;
        // The gradient of the mean over rows of |y - target|^2.
        let seed: Vec<f32> = f32s(y.tensor())?.iter().zip(&target_ND).map(|(y, t)| 2.0 * (y - t) / n as f32).collect();
        let grads = tape.gradients(&y, &tensor(seed, (n, d))?, &[&v_in, &v_bias, &v_out])?;
        let left = (steps - step) as f64 / steps as f64;
        for (parameter, grad) in [&mut w_in, &mut b_in, &mut w_out].into_iter().zip(&grads) {
            parameter.step(AdamW::default(), lr * (2.0 * left).min(1.0), 0.0, step, &f32s(grad)?);
        }
    }
    Ok(Mlp { d, w_in_MD: w_in.values, b_in_M: b_in.values, w_out_DM: w_out.values })
}

fn packed(values: &[f32], rows: usize, columns: usize) -> Matrix {
    let mut stack = Stack::new(Keep::F32, 1, rows, columns);
    stack.fill(0, 0, values);
    Matrix::new(Arc::new(stack), 0)
}
