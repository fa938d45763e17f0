//! The three formula tasks of section 3.1 of the paper, with the data and the schedule of its notebook.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::twister::Twister;

/// Samples of the training set, of the validation set and of the test set.
pub const SAMPLES: usize = 100;

/// A formula that a network learns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Formula {
    /// `((x1 + x3)^3, x2^2 + sin(pi x4))`: two outputs that share no input
    Independence,
    /// `(x1^2, x1^2 + x2^2, x1^2 + x2^2 + x3^2)`: outputs that share features
    Sharing,
    /// `sqrt((x1 - x2)^2 + (x3 - x4)^2)`: squares of differences, then a sum, then a root
    Compositionality,
}

/// What the notebook fixes for a formula, and the test error that it prints.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Published {
    /// Seed of the data and of the initial weights.
    pub seed: u32,
    /// Layers of weights.
    pub depth: usize,
    /// Lambda is multiplied by this after a quarter of the steps.
    pub rise: f64,
    /// Lambda is multiplied by this after three quarters of the steps.
    pub fall: f64,
    /// Test MSE of the authors' one run.
    pub test_mse: f64,
}

impl Formula {
    /// All of them, in the order of the paper.
    pub const ALL: [Self; 3] = [Self::Independence, Self::Sharing, Self::Compositionality];

    /// The name on the command line and in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Independence => "independence",
            Self::Sharing => "sharing",
            Self::Compositionality => "compositionality",
        }
    }

    /// Names of the outputs.
    pub fn outputs(self) -> &'static [&'static str] {
        match self {
            Self::Independence => &["(x1+x3)³", "x2²+sin πx4"],
            Self::Sharing => &["x1²", "x1²+x2²", "x1²+x2²+x3²"],
            Self::Compositionality => &["√((x1-x2)²+(x3-x4)²)"],
        }
    }

    /// Number of inputs.
    pub fn n_inputs(self) -> usize {
        if self == Self::Sharing { 3 } else { 4 }
    }

    /// Number of outputs.
    pub fn n_outputs(self) -> usize {
        self.outputs().len()
    }

    /// What was published.
    pub fn published(self) -> Published {
        match self {
            Self::Independence => Published { seed: 0, depth: 3, rise: 10.0, fall: 0.1, test_mse: 7.4e-3 },
            Self::Sharing => Published { seed: 4, depth: 3, rise: 10.0, fall: 0.1, test_mse: 8.5e-5 },
            Self::Compositionality => Published { seed: 3, depth: 5, rise: 3.0, fall: 1.0, test_mse: 1.3e-3 },
        }
    }

    /// The outputs at one input.
    pub fn at(self, x: &[f64]) -> Vec<f64> {
        match self {
            Self::Independence => vec![(x[0] + x[2]).powi(3), x[1] * x[1] + (std::f64::consts::PI * x[3]).sin()],
            Self::Sharing => {
                let squares = [x[0] * x[0], x[1] * x[1], x[2] * x[2]];
                vec![squares[0], squares[0] + squares[1], squares[0] + squares[1] + squares[2]]
            }
            Self::Compositionality => vec![(x[0] - x[1]).hypot(x[2] - x[3])],
        }
    }

    /// The sets of a seed. Training and test inputs are drawn as the notebook draws them, uniform on [-1, 1] and in
    /// this order; the validation set, which the notebook does not have, is drawn after them.
    pub fn data(self, seed: u32) -> Data {
        let mut twister = Twister::new(seed);
        let train = self.draw(&mut twister);
        let test = self.draw(&mut twister);
        Data { train, valid: self.draw(&mut twister), test }
    }

    fn draw(self, twister: &mut Twister) -> Samples {
        let (n_in, n_out) = (self.n_inputs(), self.n_outputs());
        let (mut x, mut y) = (vec![0f32; n_in * SAMPLES], vec![0f32; n_out * SAMPLES]);
        for s in 0..SAMPLES {
            let point: Vec<f64> = (0..n_in).map(|_| twister.double() * 2.0 - 1.0).collect();
            point.iter().enumerate().for_each(|(i, v)| x[i * SAMPLES + s] = *v as f32);
            self.at(&point).iter().enumerate().for_each(|(o, v)| y[o * SAMPLES + s] = *v as f32);
        }
        Samples { n: SAMPLES, x, y }
    }
}

/// Inputs with their outputs, one row a variable: `x` is [inputs, n], `y` is [outputs, n].
#[derive(Debug, Clone, PartialEq)]
pub struct Samples {
    /// Number of samples.
    pub n: usize,
    /// Inputs.
    pub x: Vec<f32>,
    /// Outputs.
    pub y: Vec<f32>,
}

/// The sets of one seed.
#[derive(Debug, Clone, PartialEq)]
pub struct Data {
    /// What is trained on.
    pub train: Samples,
    /// What choices are made on.
    pub valid: Samples,
    /// What errors are reported on.
    pub test: Samples,
}
