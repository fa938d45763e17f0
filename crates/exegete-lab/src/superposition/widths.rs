//! Error of universal AND against width: measured, expected, fitted, and beside one neuron for each AND.

use exegete_base::stats::Estimate;
use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::geometry::mean;
use super::uand::{Design, Errors, Layer, Rates};

/// Inputs of the question: `m` boolean features of which exactly `active` are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Inputs {
    /// Number of features.
    pub m: usize,
    /// Features that are on.
    pub active: usize,
}

impl Inputs {
    /// Number of pairs.
    pub fn n_pairs(self) -> usize {
        self.m * (self.m - 1) / 2
    }

    /// Share of all pairs with none, one and both features on.
    pub fn natural(self) -> [f64; 3] {
        let (m, s) = (self.m as f64, self.active as f64);
        let all = m * (m - 1.0);
        [(m - s) * (m - s - 1.0) / all, 2.0 * s * (m - s) / all, s * (s - 1.0) / all]
    }
}

/// Mean squared error of one feature per neuron: `d` of the ANDs are computed exactly, each by a neuron of its own
/// (`ReLU(x_k + x_l - 1)`), and every other is answered by the best constant. `shares` weighs the classes of pairs.
pub fn naive_mse(inputs: Inputs, d: usize, shares: [f64; 3]) -> f64 {
    let left = 1.0 - (d.min(inputs.n_pairs()) as f64 / inputs.n_pairs() as f64);
    left * shares[2] * (1.0 - shares[2])
}

/// Every class weighs the same.
pub const BALANCED: [f64; 3] = [1.0 / 3.0; 3];

/// A width of the sweep.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Width {
    /// Number of neurons.
    pub d: u64,
    /// Root mean square error over the three classes of pairs alike; the unit of the interval is the network.
    pub rms: Estimate,
    /// Mean absolute error over the three classes alike.
    pub mean_abs: Estimate,
    /// The root mean square error that the construction is expected to have.
    pub rms_expected: f64,
    /// Mean squared error of each class of pairs: none, one, both on.
    pub mse: [f64; 3],
    /// Mean squared error over the three classes alike.
    pub mse_balanced: Estimate,
    /// That of one feature per neuron.
    pub naive_mse_balanced: f64,
    /// Mean squared error over all pairs alike, nearly all of which have no feature on.
    pub mse_natural: Estimate,
    /// That of one feature per neuron.
    pub naive_mse_natural: f64,
}

/// An exponent fitted to log error against log width, by least squares over networks.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Fit {
    /// The exponent, its 95 % interval, and the number of networks.
    pub exponent: Estimate,
    /// The same fitted to the errors that are expected at the same widths, where they are known.
    pub expected: Option<f64>,
    /// The exponent that theory gives for large widths.
    pub asymptotic: f64,
}

/// A construction over all widths.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sweep {
    /// The construction.
    pub design: Design,
    /// What the inputs are.
    pub inputs: Inputs,
    /// Number of ANDs.
    pub n_pairs: u64,
    /// The widths.
    pub widths: Vec<Width>,
    /// Exponent of the root mean square error.
    pub rms_fit: Fit,
    /// Exponent of the mean absolute error.
    pub mean_abs_fit: Fit,
}

/// Errors of one network, drawn by its key.
pub fn measure(design: Design, inputs: Inputs, d: usize, reads: usize, seed: u64, network: u64) -> Errors {
    let mut draws = Draws::new(seed, design.name(), (d as u64) << 20 | network);
    let layer = Layer::random(design, (inputs.m, d), inputs.active, &mut draws);
    layer.errors(inputs.m, inputs.active, reads, READS_OF_AN_INPUT, &mut draws)
}

/// Pairs of each class that are read on an input.
pub const READS_OF_AN_INPUT: usize = 16;

/// Puts the networks of all widths together.
pub fn sweep(design: Design, inputs: Inputs, measured: &[(usize, Vec<Errors>)]) -> Sweep {
    let rates: Rates = design.rates();
    let rms = |e: &Errors| weighed(e.mse, BALANCED).sqrt();
    let sizes = |e: &Errors| weighed(e.mean_abs, BALANCED);
    let widths = measured.iter().map(|(d, networks)| {
        let over = |f: &dyn Fn(&Errors) -> f64| mean(&networks.iter().map(f).collect::<Vec<f64>>());
        Width {
            d: *d as u64,
            rms: over(&rms),
            mean_abs: over(&sizes),
            rms_expected: weighed(design.expected_mse(*d, inputs.active), BALANCED).sqrt(),
            mse: [0, 1, 2].map(|class| over(&|e| e.mse[class]).value),
            mse_balanced: over(&|e| weighed(e.mse, BALANCED)),
            naive_mse_balanced: naive_mse(inputs, *d, BALANCED),
            mse_natural: over(&|e| weighed(e.mse, inputs.natural())),
            naive_mse_natural: naive_mse(inputs, *d, inputs.natural()),
        }
    });
    let points = |f: &dyn Fn(&Errors) -> f64| -> Vec<(f64, f64)> {
        let of = |(d, networks): &(usize, Vec<Errors>)| -> Vec<(f64, f64)> {
            networks.iter().map(|e| ((*d as f64).ln(), f(e).ln())).collect()
        };
        measured.iter().flat_map(of).collect()
    };
    let expected = |of: &dyn Fn(usize) -> Option<f64>| {
        let point = |(d, _): &(usize, Vec<Errors>)| Some(((*d as f64).ln(), of(*d)?.ln()));
        Some(slope(&measured.iter().map(point).collect::<Option<Vec<_>>>()?).value)
    };
    Sweep {
        design,
        inputs,
        n_pairs: inputs.n_pairs() as u64,
        widths: widths.collect(),
        rms_fit: Fit {
            exponent: slope(&points(&rms)),
            expected: expected(&|d| Some(weighed(design.expected_mse(d, inputs.active), BALANCED).sqrt())),
            asymptotic: rates.rms,
        },
        mean_abs_fit: Fit {
            exponent: slope(&points(&sizes)),
            expected: expected(&|d| Some(weighed(design.expected_mean_abs(d, inputs.active)?, BALANCED))),
            asymptotic: rates.mean_abs,
        },
    }
}

/// Slope of the least-squares line with its 95 % interval (the normal quantile: there are dozens of points).
pub fn slope(points: &[(f64, f64)]) -> Estimate {
    let n = points.len() as f64;
    let (mx, my) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let sxx: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
    let value = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>() / sxx;
    let residual: f64 = points.iter().map(|p| (p.1 - my - value * (p.0 - mx)).powi(2)).sum();
    let half = if n > 2.0 { 1.96 * (residual / (n - 2.0) / sxx).sqrt() } else { f64::INFINITY };
    Estimate { value, low: value - half, high: value + half, n: points.len() as u64 }
}

fn weighed(values: [f64; 3], shares: [f64; 3]) -> f64 {
    values.iter().zip(shares).map(|(v, s)| v * s).sum()
}
