//! Universal AND: one layer of ReLU neurons from which the AND of every pair of m boolean features can be read
//! linearly, with far fewer neurons than pairs (Vaintrob, Mendel & Hänni 2024; Hänni et al. 2024).
//!
//! Inputs `x` are boolean with exactly `s` of `m` features on. Neuron `i` of `d` computes `h_i = ReLU(sum_j w_ij x_j + b)`
//! with sparse random weights, and the AND of features k and l is read off the neurons `S_kl` that both are wired to.
//! Two constructions:
//!
//! - [`Design::Signed`]: `w_ij` is +1 or -1 with probability q/2 each, else 0; q does not depend on d, and b = 0. The
//!   reading is `t_kl = g / |S_kl| sum_{i in S_kl} w_ik w_il h_i`. By symmetry its mean over weights is 0 where at most one
//!   of the pair is on; the gain g makes it 1 where both are. What is left is the noise of a mean over about `q^2 d`
//!   neurons: the error falls as d^(-1/2).
//! - [`Design::Subset`]: `w_ij` is 1 with probability q = c / sqrt(d), else 0, and b = -1: the source's own construction.
//!   The reading is the mean of h over `S_kl`, about c^2 neurons whatever d. A neuron errs upwards where other active
//!   features are wired to it: the mean error falls as d^(-1/2), and its root mean square, of rare large errors, as d^(-1/4).

use serde::{Deserialize, Serialize};

use super::draws::Draws;

/// How a layer is wired and read.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Design {
    /// Weights of both signs, of constant density q.
    Signed {
        /// Probability that a weight is not 0.
        q: f64,
    },
    /// Weights 0 and 1, of density c / sqrt(d), and a bias of -1.
    Subset {
        /// Root of the mean number of neurons from which a pair is read.
        c: f64,
    },
}

impl Design {
    /// Probability that a weight is not 0, in a layer of `d` neurons.
    pub fn density(self, d: usize) -> f64 {
        match self {
            Self::Signed { q } => q,
            Self::Subset { c } => (c / (d as f64).sqrt()).min(1.0),
        }
    }

    /// The name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Signed { .. } => "signed",
            Self::Subset { .. } => "subset",
        }
    }

    /// Exponents of d with which the root mean square and the mean absolute error fall, for large d.
    pub fn rates(self) -> Rates {
        match self {
            Self::Signed { .. } => Rates { rms: -0.5, mean_abs: -0.5 },
            Self::Subset { .. } => Rates { rms: -0.25, mean_abs: -0.5 },
        }
    }

    /// Expected squared error of a reading for a pair of which 0, 1 or 2 features are on, in the order of [`CLASSES`].
    /// `1 / |S_kl|` is taken at second order about its mean.
    pub fn expected_mse(self, d: usize, active: usize) -> [f64; 3] {
        let q = self.density(d);
        let mean_size = q * q * d as f64;
        let inverse_size = (1.0 + (1.0 - q * q) / mean_size) / mean_size;
        [0, 1, 2].map(|on| {
            let (first, second, gain) = self.moments(q, active, on);
            let bias = gain * first - f64::from(on == 2);
            bias * bias + gain * gain * (second - first * first) * inverse_size
        })
    }

    /// Expected absolute error, in the order of [`CLASSES`]: known where no neuron ever errs downwards.
    pub fn expected_mean_abs(self, d: usize, active: usize) -> Option<[f64; 3]> {
        let q = self.density(d);
        let bias = |on: usize| self.moments(q, active, on).0 - f64::from(on == 2);
        matches!(self, Self::Subset { .. }).then(|| [0, 1, 2].map(bias))
    }

    /// Mean and mean square of one neuron's share in a reading, and the gain. `on` features of the pair are on.
    fn moments(self, q: f64, active: usize, on: usize) -> (f64, f64, f64) {
        let relu = |v: i64| v.max(0) as f64;
        match self {
            Self::Signed { .. } => {
                let of = |on: usize| {
                    let (mut first, mut second) = (0.0, 0.0);
                    for (signs, (k, l)) in [(1.0, (1, 1)), (-1.0, (1, -1)), (-1.0, (-1, 1)), (1.0, (-1, -1))] {
                        let wired = [0, k, k + l][on];
                        for (z, p) in sums(active - on, q / 2.0, q / 2.0) {
                            let h = relu(wired + z);
                            first += 0.25 * p * signs * h;
                            second += 0.25 * p * h * h;
                        }
                    }
                    (first, second)
                };
                let (first, second) = of(on);
                (first, second, 1.0 / of(2).0)
            }
            Self::Subset { .. } => {
                let terms = sums(active - on, q, 0.0);
                let moment = |power: i32| terms.iter().map(|(z, p)| p * relu(on as i64 + z - 1).powi(power)).sum();
                (moment(1), moment(2), 1.0)
            }
        }
    }
}

