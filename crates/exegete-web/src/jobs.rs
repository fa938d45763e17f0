//! Jobs of a run, as they tell of themselves in `jobs/*.json` (docs/dashboards.md), and asking one to stop.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use exegete_store::jobs::{JobFile, JobState as Told};

use crate::wire::{Job, JobList, JobState};
use crate::{Result, WebError};

const DIR: &str = "jobs";
/// Seconds without a word after which a job counts as quiet.
const QUIET_SECS: u64 = 90;
/// Most files that are read, and most bytes of each: a folder is no reason to read without end.
const MOST_FILES: usize = 200;
const MOST_BYTES: u64 = 64 << 10;

/// Whether a run has a folder of jobs.
pub(crate) fn are_there(run: &Path) -> bool {
    run.join(DIR).is_dir()
}

/// The jobs of a run, by name.
pub(crate) fn list(run: &Path) -> JobList {
    let mut list = JobList::default();
    for name in names(run) {
        match read(run, &name) {
            Some(job) => list.jobs.push(job),
            None => list.unreadable.push(name),
        }
    }
    list
}

/// Asks a job to stop; `None` if there is none of this name. It stops when it looks next.
///
/// # Errors
/// [`WebError::Unwritable`] where nothing can be written to the run.
pub(crate) fn cancel(run: &Path, name: &str) -> Result<Option<Job>> {
    // Only a name that is there is made into a path.
    let Some(name) = names(run).into_iter().find(|there| there == name) else { return Ok(None) };
    let path = run.join(DIR).join(format!("{name}.cancel"));
    std::fs::write(&path, b"").map_err(|error| WebError::Unwritable { reason: error.to_string() })?;
    Ok(read(run, &name))
}

fn names(run: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(run.join(DIR)).into_iter().flatten().flatten();
    let name = |entry: std::fs::DirEntry| Some(entry.file_name().to_str()?.strip_suffix(".json")?.to_owned());
    let mut names: Vec<String> = entries.take(MOST_FILES).filter_map(name).filter(|name| !name.is_empty()).collect();
    names.sort();
    names
}

fn read(run: &Path, name: &str) -> Option<Job> {
    let path = run.join(DIR).join(format!("{name}.json"));
    let is_small = std::fs::metadata(&path).is_ok_and(|file| file.is_file() && file.len() <= MOST_BYTES);
    let file: JobFile = is_small.then(|| serde_json::from_slice(&std::fs::read(&path).ok()?).ok())??;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let heard_secs_ago = now.saturating_sub(file.updated);
    let is_quiet = file.state == Told::Running && (heard_secs_ago >= QUIET_SECS || is_gone(file.pid));
    let running_secs = file.updated.saturating_sub(file.started);
    let rate = (file.done > 0 && running_secs > 0).then(|| file.done as f64 / running_secs as f64);
    let left = file.total.map(|total| total.saturating_sub(file.done));
    let left_secs = left.zip(rate).map(|(left, rate)| (left as f64 / rate) as u64);
    Some(Job {
        is_cancelled: run.join(DIR).join(format!("{name}.cancel")).exists(),
        name: name.into(),
        kind: file.kind,
        stage: file.stage,
        done: file.done,
        total: file.total,
        unit: file.unit,
        state: match file.state {
            Told::Running if is_quiet => JobState::Quiet,
            Told::Running => JobState::Running,
            Told::Finished => JobState::Finished,
            Told::Cancelled => JobState::Cancelled,
            Told::Failed => JobState::Failed,
        },
        running_secs,
        heard_secs_ago,
        rate,
        left_secs: left_secs.filter(|_| file.state == Told::Running),
    })
}

/// Whether a process of this machine is known to have ended. A job of another machine has none here, but its run is seldom
/// served while it is written over a network.
fn is_gone(pid: u32) -> bool {
    cfg!(target_os = "linux") && pid != 0 && !Path::new(&format!("/proc/{pid}")).exists()
}
