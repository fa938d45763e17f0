//! The toy model `x' = ReLU(W^T W x + b)` (Elhage et al. 2022): sparse features through a narrow layer and back.
//!
//! Thousands of models of a few weights each are trained, so a step works on slices that are allocated once, on one
//! thread, and models are spread over threads instead; its gradient is tested against finite differences.

use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::optim::{AdamW, Parameter};

use super::draws::Draws;

/// A toy model. Features are rows here: `w_FD[f]` is the direction of feature `f`, a column of the paper's `W`.
#[derive(Debug, Clone, PartialEq)]
pub struct Toy {
    /// Width of the narrow layer.
    pub n_hidden: usize,
    /// Directions of the features, `[F, D]` row after row, and behind them the biases, `[F]`.
    pub weights: Vec<f32>,
}

impl Toy {
    /// Number of features.
    pub fn n_features(&self) -> usize {
        self.weights.len() / (self.n_hidden + 1)
    }

    /// Directions of the features, `[F, D]`.
    pub fn directions(&self) -> &[f32] {
        &self.weights[..self.n_features() * self.n_hidden]
    }

    /// Biases, `[F]`.
    pub fn biases(&self) -> &[f32] {
        &self.weights[self.n_features() * self.n_hidden..]
    }

    /// A model as training begins: normal directions of variance 2 / (F + D), biases 0.
    pub fn random(n_features: usize, n_hidden: usize, draws: &mut Draws) -> Self {
        let scale = (2.0 / (n_features + n_hidden) as f64).sqrt();
        let mut weights: Vec<f32> = (0..n_features * n_hidden).map(|_| (scale * draws.normal()) as f32).collect();
        weights.resize(n_features * (n_hidden + 1), 0.0);
        Self { n_hidden, weights }
    }
}

/// What a training run draws and how long it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Probability that a feature is active, 1 - S; an active feature is uniform in [0, 1).
    pub density: f64,
    /// Weight of each feature's squared error, `[F]`.
    pub importance_F: Vec<f32>,
    /// Steps, each on a fresh batch.
    pub steps: u64,
    /// Rows of a batch.
    pub batch: usize,
    /// Learning rate of Adam, constant over the first half and then falling linearly to 0.
    pub lr: f64,
}

/// Memory of a step, kept between steps.
#[derive(Debug, Default)]
pub struct Workspace {
    hidden_ND: Vec<f32>,
    out_NF: Vec<f32>,
    back_ND: Vec<f32>,
    /// The gradient of the last [`loss_and_gradient`], in the layout of [`Toy::weights`].
    pub gradient: Vec<f32>,
}

/// Mean over rows of `sum_i I_i (x_i - x'_i)^2`, and its gradient in `space`.
///
/// # Shapes
/// `x_NF [N, F]`, `importance_F [F]`.
pub fn loss_and_gradient(toy: &Toy, importance_F: &[f32], x_NF: &[f32], space: &mut Workspace) -> f64 {
    let (f, d) = (toy.n_features(), toy.n_hidden);
    let n = x_NF.len() / f;
    let (w, bias) = (toy.directions(), toy.biases());
    space.hidden_ND.resize(n * d, 0.0);
    space.out_NF.resize(n * f, 0.0);
    space.back_ND.resize(n * d, 0.0);
    space.gradient.resize(toy.weights.len(), 0.0);
    let (x, w_FD) = (Mat::rows(x_NF, f), Mat::rows(w, d));
    gemm((n, d, f), &mut space.hidden_ND, d, Into::Overwrite, 1.0, x, w_FD, false);
    gemm((n, f, d), &mut space.out_NF, f, Into::Overwrite, 1.0, Mat::rows(&space.hidden_ND, d), w_FD.t(), false);
    let (dw, dbias) = space.gradient.split_at_mut(f * d);
    dbias.fill(0.0);
    let mut loss = 0f64;
    for (out, x) in space.out_NF.chunks_exact_mut(f).zip(x_NF.chunks_exact(f)) {
        let mut of_row = 0f32;
        for i in 0..f {
            let before = out[i] + bias[i];
            let error = before.max(0.0) - x[i];
            of_row += importance_F[i] * error * error;
            // From here on the output's place holds the gradient before the rectifier.
            out[i] = if before > 0.0 { 2.0 * importance_F[i] * error / n as f32 } else { 0.0 };
            dbias[i] += out[i];
        }
        loss += f64::from(of_row);
    }
    let grad = Mat::rows(&space.out_NF, f);
    gemm((n, d, f), &mut space.back_ND, d, Into::Overwrite, 1.0, grad, w_FD, false);
    // W is used twice, so two terms meet in its gradient.
    gemm((f, d, n), dw, d, Into::Overwrite, 1.0, grad.t(), Mat::rows(&space.hidden_ND, d), false);
    gemm((f, d, n), dw, d, Into::Add, 1.0, x.t(), Mat::rows(&space.back_ND, d), false);
    loss / n as f64
}

/// Trains a model on fresh batches of sparse features.
pub fn train(start: Toy, task: &Task, draws: &mut Draws) -> Toy {
    let (mut toy, mut space) = (start, Workspace::default());
    let mut parameter = Parameter::new(toy.weights.clone());
    let mut x_NF = vec![0f32; task.batch * toy.n_features()];
    for step in 1..=task.steps {
        x_NF.iter_mut().for_each(|x| *x = draws.sparse(task.density));
        loss_and_gradient(&toy, &task.importance_F, &x_NF, &mut space);
        let left = (task.steps - step) as f64 / task.steps as f64;
        parameter.step(AdamW::default(), task.lr * (2.0 * left).min(1.0), 0.0, step, &space.gradient);
        toy.weights.copy_from_slice(&parameter.values);
    }
    toy
}
