//! What the page of running jobs shows and `/api/jobs` sends.

use serde::{Deserialize, Serialize};

/// Jobs of a run.
#[derive(Debug, Clone, Default, Serialize)]
pub struct JobList {
    /// The jobs by name.
    pub jobs: Vec<Job>,
    /// Files in the run's folder of jobs that cannot be read as one.
    pub unreadable: Vec<String>,
}

/// A job of a run.
#[derive(Debug, Clone, Serialize)]
pub struct Job {
    /// Its name.
    pub name: String,
    /// What it does: `harvest`, `train`, `explain`.
    pub kind: String,
    /// The stage that it is at.
    pub stage: String,
    /// What is done of the stage.
    pub done: u64,
    /// All there is to do; null where that is not known.
    pub total: Option<u64>,
    /// What is counted.
    pub unit: String,
    /// How it stands.
    pub state: JobState,
    /// Seconds since it began.
    pub running_secs: u64,
    /// Seconds since it was last heard of.
    pub heard_secs_ago: u64,
    /// What is done in a second, over the time of the stage; null where nothing is.
    pub rate: Option<f64>,
    /// Seconds that the stage will take at this rate; null where that is not known.
    pub left_secs: Option<u64>,
    /// Whether it was asked to stop.
    pub is_cancelled: bool,
}

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JobState {
    /// It runs.
    Running,
    /// It says that it runs, and has not been heard of for a while.
    Quiet,
    /// It is finished.
    Finished,
    /// It was stopped, and can go on.
    Cancelled,
    /// It failed.
    Failed,
}
