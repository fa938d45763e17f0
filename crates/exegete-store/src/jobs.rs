//! Work on a run, as it tells of itself: `jobs/KIND.json`, and `jobs/KIND.cancel`, by which it is asked to stop.
//!
//! `{"kind", "stage", "done", "total", "unit", "started", "updated", "pid", "state"}`: times in seconds since 1970, state one of
//! `running`, `finished`, `cancelled`, `failed`. Written beside and renamed, every two seconds while something moves. These files
//! are no parts of the run: what they say is of the last time, and losing them loses nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

const EVERY: Duration = Duration::from_secs(2);
/// How often it is looked whether it is to stop.
const LOOK: Duration = Duration::from_millis(300);

/// How a job stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It runs.
    Running,
    /// It is finished.
    Finished,
    /// It was stopped, and can go on.
    Cancelled,
    /// It failed.
    Failed,
}

/// What a job writes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct JobFile {
    /// What it does: `harvest`, `train`, `explain`.
    pub kind: String,
    /// The stage that it is at.
    #[serde(default)]
    pub stage: String,
    /// What is done of the stage.
    #[serde(default)]
    pub done: u64,
    /// All there is to do; none where that is not known.
    #[serde(default)]
    pub total: Option<u64>,
    /// What is counted.
    #[serde(default)]
    pub unit: String,
    /// When the stage began, in seconds since 1970.
    pub started: u64,
    /// When this was written.
    pub updated: u64,
    /// Its process; 0 where that is not known.
    #[serde(default)]
    pub pid: u32,
    /// How it stands.
    pub state: JobState,
}

/// Tells of a job.
pub struct JobWriter {
    path: PathBuf,
    cancel: PathBuf,
    file: JobFile,
    told: Instant,
    looked: Instant,
    is_cancelled: bool,
}

impl JobWriter {
    /// Begins to tell of work on the run in `dir`; a wish to stop that is still there was for work before it.
    pub fn new(dir: &Path, kind: &str) -> Self {
        let at = |end: &str| dir.join("jobs").join(format!("{kind}.{end}"));
        let (path, cancel) = (at("json"), at("cancel"));
        // Made here and never again: a run that is taken back must not come back as a folder.
        let _ = fs::create_dir_all(dir.join("jobs"));
        let _ = fs::remove_file(&cancel);
        let (now, kind) = (seconds(), kind.to_owned());
        let (stage, unit) = (String::new(), String::new());
        let state = JobState::Running;
        let file = JobFile {
            kind,
            stage,
            done: 0,
            total: None,
            unit,
            started: now,
            updated: now,
            pid: std::process::id(),
            state,
        };
        let began = Instant::now();
        let mut writer = Self { path, cancel, file, told: began, looked: began, is_cancelled: false };
        writer.tell();
        writer
    }

    /// A stage begins.
    pub fn begin(&mut self, stage: &str, total: u64, unit: &str, done: u64) {
        (self.file.stage, self.file.unit) = (stage.to_owned(), unit.to_owned());
        (self.file.total, self.file.done) = (Some(total), done);
        self.file.started = seconds();
        self.tell();
    }

    /// So much of the stage is done.
    pub fn at(&mut self, done: u64) {
        self.file.done = done;
        if self.told.elapsed() >= EVERY {
            self.tell();
        }
    }

    /// It is over, one way or another.
    pub fn end(mut self, state: JobState) {
        self.file.state = state;
        let _ = fs::remove_file(&self.cancel);
        self.tell();
    }

    /// Whether it was asked to stop.
    pub fn is_cancelled(&mut self) -> bool {
        if !self.is_cancelled && self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.is_cancelled = self.cancel.exists();
        }
        self.is_cancelled
    }

    /// Writes how it stands. Where that fails, the work goes on untold.
    fn tell(&mut self) {
        (self.told, self.file.updated) = (Instant::now(), seconds());
        let beside = self.path.with_extension("json.part");
        let write = || {
            fs::write(&beside, serde_json::to_vec(&self.file)?)?;
            fs::rename(&beside, &self.path)
        };
        let _ = write();
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_tells_how_it_stands_and_hears_when_it_is_to_stop() {
        let dir = tempfile::tempdir().unwrap();
        let read = || -> serde_json::Value {
            serde_json::from_slice(&fs::read(dir.path().join("jobs/harvest.json")).unwrap()).unwrap()
        };
        fs::create_dir(dir.path().join("jobs")).unwrap();
        fs::write(dir.path().join("jobs/harvest.cancel"), "").unwrap();
        let mut job = JobWriter::new(dir.path(), "harvest");
        job.begin("tokens", 100, "bytes", 7);
        let told = read();
        assert_eq!((&told["stage"], &told["done"], &told["state"]), (&"tokens".into(), &7.into(), &"running".into()));
        std::thread::sleep(LOOK);
        assert!(!job.is_cancelled(), "the wish was for the work before");
        fs::write(dir.path().join("jobs/harvest.cancel"), "").unwrap();
        std::thread::sleep(LOOK);
        assert!(job.is_cancelled());
        job.end(JobState::Cancelled);
        assert_eq!(read()["state"], "cancelled");
        assert!(!dir.path().join("jobs/harvest.cancel").exists());
    }
}
