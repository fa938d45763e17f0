//! The study: which networks are trained, and what is told of them.

use exegete_base::stats::Estimate;
use exegete_harvest::Progress;
use serde::Serialize;

use super::cost::mean_length;
use super::ensemble::ensemble_index;
use super::formula::{Formula, SAMPLES};
use super::graph::Graph;
use super::greedy_study::{self, GreedyRow};
use super::jobs::run_all;
use super::numbers::{geometric_mean, mean};
use super::scaling::{self, ScalingRow, SmoothnessRow};
use super::settings::{Part, Settings};
use super::train::{Plan, Rung, Trained, train};
use crate::Result;

/// What the study found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The settings.
    pub settings: Settings,
    /// What `--seed` added to the published seeds.
    pub seed: u64,
    /// Samples of each training, validation and test set.
    pub samples: usize,
    /// The formulas under the full method.
    pub formulas: Vec<FormulaRow>,
    /// The ladder of ablations.
    pub ladder: Vec<LadderRow>,
    /// Greedy acceptance.
    pub greedy: Vec<GreedyRow>,
    /// Smoothness as a predictor.
    pub smoothness: Vec<SmoothnessRow>,
    /// Every network of the smoothness part, seeds taken together.
    pub scaling: Vec<ScalingRow>,
    /// Every network of the formulas and the ladder.
    pub runs: Vec<Run>,
    /// The networks of the first seed, for figures.
    #[serde(skip)]
    pub shown: Vec<Shown>,
}

/// A formula under the full method.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FormulaRow {
    /// The formula.
    pub task: Formula,
    /// Layers of weights.
    pub depth: usize,
    /// The first seed; without `--seed` the authors' own.
    pub first_seed: u32,
    /// Test error of the first seed.
    pub first_test_mse: f64,
    /// Geometric mean of the test error over seeds.
    pub test_mse: Estimate,
    /// Test error of the authors' one run.
    pub published_mse: f64,
    /// Seeds whose error is at most twice the published one.
    pub within_twice: usize,
}

/// A rung of the ladder, over seeds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LadderRow {
    /// The formula.
    pub task: Formula,
    /// The rung.
    pub rung: Rung,
    /// Newman's Q.
    pub q: Estimate,
    /// Its control: Q of the same edges, rewired at random with every neuron's number of edges kept.
    pub q_rewired: Estimate,
    /// Q less its control, seed by seed: the part that numbers of edges do not explain.
    pub q_excess: Estimate,
    /// Q less that of rung `none`, seed by seed.
    pub q_gain: Estimate,
    /// Mean distance bridged by the weights.
    pub mean_length: Estimate,
    /// Ensemble index.
    pub ensemble: Estimate,
    /// Geometric mean of the test error.
    pub test_mse: Estimate,
}

/// One trained network.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// The formula.
    pub task: Formula,
    /// The rung.
    pub rung: Rung,
    /// The seed.
    pub seed: u32,
    /// Error on the training set.
    pub train_mse: f64,
    /// Error on the test set.
    pub test_mse: f64,
    /// Connection cost.
    pub cost: f64,
    /// Newman's Q.
    pub q: f64,
    /// Q of the same edges, rewired at random.
    pub q_rewired: f64,
    /// Communities with an edge.
    pub communities: usize,
    /// Edges above the threshold.
    pub edges: usize,
    /// Mean distance bridged by the weights.
    pub mean_length: f64,
    /// Ensemble index, where there are two hidden layers.
    pub ensemble: Option<f64>,
    /// Swaps made.
    pub swaps: usize,
}

/// A network to draw.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// The formula.
    pub task: Formula,
    /// The rung.
    pub rung: Rung,
    /// The training.
    pub trained: Trained,
}

/// Runs the parts that were asked for.
///
/// # Errors
/// [`crate::LabError::Settings`] for settings without sense, [`crate::LabError::Interrupted`] if the user wants to stop.
pub fn run(settings: &Settings, seed: u64, progress: &dyn Progress) -> Result<Report> {
    settings.check(seed)?;
    let mut report = Report {
        settings: settings.clone(),
        seed,
        samples: SAMPLES,
        formulas: Vec::new(),
        ladder: Vec::new(),
        greedy: Vec::new(),
        smoothness: Vec::new(),
        scaling: Vec::new(),
        runs: Vec::new(),
        shown: Vec::new(),
    };
    let has = |part| settings.has(part);
    let rungs = if has(Part::Ladder) { &Rung::ALL[..] } else { &Rung::ALL[4..] };
    if has(Part::Formulas) || has(Part::Ladder) || has(Part::Greedy) {
        train_all(settings, seed, rungs, progress, &mut report)?;
    }
    let formulas = settings.formulas();
    if has(Part::Formulas) {
        report.formulas = formulas.iter().map(|&f| formula_row(f, &report.runs)).collect();
    }
    if has(Part::Ladder) {
        let rows = formulas.iter().flat_map(|&f| Rung::ALL.map(|rung| (f, rung)));
        report.ladder = rows.map(|(f, rung)| ladder_row(f, rung, &report.runs)).collect();
    }
    if has(Part::Greedy) {
        report.greedy = greedy_study::run(settings, seed, &report.runs, progress)?;
    }
    if has(Part::Smoothness) {
        (report.smoothness, report.scaling) = scaling::run(settings, seed, progress)?;
    }
    Ok(report)
}

