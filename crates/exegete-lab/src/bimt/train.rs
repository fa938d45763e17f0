//! Training as published: AdamW on all samples at once, the connection cost under a schedule, swaps.

use clap::ValueEnum;
use exegete_tensor::cpu::adam::{AdamStep, update};
use exegete_tensor::optim::AdamW;
use serde::{Deserialize, Serialize};

use super::cost::{add_gradient, connection_cost, prices};
use super::formula::{Data, Formula};
use super::net::{Net, Pass};
use super::swap::round;

/// Learning rate.
const LR: f64 = 2e-3;
/// Lambda of the first quarter.
const LAMBDA: f64 = 1e-3;
/// Steps between rounds of swaps, and between points of the curves.
pub const SWAP_EVERY: usize = 200;

/// A rung of the ladder of ablations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Rung {
    /// The task alone.
    None,
    /// All connections cost alike.
    L1,
    /// Long connections cost more.
    L1Local,
    /// All cost alike, and neurons are swapped.
    L1Swap,
    /// Long ones cost more, and neurons are swapped: BIMT.
    L1LocalSwap,
}

impl Rung {
    /// All of them, in the paper's order.
    pub const ALL: [Self; 5] = [Self::None, Self::L1, Self::L1Local, Self::L1Swap, Self::L1LocalSwap];

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::L1 => "L1",
            Self::L1Local => "L1+local",
            Self::L1Swap => "L1+swap",
            Self::L1LocalSwap => "L1+local+swap",
        }
    }

    fn is_local(self) -> bool {
        matches!(self, Self::L1Local | Self::L1LocalSwap)
    }

    fn swaps(self) -> bool {
        matches!(self, Self::L1Swap | Self::L1LocalSwap)
    }
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Plan {
    /// The task.
    pub formula: Formula,
    /// The penalty.
    pub rung: Rung,
    /// Neurons of a hidden layer.
    pub width: usize,
    /// Layers of weights.
    pub depth: usize,
    /// Steps.
    pub steps: usize,
    /// Seed of the data and of the initial weights.
    pub seed: u32,
}

impl Plan {
    /// The published run of a formula, for other steps or another seed where asked.
    pub fn published(formula: Formula, width: usize, steps: usize, seed: u32) -> Self {
        Self { formula, rung: Rung::L1LocalSwap, width, depth: formula.published().depth, steps, seed }
    }

    /// Widths of all layers of neurons.
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = vec![self.width; self.depth + 1];
        shape[0] = self.formula.n_inputs();
        shape[self.depth] = self.formula.n_outputs();
        shape
    }
}

/// A point of the curves of a training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Steps done.
    pub step: usize,
    /// Error on the training set.
    pub train_mse: f64,
    /// Error on the test set.
    pub test_mse: f64,
    /// Connection cost with the weight of distances at 1 and biases counted.
    pub cost: f64,
}

/// A finished training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The network.
    pub net: Net,
    /// Its curves.
    pub curve: Vec<Point>,
    /// Swaps made.
    pub swaps: usize,
}

/// Trains a network; `None` if `is_cancelled` said so on the way.
pub fn train(plan: &Plan, data: &Data, is_cancelled: &(dyn Fn() -> bool + Sync)) -> Option<Trained> {
    let published = plan.formula.published();
    let mut net = Net::new(&plan.shape(), plan.seed_of_weights());
    let mut pass = Pass::new(&net, data.train.n);
    let (mut m, mut v, mut grad) =
        (vec![0f32; net.params.len()], vec![0f32; net.params.len()], vec![0f32; net.params.len()]);
    let weight = if plan.rung.is_local() { 1.0 } else { 0.0 };
    let (weights_only, with_biases) = (prices(&net, weight, false), prices(&net, weight, true));
    let full = prices(&net, 1.0, true);
    let mut lambda = if plan.rung == Rung::None { 0.0 } else { LAMBDA };
    let (adam, mut curve, mut swaps) = (AdamW::default(), Vec::new(), 0);
    for step in 0..plan.steps {
        if step == plan.steps / 4 {
            lambda *= published.rise;
        }
        if step == 3 * plan.steps / 4 {
            lambda *= published.fall;
        }
        let train_mse = pass.gradient(&net, &data.train, &mut grad);
        if step % SWAP_EVERY == 0 {
            if is_cancelled() {
                return None;
            }
            curve.push(Point { step, train_mse, test_mse: net.mse(&data.test), cost: connection_cost(&net, &full) });
        }
        // Biases stay free at first: the authors found the graph of weights to look better so.
        let prices = if step < 3 * plan.steps / 4 { &weights_only } else { &with_biases };
        add_gradient(&net, prices, lambda, &mut grad);
        let t = step as u64 + 1;
        update(AdamStep::new(LR, adam.betas, adam.eps, t), &mut net.params, &mut m, &mut v, &grad);
        if plan.rung.swaps() && (step + 1) % SWAP_EVERY == 0 {
            // A neuron takes its moments along, so that a swap changes nothing but the cost. (The notebook leaves
            // them where they were.)
            swaps += round(&mut net, &mut [&mut m, &mut v]);
        }
    }
    let (train_mse, test_mse) = (net.mse(&data.train), net.mse(&data.test));
    curve.push(Point { step: plan.steps, train_mse, test_mse, cost: connection_cost(&net, &full) });
    Some(Trained { net, curve, swaps })
}

impl Plan {
    fn seed_of_weights(&self) -> u32 {
        // The notebook seeds the generators of data and of weights alike.
        self.seed
    }
}
