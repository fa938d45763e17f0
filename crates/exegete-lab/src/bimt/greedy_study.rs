//! Greedy acceptance over seeds, beside its control and beside BIMT.

use exegete_base::stats::{Estimate, wilson};
use exegete_harvest::Progress;
use serde::Serialize;

use super::formula::Formula;
use super::greedy::{Built, Trial, build};
use super::jobs::run_all;
use super::numbers::{geometric_mean, mean};
use super::settings::Settings;
use super::study::{Run, of, seeds};
use super::train::Rung;
use crate::Result;

/// Greedy acceptance on a formula.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GreedyRow {
    /// The formula.
    pub task: Formula,
    /// How networks came to be: `greedy`, its control `random units`, or `BIMT`.
    pub method: &'static str,
    /// Hidden units; for BIMT all that there are.
    pub units: Estimate,
    /// Hidden layers that kept a unit.
    pub layers: Estimate,
    /// Share of the candidates that were accepted; nothing for BIMT.
    pub accepted: Option<Estimate>,
    /// Geometric mean of the test error.
    pub test_mse: Estimate,
    /// Newman's Q.
    pub q: Estimate,
    /// Ensemble index.
    pub ensemble: Estimate,
    /// The candidates of the first seed.
    pub trials: Vec<Trial>,
}

struct Found {
    built: Built,
    test_mse: f64,
    q: f64,
    ensemble: Option<f64>,
}

/// Builds networks for every formula and seed.
pub(crate) fn run(settings: &Settings, seed: u64, runs: &[Run], progress: &dyn Progress) -> Result<Vec<GreedyRow>> {
    let mut items = Vec::new();
    for formula in settings.formulas() {
        for trains in [true, false] {
            items.extend(seeds(formula, seed, settings.seeds).map(|seed| (formula, trains, seed)));
        }
    }
    let found = run_all("greedy", &items, progress, |&(formula, trains, seed), is_cancelled| {
        let data = formula.data(seed);
        let sizes = (formula.n_inputs(), formula.n_outputs());
        let limits = (settings.width, formula.published().depth - 1);
        let built = build(&data, sizes, limits, seed, trains, is_cancelled)?;
        let (test_mse, q) = (built.mse(&data.test), built.graph().partition().q);
        Some(Found { test_mse, q, ensemble: built.ensemble_index(&data.test), built })
    })?;
    let mut rows = Vec::new();
    for (items, found) in items.chunks(settings.seeds).zip(found.chunks(settings.seeds)) {
        let (task, trains, _) = items[0];
        rows.push(row(task, if trains { "greedy" } else { "random units" }, found));
        if !trains {
            rows.push(bimt_row(task, settings, &of(runs, task, Rung::L1LocalSwap)));
        }
    }
    Ok(rows)
}

fn row(task: Formula, method: &'static str, found: &[Found]) -> GreedyRow {
    let over = |f: fn(&Found) -> f64| found.iter().map(f).collect::<Vec<f64>>();
    let trials = || found.iter().flat_map(|f| &f.built.trials);
    let accepted = wilson(trials().filter(|t| t.accepted).count() as u64, trials().count() as u64);
    GreedyRow {
        task,
        method,
        units: mean(&over(|f| f.built.widths().iter().sum::<usize>() as f64)),
        layers: mean(&over(|f| f.built.widths().len() as f64)),
        accepted: Some(accepted),
        test_mse: geometric_mean(&over(|f| f.test_mse)),
        q: mean(&over(|f| f.q)),
        ensemble: mean(&found.iter().filter_map(|f| f.ensemble).collect::<Vec<_>>()),
        trials: found[0].built.trials.clone(),
    }
}

fn bimt_row(task: Formula, settings: &Settings, runs: &[&Run]) -> GreedyRow {
    let over = |f: fn(&Run) -> f64| runs.iter().map(|run| f(run)).collect::<Vec<f64>>();
    let layers = (task.published().depth - 1) as f64;
    let same = |value: f64| Estimate { value, low: value, high: value, n: runs.len() as u64 };
    GreedyRow {
        task,
        method: "BIMT",
        units: same(settings.width as f64 * layers),
        layers: same(layers),
        accepted: None,
        test_mse: geometric_mean(&over(|run| run.test_mse)),
        q: mean(&over(|run| run.q)),
        ensemble: mean(&runs.iter().filter_map(|run| run.ensemble).collect::<Vec<_>>()),
        trials: Vec::new(),
    }
}
