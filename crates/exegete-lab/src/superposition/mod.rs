//! Toy models of superposition: when features share dimensions, where in a layer they do, and what can be computed
//! there.
//!
//! - [`phases`]: two features in one dimension, over sparsity and importance; [`dimensions`]: many in few.
//! - [`probe`](mod@probe): superposition in the hidden layer of an MLP against superposition in its projection, on
//!   [`layers`] of known and of unknown truth.
//! - [`uand`] and [`widths`]: universal AND, its error against width, and one neuron for each AND beside it.
//!
//! Everything is drawn by keys ([`draws`]) and every model is trained on one thread, so a study depends on its settings
//! and seed and not on the number of threads.

pub mod dimensions;
pub mod draws;
pub mod geometry;
pub mod layers;
pub mod mlp;
pub mod phases;
pub mod probe;
mod settings;
pub mod toy;
pub mod uand;
pub mod widths;

pub use settings::Settings;

use exegete_base::stats::{Estimate, wilson};
use exegete_harvest::Progress;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{LabError, Result};
use dimensions::Level;
use layers::{Case, Training, WIDENING};
use phases::{Cell, Phase};
use toy::Task;
use uand::Errors;
use widths::Sweep;

/// Learning rate of the two-feature models, of the sweep over sparsity, and of the layers under the probe.
const RATES: [f64; 3] = [0.03, 0.01, 0.01];
/// Rows of a batch of the layers under the probe.
const PROBE_BATCH: usize = 256;

/// The phase diagram.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Phases {
    /// Points, importance by importance, density by density.
    pub cells: Vec<Cell>,
    /// Share of the points at which the trained phase is the solution of smallest expected loss.
    pub agreement: Estimate,
    /// The same where that solution is better than the others by a tenth of its loss or more.
    pub agreement_clear: Estimate,
    /// Points in each trained phase: not represented, own dimension, superposition, other.
    pub counts: [u64; 4],
}

/// All that the study found.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The settings.
    pub settings: Settings,
    /// Two features in one dimension.
    pub phases: Phases,
    /// Many features in few dimensions, from dense to sparse.
    pub dimensions: Vec<Level>,
    /// Layers under the probe.
    pub probes: Vec<Case>,
    /// Constructions of universal AND.
    pub uand: Vec<Sweep>,
}

/// Runs the study.
///
/// # Errors
/// [`LabError::Settings`] for numbers that make no sense, [`LabError::Interrupted`] when `progress` asks to stop.
pub fn run(settings: &Settings, seed: u64, progress: &dyn Progress) -> Result<Report> {
    settings.check()?;
    Ok(Report {
        seed,
        settings: settings.clone(),
        phases: phases(settings, seed, progress)?,
        dimensions: dimensions(settings, seed, progress)?,
        probes: probes(settings, seed, progress)?,
        uand: uand(settings, seed, progress)?,
    })
}

/// Maps items on all threads, in their order, telling of progress and stopping between chunks of them.
fn spread<T: Sync, R: Send>(
    progress: &dyn Progress,
    (stage, unit): (&str, &str),
    items: &[T],
    f: impl Fn(&T) -> R + Sync,
) -> Result<Vec<R>> {
    progress.begin(stage, items.len() as u64, unit, 0);
    let mut done = Vec::with_capacity(items.len());
    for chunk in items.chunks(2 * rayon::current_num_threads()) {
        if progress.is_cancelled() {
            return Err(LabError::Interrupted);
        }
        done.par_extend(chunk.par_iter().map(&f));
        progress.at(done.len() as u64, "");
    }
    progress.end(&format!("{} {unit}", done.len()));
    Ok(done)
}

fn phases(settings: &Settings, seed: u64, progress: &dyn Progress) -> Result<Phases> {
    let densities = settings.grid_densities();
    let points: Vec<(u64, f64, f64)> = (settings.grid_importances().iter())
        .flat_map(|importance| densities.iter().map(move |density| (*density, *importance)))
        .zip(0..)
        .map(|((density, importance), number)| (number, density, importance))
        .collect();
    let cells = spread(progress, ("phases", "points"), &points, |(number, density, importance)| {
        let importance_F = vec![1.0, *importance as f32];
        let task = Task { density: *density, importance_F, steps: settings.steps, batch: settings.batch, lr: RATES[0] };
        phases::train_cell(*density, *importance, &task, settings.restarts, seed, *number)
    })?;
    let share =
        |cells: &[&Cell]| wilson(cells.iter().filter(|c| c.phase == c.predicted).count() as u64, cells.len() as u64);
    let is_clear = |cell: &&Cell| {
        let mut losses = cell.solutions;
        losses.sort_by(f64::total_cmp);
        losses[1] >= 1.1 * losses[0]
    };
    let kinds = [Phase::NotRepresented, Phase::OwnDimension, Phase::Superposition, Phase::Other];
    Ok(Phases {
        agreement: share(&cells.iter().collect::<Vec<_>>()),
        agreement_clear: share(&cells.iter().filter(is_clear).collect::<Vec<_>>()),
        counts: kinds.map(|kind| cells.iter().filter(|c| c.phase == kind).count() as u64),
        cells,
    })
}

fn dimensions(settings: &Settings, seed: u64, progress: &dyn Progress) -> Result<Vec<Level>> {
    let densities: Vec<(u64, f64)> = (0..).zip(settings.sweep_densities()).collect();
    spread(progress, ("dimensions", "models"), &densities, |(number, density)| {
        let importance = |i: usize| settings.importance_decay.powi(i as i32) as f32;
        let importance_F = (0..settings.features).map(importance).collect();
        let (steps, batch) = (settings.sweep_steps, settings.sweep_batch);
        let task = Task { density: *density, importance_F, steps, batch, lr: RATES[1] };
        dimensions::train_level(settings.features, settings.hidden, &task, seed, *number)
    })
}

fn probes(settings: &Settings, seed: u64, progress: &dyn Progress) -> Result<Vec<Case>> {
    let d = settings.probe_width;
    let mut cases = layers::built(d, seed);
    // As many ANDs as half the neurons, and all there are.
    let tasks = [WIDENING * d / 2, d * (d - 1) / 2];
    let trained = spread(progress, ("probe", "layers"), &tasks, |n_ands| {
        let training = Training { n_ands: *n_ands, steps: settings.probe_steps, batch: PROBE_BATCH, lr: RATES[2] };
        layers::trained(d, training, seed)
    })?;
    for case in trained {
        cases.push(case?);
    }
    Ok(cases)
}

fn uand(settings: &Settings, seed: u64, progress: &dyn Progress) -> Result<Vec<Sweep>> {
    let inputs = settings.boolean_inputs();
    let of = |design| {
        let networks = |d: &usize| (0..settings.networks).map(|network| (*d, network)).collect::<Vec<_>>();
        let keys: Vec<(usize, u64)> = settings.widths.iter().flat_map(networks).collect();
        let stage = (format!("U-AND, {}", uand::Design::name(design)), "networks");
        let errors: Vec<Errors> = spread(progress, (&stage.0, stage.1), &keys, |(d, network)| {
            widths::measure(design, inputs, *d, settings.reads, seed, *network)
        })?;
        let of_widths = errors.chunks(settings.networks as usize).map(<[Errors]>::to_vec);
        let measured: Vec<(usize, Vec<Errors>)> = settings.widths.iter().copied().zip(of_widths).collect();
        Ok(widths::sweep(design, inputs, &measured))
    };
    settings.designs().into_iter().map(of).collect()
}
