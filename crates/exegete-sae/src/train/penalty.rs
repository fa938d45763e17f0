//! Penalties: what the loss adds for a token's activations. One line a formula in [`Formula::row`].
//!
//! A formula is one of `u_i >= 0`, the token's activations times the lengths of their decoder rows (Anthropic's "April
//! update" 2024), summed or compared over latents. Hoyer-Square is that of Yang, Wen and Li 2020 ("DeepHoyer"), `recip` with
//! its schedule Farrell's, tanh Anthropic's of January 2025, P-annealing that of Karvonen et al. 2024 (arXiv 2408.00113).
//! "Freshman's dream" is named after `(a + b)^p = a^p + b^p`: it vanishes where at most one latent is active.

use exegete_base::settings::{Penalty, TrainSettings};

/// Added to activations under a root, so that its slope at 0 is finite.
const ROOT_EPS: f64 = 1e-3;
/// How many times the power of P-annealing changes, in the second half of training.
const ANNEALINGS: f64 = 10.0;

/// A penalty at some step of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Formula {
    /// Nothing.
    None,
    /// `sum of u`
    L1,
    /// `sum of ((u + e)^p - e^p)`, with a small e.
    Power(f64),
    /// `sum of tanh(c u)`
    Tanh(f64),
    /// `sum of u / (u + eps)`
    Recip(f64),
    /// `(sum of u)^p - (sum of u^p)`
    Freshman(f64),
    /// `(sum of u)^p / (sum of u^p)`; Hoyer-Square for p = 2. 0 where no latent is active.
    FreshmanRatio(f64),
    /// The number of active latents: without a slope here, see the thresholds' straight-through gradients.
    L0,
    /// `2 / target (L0 - target)^2`, L0 that of the token (Gemma Scope 2, as SAELens has it).
    L0Target(f64),
    /// `(L0 / target - 1)^2`, L0 the batch's mean (dictionary_learning). A token's value is its L0, see [`Formula::of_mean`].
    L0TargetBatch(f64),
}

impl Formula {
    /// The formula of some settings when a share of the training is done.
    pub fn at(settings: &TrainSettings, done: f64) -> Self {
        match settings.resolved_penalty() {
            Penalty::Auto | Penalty::None => Self::None,
            Penalty::L1 => Self::L1,
            Penalty::Sqrt => Self::Power(0.5),
            Penalty::Tanh => Self::Tanh(settings.penalty_c),
            Penalty::Recip => Self::Recip(match done {
                // The published schedule: 0.2, 0.1, 0.05 at a tenth, a fifth and the end of 100,000 steps.
                ..0.1 => 0.2,
                ..0.2 => 0.3 - done,
                _ => 0.1 - 0.05 * (done - 0.2) / 0.8,
            }),
            Penalty::HoyerSquare => Self::FreshmanRatio(2.0),
            Penalty::Freshman => Self::Freshman(settings.penalty_p),
            Penalty::FreshmanRatio => Self::FreshmanRatio(settings.penalty_p),
            Penalty::PAnneal => {
                let annealed = ((done - 0.5).max(0.0) * 2.0 * (ANNEALINGS + 1.0)).floor().min(ANNEALINGS) / ANNEALINGS;
                match 1.0 - (1.0 - settings.penalty_p) * annealed {
                    1.0 => Self::L1,
                    p => Self::Power(p),
                }
            }
            Penalty::L0 => Self::L0,
            Penalty::L0Target => Self::L0Target(settings.target_l0),
            Penalty::L0TargetBatch => Self::L0TargetBatch(settings.target_l0),
        }
    }

    /// The penalty, given the mean of its tokens' values.
    pub fn of_mean(self, mean: f64) -> f64 {
        match self {
            Self::L0TargetBatch(target) => (mean / target - 1.0).powi(2),
            _ => mean,
        }
    }

    /// Whether it counts activities.
    pub fn counts(self) -> bool {
        matches!(self, Self::L0 | Self::L0Target(_) | Self::L0TargetBatch(_))
    }

    /// The slope of a token's penalty at one of its activities, of which it has so many, the batch so many on average.
    pub fn per_active(self, count: usize, mean: f64) -> f32 {
        let slope = match self {
            Self::L0 => 1.0,
            Self::L0Target(target) => 4.0 / target * (count as f64 - target),
            Self::L0TargetBatch(target) => 2.0 / target * (mean / target - 1.0),
            _ => 0.0,
        };
        slope as f32
    }

    /// The penalty of a token, and its slopes at `u`.
    pub fn row(self, u: &[f32], du: &mut [f32]) -> f64 {
        match self {
            Self::None => each(u, du, |_| (0.0, 0.0)),
            Self::L1 => each(u, du, |u| (u, 1.0)),
            Self::L0 | Self::L0TargetBatch(_) => each(u, du, |u| (if u > 0.0 { 1.0 } else { 0.0 }, 0.0)),
            Self::L0Target(target) => 2.0 / target * (Self::L0.row(u, du) - target).powi(2),
            Self::Power(p) => each(u, du, |u| {
                let root = (u + ROOT_EPS).powf(p);
                (root - ROOT_EPS.powf(p), p * root / (u + ROOT_EPS))
            }),
            Self::Tanh(c) => each(u, du, |u| {
                let tanh = (c * u).tanh();
                (tanh, c * (1.0 - tanh * tanh))
            }),
            Self::Recip(eps) => each(u, du, |u| (u / (u + eps), eps / ((u + eps) * (u + eps)))),
            Self::Freshman(p) => {
                let (sum, powers) = sums(u, p);
                let outer = sum.powf(p - 1.0);
                du.iter_mut().zip(u).for_each(|(d, u)| *d = (p * (outer - power(*u, p - 1.0))) as f32);
                // Rounding may leave less than nothing where one latent alone is active.
                (sum * outer - powers).max(0.0)
            }
            Self::FreshmanRatio(p) => {
                let (sum, powers) = sums(u, p);
                if powers == 0.0 {
                    return each(u, du, |_| (0.0, 0.0));
                }
                let (inner, outer) = (sum.powf(p) / powers, p / powers);
                let slope = |u: f32| outer * (sum.powf(p - 1.0) - inner * power(u, p - 1.0));
                du.iter_mut().zip(u).for_each(|(d, u)| *d = slope(*u) as f32);
                inner
            }
        }
    }
}

