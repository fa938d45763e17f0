//! Settings of the study: the flags of `exegete lab bimt`.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use super::formula::Formula;
use crate::{LabError, Result};

/// Formulas to train on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// All three
    All,
    /// `((x1 + x3)^3, x2^2 + sin(pi x4))`
    Independence,
    /// `(x1^2, x1^2 + x2^2, x1^2 + x2^2 + x3^2)`
    Sharing,
    /// `sqrt((x1 - x2)^2 + (x3 - x4)^2)`
    Compositionality,
}

/// A part of the study.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// The formulas under the full method, beside the published errors
    Formulas,
    /// The ladder of ablations: none, L1, L1+local, L1+swap, L1+local+swap
    Ladder,
    /// Greedy layer-wise acceptance
    Greedy,
    /// Smoothness of scaling as a predictor of generalisation
    Smoothness,
}

/// Settings of the study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct Settings {
    /// The formula to learn
    #[arg(long, value_enum, default_value_t = Task::All)]
    pub task: Task,
    /// Parts of the study, separated by commas
    #[arg(long, value_enum, value_delimiter = ',',
        default_values_t = [Part::Formulas, Part::Ladder, Part::Greedy, Part::Smoothness])]
    pub parts: Vec<Part>,
    /// Training steps (published: 20000)
    #[arg(long, default_value_t = 20_000)]
    pub steps: usize,
    /// Seeds of each formula, counted up from the published one (plus --seed)
    #[arg(long, default_value_t = 10)]
    pub seeds: usize,
    /// Neurons of a hidden layer (published: 20)
    #[arg(long, default_value_t = 20)]
    pub width: usize,
    /// Training steps of each network of the smoothness part
    #[arg(long, default_value_t = 4000)]
    pub scaling_steps: usize,
    /// Seeds of each network of the smoothness part
    #[arg(long, default_value_t = 3)]
    pub scaling_seeds: usize,
    /// Widths of the smoothness part, ascending; the last is the one whose generalisation is predicted
    #[arg(long, value_delimiter = ',', default_values_t = [4, 6, 9, 13, 20, 30])]
    pub scaling_widths: Vec<usize>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            task: Task::All,
            parts: vec![Part::Formulas, Part::Ladder, Part::Greedy, Part::Smoothness],
            steps: 20_000,
            seeds: 10,
            width: 20,
            scaling_steps: 4000,
            scaling_seeds: 3,
            scaling_widths: vec![4, 6, 9, 13, 20, 30],
        }
    }
}

/// Most steps, seeds and neurons that a flag may ask for.
const MOST_STEPS: usize = 10_000_000;
const MOST_SEEDS: usize = 10_000;
const MOST_WIDTH: usize = 256;

impl Settings {
    /// Whether these settings make sense with a seed.
    ///
    /// # Errors
    /// [`LabError::Settings`], which names the flag.
    pub fn check(&self, seed: u64) -> Result<()> {
        within("--steps", self.steps, 4, MOST_STEPS)?;
        within("--seeds", self.seeds, 1, MOST_SEEDS)?;
        within("--width", self.width, 1, MOST_WIDTH)?;
        within("--scaling-steps", self.scaling_steps, 4, MOST_STEPS)?;
        within("--scaling-seeds", self.scaling_seeds, 1, MOST_SEEDS)?;
        self.scaling_widths.iter().try_for_each(|&width| within("--scaling-widths", width, 1, MOST_WIDTH))?;
        if self.scaling_widths.len() < 4 || !self.scaling_widths.is_sorted_by(|a, b| a < b) {
            let text = "--scaling-widths must be at least four ascending widths: three for a curve, one to predict";
            return Err(LabError::Settings(text.into()));
        }
        // Seeds of the generator have 32 bits, and those of the runs are counted up from this one.
        if seed > u64::from(u32::MAX) - 2 * MOST_SEEDS as u64 {
            return Err(LabError::Settings(format!("--seed {seed} is too large here; it may have 32 bits")));
        }
        Ok(())
    }

    /// The formulas meant by `task`.
    pub fn formulas(&self) -> Vec<Formula> {
        match self.task {
            Task::All => Formula::ALL.to_vec(),
            Task::Independence => vec![Formula::Independence],
            Task::Sharing => vec![Formula::Sharing],
            Task::Compositionality => vec![Formula::Compositionality],
        }
    }

    /// Whether a part was asked for.
    pub fn has(&self, part: Part) -> bool {
        self.parts.contains(&part)
    }
}

fn within(flag: &str, value: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&value) {
        return Ok(());
    }
    Err(LabError::Settings(format!("{flag} {value} must lie between {least} and {most}")))
}
