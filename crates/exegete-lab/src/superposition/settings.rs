//! Settings of the study.

use serde::{Deserialize, Serialize};

use super::uand::Design;
use super::widths::Inputs;
use crate::{LabError, Result};

/// Settings of the study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct Settings {
    /// Points of each axis of the phase diagram
    #[arg(long, default_value_t = 16)]
    pub grid: usize,
    /// Models trained at each point of the phase diagram, of which the best is kept
    #[arg(long, default_value_t = 6)]
    pub restarts: u64,
    /// Training steps at each point of the phase diagram
    #[arg(long, default_value_t = 2000)]
    pub steps: u64,
    /// Rows of a batch in the phase diagram
    #[arg(long, default_value_t = 256)]
    pub batch: usize,
    /// Features of the sweep over sparsity
    #[arg(long, default_value_t = 80)]
    pub features: usize,
    /// Width of the narrow layer in the sweep over sparsity
    #[arg(long, default_value_t = 20)]
    pub hidden: usize,
    /// Densities in the sweep over sparsity, from 1 down to 1/20
    #[arg(long, default_value_t = 16)]
    pub densities: usize,
    /// Importance of each feature of the sweep over that of the one before it
    #[arg(long, default_value_t = 1.0)]
    pub importance_decay: f64,
    /// Training steps of each model of the sweep over sparsity
    #[arg(long, default_value_t = 3000)]
    pub sweep_steps: u64,
    /// Rows of a batch in the sweep over sparsity
    #[arg(long, default_value_t = 512)]
    pub sweep_batch: usize,
    /// Inputs and outputs of the layers under the probe, which have four times as many neurons
    #[arg(long, default_value_t = 16)]
    pub probe_width: usize,
    /// Training steps of the trained layers under the probe
    #[arg(long, default_value_t = 4000)]
    pub probe_steps: u64,
    /// Boolean features of universal AND
    #[arg(long, default_value_t = 128)]
    pub booleans: usize,
    /// Boolean features that are on
    #[arg(long, default_value_t = 4)]
    pub active: usize,
    /// Widths of universal AND, ascending
    #[arg(long, value_delimiter = ',', default_values_t = [64usize, 128, 256, 512, 1024, 2048, 4096])]
    pub widths: Vec<usize>,
    /// Networks drawn for each width
    #[arg(long, default_value_t = 10)]
    pub networks: u64,
    /// Inputs on which each network is measured
    #[arg(long, default_value_t = 64)]
    pub reads: usize,
    /// Density of the weights of the signed construction
    #[arg(long, default_value_t = 0.5)]
    pub weight_density: f64,
    /// Neurons from which a pair is read in the subset construction, on average
    #[arg(long, default_value_t = 16.0)]
    pub readers: f64,
}

impl Settings {
    /// Checks the numbers.
    ///
    /// # Errors
    /// [`LabError::Settings`], naming the flag at fault.
    pub fn check(&self) -> Result<()> {
        let steps = 1..=1_000_000u64;
        let sizes = self.widths.iter().all(|d| (16..=1 << 16).contains(d)) && (2..=64).contains(&self.widths.len());
        let ascending = self.widths.is_sorted_by(|a, b| a < b);
        let weights = self.widths.iter().max().map_or(0, |d| d.saturating_mul(self.booleans));
        let rules = [
            ((2..=64).contains(&self.grid), "--grid must be between 2 and 64"),
            ((1..=64).contains(&self.restarts), "--restarts must be between 1 and 64"),
            (steps.contains(&self.steps), "--steps must be between 1 and 1000000"),
            ((1..=1 << 16).contains(&self.batch), "--batch must be between 1 and 65536"),
            ((2..=1024).contains(&self.features), "--features must be between 2 and 1024"),
            (self.hidden >= 1 && self.hidden <= self.features, "--hidden must be between 1 and --features"),
            ((2..=64).contains(&self.densities), "--densities must be between 2 and 64"),
            (
                self.importance_decay > 0.0 && self.importance_decay <= 1.0,
                "--importance-decay must be above 0, at most 1",
            ),
            (steps.contains(&self.sweep_steps), "--sweep-steps must be between 1 and 1000000"),
            ((1..=1 << 16).contains(&self.sweep_batch), "--sweep-batch must be between 1 and 65536"),
            ((9..=64).contains(&self.probe_width), "--probe-width must be between 9 and 64"),
            (steps.contains(&self.probe_steps), "--probe-steps must be between 1 and 1000000"),
            ((6..=4096).contains(&self.booleans), "--booleans must be between 6 and 4096"),
            (
                (2..=64).contains(&self.active) && self.active + 2 <= self.booleans,
                "--active must be between 2 and 64, and at least 2 below --booleans",
            ),
            (sizes && ascending, "--widths must be 2 to 64 ascending widths between 16 and 65536"),
            (weights <= 1 << 28, "--widths times --booleans must not pass 2^28 weights"),
            ((2..=1000).contains(&self.networks), "--networks must be between 2 and 1000"),
            ((1..=1 << 16).contains(&self.reads), "--reads must be between 1 and 65536"),
            (self.weight_density > 0.0 && self.weight_density <= 1.0, "--weight-density must be above 0, at most 1"),
            (self.readers >= 1.0 && self.readers <= 4096.0, "--readers must be between 1 and 4096"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, rule)) => Err(LabError::Settings((*rule).into())),
            None => Ok(()),
        }
    }

    /// Densities of the phase diagram: middles of cells between 1 and 1/100 that are equal in ratio.
    pub fn grid_densities(&self) -> Vec<f64> {
        middles(&self.grid_density_edges())
    }

    /// Edges of those cells.
    pub fn grid_density_edges(&self) -> Vec<f64> {
        ratios(1.0, 0.01, self.grid + 1)
    }

    /// Importances of the extra feature: middles of cells between 1/10 and 10 that are equal in ratio.
    pub fn grid_importances(&self) -> Vec<f64> {
        middles(&self.grid_importance_edges())
    }

    /// Edges of those cells.
    pub fn grid_importance_edges(&self) -> Vec<f64> {
        ratios(0.1, 10.0, self.grid + 1)
    }

    /// Densities of the sweep, from 1 to 1/20 in equal ratios.
    pub fn sweep_densities(&self) -> Vec<f64> {
        ratios(1.0, 0.05, self.densities)
    }

    /// The two constructions of universal AND.
    pub fn designs(&self) -> [Design; 2] {
        [Design::Signed { q: self.weight_density }, Design::Subset { c: self.readers.sqrt() }]
    }

    /// Inputs of universal AND.
    pub fn boolean_inputs(&self) -> Inputs {
        Inputs { m: self.booleans, active: self.active }
    }
}

/// Geometric means of neighbours.
fn middles(edges: &[f64]) -> Vec<f64> {
    edges.windows(2).map(|pair| (pair[0] * pair[1]).sqrt()).collect()
}

/// `n` numbers from `from` to `to` in equal ratios.
fn ratios(from: f64, to: f64, n: usize) -> Vec<f64> {
    (0..n).map(|i| from * (to / from).powf(i as f64 / (n - 1) as f64)).collect()
}
