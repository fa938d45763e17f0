//! What the page of a training shows and `/api/training` sends.

use std::ops::Range;

use exegete_base::stats::Estimate;
use serde::Serialize;

/// Dictionaries that are trained, or were.
#[derive(Debug, Clone, Serialize)]
pub struct TrainingView {
    /// The model's name.
    pub model: Option<String>,
    /// How the training stands.
    pub progress: Progress,
    /// Seconds since anything was written.
    pub written_secs_ago: Option<u64>,
    /// Files of activations that are there, which come before the first step.
    pub activation_parts: usize,
    /// Number of dictionaries of the run.
    pub total: usize,
    /// Those of them that are finished.
    pub finished: usize,
    /// Number of those before the first of this view.
    pub first: usize,
    /// Dictionaries of this view.
    pub dictionaries: Vec<TrainedDictionary>,
    /// Those of them that are drawn, from the first to before the last.
    pub drawn: Range<usize>,
    /// Steps of the curves: each the middle of `steps_a_point` logged ones.
    pub steps: Vec<f64>,
    /// Logged steps whose mean a point of a curve is.
    pub steps_a_point: usize,
}

/// How a training stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Progress {
    /// Nothing was measured yet.
    Waiting,
    /// Something was written lately.
    Running,
    /// It is not finished, and nothing was written for a while.
    Quiet,
    /// All dictionaries are finished.
    Finished,
}

/// A dictionary that is trained, or was.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TrainedDictionary {
    /// Its name in the grid.
    pub name: String,
    /// Where it lies in the run.
    pub path: String,
    /// Its activation, and its shape where it is no autoencoder.
    pub kind: String,
    /// Number of latents, of all layers.
    pub latents: Option<u64>,
    /// Steps that are known to be done.
    pub step: Option<u64>,
    /// Steps that there are to be.
    pub planned: Option<u64>,
    /// What the last logged step measured on its batch.
    pub last: Option<LoggedStep>,
    /// What came out of it.
    pub result: Option<TrainingResult>,
    /// Why its figures are not here.
    pub problem: Option<String>,
    /// Its curves, for those of the view that are drawn.
    pub curves: Option<TrainingCurves>,
    /// How often its latents fire, for those of the view that are drawn.
    pub density: Option<Density>,
}

/// A logged step.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LoggedStep {
    /// Its number.
    pub step: u64,
    /// Whole loss.
    pub loss: f32,
    /// Fraction of the batch's variance unexplained.
    pub fvu: f32,
    /// Mean number of active latents.
    pub l0: f32,
    /// Latents that counted as dead.
    pub dead: u64,
}

/// What came out of a training, on documents that were held out of it.
#[derive(Debug, Clone, Serialize)]
pub struct TrainingResult {
    /// Fraction of variance unexplained.
    pub fvu: Option<Estimate>,
    /// Mean number of active latents.
    pub l0: Option<f64>,
    /// Latents that were never active.
    pub silent: Option<u64>,
    /// What it was measured on.
    pub measured_on: String,
}

/// Curves over the view's steps; null where a dictionary has no step.
#[derive(Debug, Clone, Default, Serialize)]
pub struct TrainingCurves {
    /// Whole loss.
    pub loss: Vec<f64>,
    /// Fraction of the batch's variance unexplained.
    pub fvu: Vec<f64>,
    /// Mean number of active latents.
    pub l0: Vec<f64>,
    /// The penalty's weight; null where there is no penalty.
    pub sparsity: Vec<f64>,
    /// Latents that counted as dead.
    pub dead: Vec<f64>,
}

/// How often latents fired in the last stretch of steps.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Density {
    /// Steps that were done when it ended.
    pub step: u64,
    /// Its tokens.
    pub tokens: u64,
    /// Latents that fired on none of them.
    pub silent: u64,
    /// The others, by the share of the tokens on which they fired.
    pub bins: Vec<DensityBin>,
}

/// A bin of firing rates.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct DensityBin {
    /// Lower edge, as a share of tokens.
    pub low: f64,
    /// Upper edge.
    pub high: f64,
    /// Latents in it.
    pub latents: u64,
}
