//! Smoothness of scaling: does a smooth curve of loss over compute predict that an architecture generalises?
//!
//! An architecture is a depth with a penalty. Its curve is log10 of the validation error (geometric mean over seeds) over
//! log10 of the compute (parameters times steps), at all widths but the last. Its roughness is the mean magnitude of
//! the curve's second differences, `y1 - 2 y2 + y3` where points are evenly spaced, and in general twice the distance of
//! `y2` from the chord between its neighbours: in decades of loss, whatever range of compute the widths span. (Divided
//! differences would make every architecture rough whose compute grows slowly with width.) What is to be predicted is
//! the test error at the last width, which the curve has not seen. Spearman's correlation of the two is positive where
//! smooth architectures generalise. Its controls are random pairings, and a plainer predictor: the last loss of the
//! curve itself.

use exegete_base::stats::Estimate;
use exegete_harvest::Progress;
use serde::Serialize;

use super::formula::Formula;
use super::jobs::run_all;
use super::net::Net;
use super::numbers::{geometric_mean, permutation_p, ranks, spearman};
use super::settings::Settings;
use super::study::seeds;
use super::train::{Plan, Rung, train};
use crate::Result;

/// Depths (layers of weights) of the architectures.
pub const DEPTHS: [usize; 4] = [2, 3, 4, 5];
/// Penalties of the architectures.
pub const RUNGS: [Rung; 3] = [Rung::None, Rung::L1, Rung::L1LocalSwap];

/// An architecture at one width, over seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ScalingRow {
    /// The formula.
    pub task: Formula,
    /// Layers of weights.
    pub depth: usize,
    /// The penalty.
    pub rung: Rung,
    /// Neurons of a hidden layer.
    pub width: usize,
    /// Parameters times steps.
    pub compute: f64,
    /// Error on the validation set.
    pub valid_mse: Estimate,
    /// Error on the test set.
    pub test_mse: Estimate,
}

/// Smoothness as a predictor on a formula, or on all of them by ranks within each.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SmoothnessRow {
    /// The formula's name, or `all`.
    pub task: String,
    /// Spearman's correlation of roughness with the test error at the last width; n is the number of architectures.
    pub roughness: Estimate,
    /// Share of random pairings that correlate as strongly.
    pub permutation_p: f64,
    /// The same correlation of the last loss of the curve: what a plainer predictor reaches.
    pub last_loss: Estimate,
    /// Roughness and test error of each architecture.
    pub points: Vec<(f64, f64)>,
}

/// Mean magnitude of the second differences of a curve of at least three points, ascending in x.
pub fn roughness(curve: &[(f64, f64)]) -> f64 {
    let bends = curve.windows(3).map(|p| {
        let share = (p[1].0 - p[0].0) / (p[2].0 - p[0].0);
        2.0 * (p[1].1 - (1.0 - share) * p[0].1 - share * p[2].1).abs()
    });
    bends.sum::<f64>() / (curve.len() - 2) as f64
}

pub(crate) fn run(
    settings: &Settings,
    seed: u64,
    progress: &dyn Progress,
) -> Result<(Vec<SmoothnessRow>, Vec<ScalingRow>)> {
    let mut plans = Vec::new();
    for formula in settings.formulas() {
        for (depth, rung) in DEPTHS.iter().flat_map(|&depth| RUNGS.map(|rung| (depth, rung))) {
            for &width in &settings.scaling_widths {
                plans.extend(seeds(formula, seed, settings.scaling_seeds).map(|seed| Plan {
                    formula,
                    rung,
                    width,
                    depth,
                    steps: settings.scaling_steps,
                    seed,
                }));
            }
        }
    }
    let errors = run_all("smoothness", &plans, progress, |plan, is_cancelled| {
        let data = plan.formula.data(plan.seed);
        let net = train(plan, &data, is_cancelled)?.net;
        Some((net.mse(&data.valid), net.mse(&data.test)))
    })?;
    let n = settings.scaling_seeds;
    let rows: Vec<ScalingRow> = plans.chunks(n).zip(errors.chunks(n)).map(|(p, e)| scaling_row(&p[0], e)).collect();
    let mut found: Vec<(SmoothnessRow, Vec<f64>)> = Vec::new();
    for formula in settings.formulas() {
        let of_task: Vec<&ScalingRow> = rows.iter().filter(|row| row.task == formula).collect();
        found.push(smoothness(formula.name(), &of_task, settings.scaling_widths.len()));
    }
    if found.len() > 1 {
        found.push(pooled(&found));
    }
    Ok((found.into_iter().map(|(row, _)| row).collect(), rows))
}

fn scaling_row(plan: &Plan, errors: &[(f64, f64)]) -> ScalingRow {
    let parameters = Net::new(&plan.shape(), 0).params.len();
    ScalingRow {
        task: plan.formula,
        depth: plan.depth,
        rung: plan.rung,
        width: plan.width,
        compute: parameters as f64 * plan.steps as f64,
        valid_mse: geometric_mean(&errors.iter().map(|e| e.0).collect::<Vec<_>>()),
        test_mse: geometric_mean(&errors.iter().map(|e| e.1).collect::<Vec<_>>()),
    }
}

/// The row of a formula, and the last losses of its curves.
fn smoothness(task: &str, rows: &[&ScalingRow], n_widths: usize) -> (SmoothnessRow, Vec<f64>) {
    let (mut points, mut last_losses) = (Vec::new(), Vec::new());
    for architecture in rows.chunks(n_widths) {
        let (curve, largest) = architecture.split_at(n_widths - 1);
        let curve: Vec<_> = curve.iter().map(|row| (row.compute.log10(), row.valid_mse.value.log10())).collect();
        points.push((roughness(&curve), largest[0].test_mse.value));
        last_losses.push(curve[curve.len() - 1].1);
    }
    (correlate(task, points, &last_losses), last_losses)
}

fn correlate(task: &str, points: Vec<(f64, f64)>, last_losses: &[f64]) -> SmoothnessRow {
    let (rough, errors): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
    SmoothnessRow {
        task: task.into(),
        roughness: spearman(&rough, &errors),
        permutation_p: permutation_p(&rough, &errors),
        last_loss: spearman(last_losses, &errors),
        points,
    }
}

/// All formulas together: values are replaced by their ranks within a formula, so that no formula is simply harder.
fn pooled(rows: &[(SmoothnessRow, Vec<f64>)]) -> (SmoothnessRow, Vec<f64>) {
    let (mut points, mut last_losses) = (Vec::new(), Vec::new());
    for (row, losses) in rows {
        let (rough, errors): (Vec<f64>, Vec<f64>) = row.points.iter().copied().unzip();
        points.extend(ranks(&rough).into_iter().zip(ranks(&errors)));
        last_losses.extend(ranks(losses));
    }
    (correlate("all", points, &last_losses), last_losses)
}