/// The seeds of a formula: counted up from the published one.
pub(crate) fn seeds(formula: Formula, seed: u64, n: usize) -> impl Iterator<Item = u32> {
    // `Settings::check` leaves room above.
    let first = formula.published().seed + seed as u32;
    (0..n as u32).map(move |i| first + i)
}

fn train_all(
    settings: &Settings,
    seed: u64,
    rungs: &[Rung],
    progress: &dyn Progress,
    report: &mut Report,
) -> Result<()> {
    let mut plans = Vec::new();
    for formula in settings.formulas() {
        for seed in seeds(formula, seed, settings.seeds) {
            let plan = Plan::published(formula, settings.width, settings.steps, seed);
            plans.extend(rungs.iter().map(|&rung| Plan { rung, ..plan }));
        }
    }
    let trained = run_all("formulas", &plans, progress, |plan, is_cancelled| {
        let data = plan.formula.data(plan.seed);
        let trained = train(plan, &data, is_cancelled)?;
        Some((measure(plan, &trained, &data.test), trained))
    })?;
    for (plan, (run, trained)) in plans.iter().zip(trained) {
        report.runs.push(run);
        if seeds(plan.formula, seed, 1).any(|first| first == plan.seed) {
            report.shown.push(Shown { task: plan.formula, rung: plan.rung, trained });
        }
    }
    Ok(())
}

fn measure(plan: &Plan, trained: &Trained, test: &super::formula::Samples) -> Run {
    let net = &trained.net;
    let last = trained.curve[trained.curve.len() - 1];
    let graph = Graph::of_net(net);
    let partition = graph.partition();
    Run {
        task: plan.formula,
        rung: plan.rung,
        seed: plan.seed,
        train_mse: last.train_mse,
        test_mse: last.test_mse,
        cost: last.cost,
        q: partition.q,
        q_rewired: Graph::rewired(net, plan.seed).partition().q,
        communities: partition.n_communities,
        edges: graph.edges().len(),
        mean_length: mean_length(net),
        ensemble: ensemble_index(net, test),
        swaps: trained.swaps,
    }
}

/// The runs of a formula on a rung, in the order of their seeds.
pub(crate) fn of(runs: &[Run], task: Formula, rung: Rung) -> Vec<&Run> {
    runs.iter().filter(|run| run.task == task && run.rung == rung).collect()
}

fn formula_row(task: Formula, runs: &[Run]) -> FormulaRow {
    let runs = of(runs, task, Rung::L1LocalSwap);
    let published = task.published();
    let errors: Vec<f64> = runs.iter().map(|run| run.test_mse).collect();
    FormulaRow {
        task,
        depth: published.depth,
        first_seed: runs[0].seed,
        first_test_mse: errors[0],
        test_mse: geometric_mean(&errors),
        published_mse: published.test_mse,
        within_twice: errors.iter().filter(|e| **e <= 2.0 * published.test_mse).count(),
    }
}

fn ladder_row(task: Formula, rung: Rung, all: &[Run]) -> LadderRow {
    let (runs, none) = (of(all, task, rung), of(all, task, Rung::None));
    let over = |f: fn(&Run) -> f64| mean(&runs.iter().map(|run| f(run)).collect::<Vec<_>>());
    LadderRow {
        task,
        rung,
        q: over(|run| run.q),
        q_rewired: over(|run| run.q_rewired),
        q_excess: over(|run| run.q - run.q_rewired),
        q_gain: mean(&runs.iter().zip(none).map(|(run, none)| run.q - none.q).collect::<Vec<_>>()),
        mean_length: over(|run| run.mean_length),
        ensemble: mean(&runs.iter().filter_map(|run| run.ensemble).collect::<Vec<_>>()),
        test_mse: geometric_mean(&runs.iter().map(|run| run.test_mse).collect::<Vec<_>>()),
    }
}
