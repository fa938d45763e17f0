//! Work on a run, as it tells of itself: `jobs/KIND.json`, and `jobs/KIND.cancel`, by which it is asked to stop.
//!
//! `{"kind", "stage", "done", "total", "unit", "started", "updated", "pid", "state"}`: times in seconds since 1970, state one of
//! `running`, `finished`, `cancelled`, `failed`. Written beside and renamed, every two seconds while something moves, and every
//! ten while nothing does, for as long as the process lives. These files are no parts of the run: what they say is of the last
//! time, and losing them loses nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

const EVERY: Duration = Duration::from_secs(2);
/// Time without a word after which it is told that the work is alive: some of it has no steps.
const BEAT: Duration = Duration::from_secs(10);
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

/// Tells of a job, and that it is alive, until it is dropped.
pub struct JobWriter {
    told: Arc<Mutex<Told>>,
    cancel: PathBuf,
    looked: Instant,
    is_cancelled: bool,
    /// What the thread that tells of life waits on: it ends with this.
    _alive: Sender<()>,
}

/// What is told, and when it was told last.
struct Told {
    path: PathBuf,
    file: JobFile,
    at: Instant,
}

impl JobWriter {
    /// Begins to tell of work on the run in `dir`; a wish to stop that is still there was for work before it.
    pub fn new(dir: &Path, kind: &str) -> Self {
        Self::beating(dir, kind, BEAT)
    }

    fn beating(dir: &Path, kind: &str, beat: Duration) -> Self {
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
        let mut told = Told { path, file, at: began };
        told.tell();
        let told = Arc::new(Mutex::new(told));
        let (_alive, is_over) = channel();
        let of = told.clone();
        // Without this thread the work goes on all the same, and is told of at its steps.
        let _ = thread::Builder::new().name("job".into()).spawn(move || {
            while is_over.recv_timeout(beat) == Err(RecvTimeoutError::Timeout) {
                let mut told = lock(&of);
                if told.at.elapsed() >= beat {
                    told.tell();
                }
            }
        });
        Self { told, cancel, looked: began, is_cancelled: false, _alive }
    }

    /// A stage begins.
    pub fn begin(&mut self, stage: &str, total: u64, unit: &str, done: u64) {
        let mut told = lock(&self.told);
        (told.file.stage, told.file.unit) = (stage.to_owned(), unit.to_owned());
        (told.file.total, told.file.done) = (Some(total), done);
        told.file.started = seconds();
        told.tell();
    }

    /// So much of the stage is done.
    pub fn at(&mut self, done: u64) {
        let mut told = lock(&self.told);
        told.file.done = done;
        if told.at.elapsed() >= EVERY {
            told.tell();
        }
    }

    /// It is over, one way or another.
    pub fn end(self, state: JobState) {
        let mut told = lock(&self.told);
        told.file.state = state;
        let _ = fs::remove_file(&self.cancel);
        told.tell();
    }

    /// Whether it was asked to stop.
    pub fn is_cancelled(&mut self) -> bool {
        if !self.is_cancelled && self.looked.elapsed() >= LOOK {
            self.looked = Instant::now();
            self.is_cancelled = self.cancel.exists();
        }
        self.is_cancelled
    }
}

impl Told {
    /// Writes how it stands. Where that fails, the work goes on untold.
    fn tell(&mut self) {
        (self.at, self.file.updated) = (Instant::now(), seconds());
        let beside = self.path.with_extension("json.part");
        let write = || {
            fs::write(&beside, serde_json::to_vec(&self.file)?)?;
            fs::rename(&beside, &self.path)
        };
        let _ = write();
    }
}

/// A job of which something panicked while it was told of is told of as it was.
fn lock(told: &Mutex<Told>) -> MutexGuard<'_, Told> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
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

    #[test]
    fn a_job_without_steps_tells_that_it_lives_until_it_is_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jobs/harvest.json");
        let beat = Duration::from_millis(20);
        let is_told_again = |secs: f64| {
            fs::remove_file(&path).unwrap();
            let began = Instant::now();
            while !path.exists() && began.elapsed().as_secs_f64() < secs {
                thread::sleep(beat);
            }
            path.exists()
        };
        let mut job = JobWriter::beating(dir.path(), "harvest", beat);
        job.begin("correlations", 100, "latents", 7);
        assert!(is_told_again(20.0) && is_told_again(20.0), "it goes on telling");
        let told: JobFile = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((told.stage.as_str(), told.done, told.state), ("correlations", 7, JobState::Running));
        job.end(JobState::Finished);
        thread::sleep(5 * beat);
        let told: JobFile = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        assert!(told.state == JobState::Finished && !is_told_again(0.2), "what is over is told once");
    }
}
