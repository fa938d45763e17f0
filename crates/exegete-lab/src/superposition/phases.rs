//! Two features, one dimension: which of three solutions is learned (Elhage et al. 2022, superposition as a phase
//! change).
//!
//! Feature 0 has importance 1, the extra feature 1 has importance `r`. The three solutions and their expected losses,
//! with `p` the density, features uniform in [0, 1), and the best constant in place of a feature that is not kept:
//!
//! - not represented, `W = [1, 0]`: `r (p/3 - p^2/4)`;
//! - its own dimension, `W = [0, 1]`: `p/3 - p^2/4`;
//! - superposition, `W = [1, -1]`, `b = 0`: `(1 + r) p^2 / 6`. Where one feature is active alone nothing is lost; where
//!   both are, each loses the smaller of the two, and `E min^2 = 1/6`.

use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::geometry::REPRESENTED;
use super::toy::{Task, Toy, train};

/// What became of the extra feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// It is dropped and the first feature kept.
    NotRepresented,
    /// It has the dimension for itself and the first feature is dropped.
    OwnDimension,
    /// Both are kept, in opposite directions.
    Superposition,
    /// None of the three: both in one direction, or none.
    Other,
}

/// The phase of a trained model, by its two weights and [`REPRESENTED`].
pub fn phase(w: [f64; 2]) -> Phase {
    match (w[0].abs() >= REPRESENTED, w[1].abs() >= REPRESENTED) {
        (true, false) => Phase::NotRepresented,
        (false, true) => Phase::OwnDimension,
        (true, true) if w[0] * w[1] < 0.0 => Phase::Superposition,
        _ => Phase::Other,
    }
}

/// Expected losses of the three solutions: not represented, own dimension, superposition.
pub fn expected_losses(density: f64, importance: f64) -> [f64; 3] {
    let p = density;
    let variance = p / 3.0 - p * p / 4.0;
    [importance * variance, variance, (1.0 + importance) * p * p / 6.0]
}

/// The solution of smallest expected loss.
pub fn predicted(density: f64, importance: f64) -> Phase {
    let losses = expected_losses(density, importance);
    let best = (0..3).min_by(|a, b| losses[*a].total_cmp(&losses[*b])).unwrap_or(0);
    [Phase::NotRepresented, Phase::OwnDimension, Phase::Superposition][best]
}

/// Points on which each feature is evaluated by [`exact_loss`].
const POINTS: usize = 96;

/// The expected loss of any model of two features and one dimension, by the midpoint rule over the four cases of which
/// features are active: no sampling noise, and an error of about 1e-5.
pub fn exact_loss(toy: &Toy, density: f64, importance: f64) -> f64 {
    let (w, b) = (toy.directions(), toy.biases());
    let [w0, w1, b0, b1] = [w[0], w[1], b[0], b[1]].map(f64::from);
    let of = |x0: f64, x1: f64| {
        let hidden = w0 * x0 + w1 * x1;
        let error = |w: f64, b: f64, x: f64| ((w * hidden + b).max(0.0) - x).powi(2);
        error(w0, b0, x0) + importance * error(w1, b1, x1)
    };
    let at = |i: usize| (i as f64 + 0.5) / POINTS as f64;
    let alone: f64 = (0..POINTS).map(|i| of(at(i), 0.0) + of(0.0, at(i))).sum::<f64>() / POINTS as f64;
    let both: f64 = (0..POINTS * POINTS).map(|i| of(at(i / POINTS), at(i % POINTS))).sum();
    let (p, q) = (density, 1.0 - density);
    q * q * of(0.0, 0.0) + p * q * alone + p * p * both / (POINTS * POINTS) as f64
}

/// A point of the diagram.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Cell {
    /// Density, 1 - S.
    pub density: f64,
    /// Importance of the extra feature over that of the first.
    pub importance: f64,
    /// Weights of the best of the models trained here.
    pub weights: [f64; 2],
    /// Its biases.
    pub biases: [f64; 2],
    /// Its expected loss.
    pub loss: f64,
    /// Expected losses of the three solutions: not represented, own dimension, superposition.
    pub solutions: [f64; 3],
    /// What became of the extra feature.
    pub phase: Phase,
    /// The solution of smallest expected loss.
    pub predicted: Phase,
    /// Models trained, of which the one of smallest expected loss is kept.
    pub n: u64,
}

/// Trains the models of one point and keeps the best.
pub fn train_cell(density: f64, importance: f64, task: &Task, restarts: u64, seed: u64, number: u64) -> Cell {
    let best = (0..restarts)
        .map(|restart| {
            let mut draws = Draws::new(seed, "phases", number * restarts + restart);
            let toy = train(Toy::random(2, 1, &mut draws), task, &mut draws);
            (exact_loss(&toy, density, importance), toy)
        })
        .min_by(|a, b| a.0.total_cmp(&b.0));
    let (loss, toy) = best.unwrap_or_else(|| (f64::NAN, Toy { n_hidden: 1, weights: vec![0.0; 4] }));
    let weights = [0, 1].map(|i| f64::from(toy.directions()[i]));
    Cell {
        density,
        importance,
        weights,
        biases: [0, 1].map(|i| f64::from(toy.biases()[i])),
        loss,
        solutions: expected_losses(density, importance),
        phase: phase(weights),
        predicted: predicted(density, importance),
        n: restarts,
    }
}