/// Exponents of the width.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Of the root mean square error.
    pub rms: f64,
    /// Of the mean absolute error.
    pub mean_abs: f64,
}

/// The classes of pairs: none of the two features on, one, both.
pub const CLASSES: [&str; 3] = ["none on", "one on", "both on"];

/// Errors of the readings of one network.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Errors {
    /// Mean squared error of each class of pairs, in the order of [`CLASSES`].
    pub mse: [f64; 3],
    /// Mean absolute error of each class.
    pub mean_abs: [f64; 3],
    /// Readings of each class.
    pub n: u64,
}

/// A layer drawn at random.
pub struct Layer {
    design: Design,
    gain: f64,
    d: usize,
    /// Weights, `[m, d]`: those of a feature lie together.
    weights: Vec<i8>,
}

impl Layer {
    /// A layer of `d` neurons over `m` features, calibrated for inputs of `active` features.
    pub fn random(design: Design, (m, d): (usize, usize), active: usize, draws: &mut Draws) -> Self {
        let q = design.density(d);
        let weights = (0..m * d).map(|_| {
            let u = draws.unit();
            let sign = if matches!(design, Design::Signed { .. }) && u < q / 2.0 { -1 } else { 1 };
            if u < q { sign } else { 0 }
        });
        Self { design, gain: design.moments(q, active, 2).2, d, weights: weights.collect() }
    }

    fn of_feature(&self, k: usize) -> &[i8] {
        &self.weights[k * self.d..(k + 1) * self.d]
    }

    /// Activations of the neurons where the features `on` are on.
    pub fn hidden(&self, on: &[usize]) -> Vec<i32> {
        let bias = if matches!(self.design, Design::Subset { .. }) { -1 } else { 0 };
        let mut h = vec![bias; self.d];
        for k in on {
            h.iter_mut().zip(self.of_feature(*k)).for_each(|(h, w)| *h += i32::from(*w));
        }
        h.iter_mut().for_each(|h| *h = (*h).max(0));
        h
    }

    /// The AND of two features as it is read; 0 where no neuron is wired to both.
    pub fn read(&self, hidden: &[i32], k: usize, l: usize) -> f64 {
        let (mut sum, mut size) = (0i64, 0i64);
        for ((h, a), b) in hidden.iter().zip(self.of_feature(k)).zip(self.of_feature(l)) {
            let product = i32::from(*a) * i32::from(*b);
            sum += i64::from(product * h);
            size += i64::from(product.abs());
        }
        if size > 0 { self.gain * sum as f64 / size as f64 } else { 0.0 }
    }

    /// Errors over `inputs` random inputs, `reads` random pairs of each class on each.
    pub fn errors(&self, m: usize, active: usize, inputs: usize, reads: usize, draws: &mut Draws) -> Errors {
        let mut features: Vec<usize> = (0..m).collect();
        let (mut squares, mut sizes) = ([0f64; 3], [0f64; 3]);
        for _ in 0..inputs {
            draws.pick_first(&mut features, active);
            let (on, off) = features.split_at(active);
            let hidden = self.hidden(on);
            for _ in 0..reads {
                let two = |from: &[usize], draws: &mut Draws| {
                    let first = draws.below(from.len());
                    let second = (first + 1 + draws.below(from.len() - 1)) % from.len();
                    (from[first], from[second])
                };
                let one = (on[draws.below(on.len())], off[draws.below(off.len())]);
                for (class, (k, l)) in [two(off, draws), one, two(on, draws)].into_iter().enumerate() {
                    let error = self.read(&hidden, k, l) - f64::from(class == 2);
                    squares[class] += error * error;
                    sizes[class] += error.abs();
                }
            }
        }
        let n = (inputs * reads) as f64;
        Errors { mse: squares.map(|s| s / n), mean_abs: sizes.map(|s| s / n), n: n as u64 }
    }
}

/// Distribution of a sum of `n` weights that are +1 with probability `up` and -1 with probability `down`.
fn sums(n: usize, up: f64, down: f64) -> Vec<(i64, f64)> {
    let mut mass = vec![0.0; 2 * n + 1];
    mass[n] = 1.0;
    for _ in 0..n {
        let old = mass.clone();
        for (i, m) in mass.iter_mut().enumerate() {
            let below = if i > 0 { old[i - 1] } else { 0.0 };
            *m = old[i] * (1.0 - up - down) + up * below + down * old.get(i + 1).copied().unwrap_or(0.0);
        }
    }
    mass.into_iter().enumerate().map(|(i, p)| (i as i64 - n as i64, p)).filter(|(_, p)| *p > 0.0).collect()
}