/// A sum over latents of a formula that gives a value and a slope.
fn each(u: &[f32], du: &mut [f32], f: impl Fn(f64) -> (f64, f64)) -> f64 {
    let one = |(u, d): (&f32, &mut f32)| {
        let (value, slope) = f(f64::from(*u));
        *d = slope as f32;
        value
    };
    u.iter().zip(du).map(one).sum()
}

/// `sum of u` and `sum of u^p`
fn sums(u: &[f32], p: f64) -> (f64, f64) {
    u.iter().fold((0.0, 0.0), |(sum, powers), u| (sum + f64::from(*u), powers + power(*u, p)))
}

/// `u^p`, quick for the powers that are usual.
fn power(u: f32, p: f64) -> f64 {
    let u = f64::from(u);
    match p {
        1.0 => u,
        2.0 => u * u,
        p => u.powf(p),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Formula; 9] = [
        Formula::None,
        Formula::L1,
        Formula::Power(0.5),
        Formula::Power(0.2),
        Formula::Tanh(4.0),
        Formula::Recip(0.1),
        Formula::Freshman(2.0),
        Formula::Freshman(3.0),
        Formula::FreshmanRatio(2.0),
    ];

    #[test]
    fn slopes_are_those_of_the_values() {
        let u = [0.3f32, 1.7, 0.02, 4.0];
        for formula in ALL.into_iter().chain([Formula::FreshmanRatio(1.5), Formula::FreshmanRatio(3.0)]) {
            let mut du = [0f32; 4];
            formula.row(&u, &mut du);
            for i in 0..4 {
                let at = |delta: f32| {
                    let mut moved = u;
                    moved[i] += delta;
                    formula.row(&moved, &mut [0f32; 4])
                };
                let step = 1e-3 * u[i];
                let slope = (at(step) - at(-step)) / (2.0 * f64::from(step));
                assert!(
                    (slope - f64::from(du[i])).abs() < 2e-3 * (1.0 + slope.abs()),
                    "{formula:?} {i}: {slope} {du:?}"
                );
            }
        }
    }

    #[test]
    fn the_published_identities_hold() {
        let value = |formula: Formula, u: &[f32]| formula.row(u, &mut vec![0f32; u.len()]);
        let one_hot = [0.0, 2.5, 0.0];
        assert!(value(Formula::Freshman(2.0), &one_hot) == 0.0 && value(Formula::FreshmanRatio(2.0), &one_hot) == 1.0);
        // n for n equal ones; without a scale; and nothing, not a number that is none, of nothing.
        let hoyer = Formula::FreshmanRatio(2.0);
        assert_eq!(value(hoyer, &[0.7; 5]), 5.0);
        assert!((value(hoyer, &[1.0, 2.0, 4.0]) - value(hoyer, &[3.0, 6.0, 12.0])).abs() < 1e-9);
        // Twice the pairs' products; of degree p.
        assert_eq!(value(Formula::Freshman(2.0), &[1.0, 2.0, 4.0]), 2.0 * (2.0 + 4.0 + 8.0));
        assert_eq!(value(Formula::Freshman(2.0), &[2.0, 4.0, 8.0]), 4.0 * 28.0);
        for formula in ALL {
            let mut du = [f32::NAN; 2];
            assert!(formula.row(&[0.0, 0.0], &mut du) == 0.0 && du.iter().all(|d| d.is_finite()), "{formula:?} {du:?}");
        }
    }

    #[test]
    fn schedules_go_as_published() {
        let of = |penalty: Penalty, done: f64| {
            Formula::at(&TrainSettings { penalty, penalty_p: 0.2, ..TrainSettings::default() }, done)
        };
        let recip = |done: f64| match of(Penalty::Recip, done) {
            Formula::Recip(eps) => eps,
            other => panic!("{other:?}"),
        };
        assert!(recip(0.0) == 0.2 && (recip(0.2) - 0.1).abs() < 1e-9 && (recip(1.0) - 0.05).abs() < 1e-9);
        assert_eq!((of(Penalty::PAnneal, 0.0), of(Penalty::PAnneal, 0.54)), (Formula::L1, Formula::L1));
        assert_eq!(of(Penalty::PAnneal, 0.999), Formula::Power(0.19999999999999996));
        let powers: Vec<f64> = (0..1000)
            .map(|i| match of(Penalty::PAnneal, f64::from(i) / 1000.0) {
                Formula::Power(p) => p,
                _ => 1.0,
            })
            .collect();
        assert!(powers.windows(2).all(|pair| pair[1] <= pair[0]));
        assert_eq!(powers.windows(2).filter(|pair| pair[1] < pair[0]).count(), 10);
    }
}
