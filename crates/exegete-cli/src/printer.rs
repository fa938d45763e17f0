//! The only place that prints. Results go to standard output, progress and errors to standard error.

use std::cell::RefCell;
use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use exegete_harvest::{HarvestError, Progress};
use exegete_hub::DownloadEvent;
use exegete_lab::LabError;
use exegete_store::jobs::{JobState, JobWriter};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use crate::interrupt;

/// How often progress is told where there is no terminal to redraw.
const TELL_EVERY: Duration = Duration::from_secs(10);

/// Prints for people or for programs.
pub(crate) struct Printer {
    json: bool,
    stage: RefCell<Option<Stage>>,
    /// Where work on a run tells of itself too.
    job: RefCell<Option<JobWriter>>,
}

struct Stage {
    name: String,
    unit: String,
    total: u64,
    bar: Option<ProgressBar>,
    began: Instant,
    began_at: u64,
    told: Instant,
}

#[allow(clippy::print_stdout, clippy::print_stderr)] // This is the place.
impl Printer {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, stage: RefCell::new(None), job: RefCell::new(None) }
    }

    /// A line for people; nothing where results are JSON.
    pub(crate) fn line(&self, text: impl AsRef<str>) {
        if !self.json {
            println!("{}", text.as_ref());
        }
    }

    /// The result as JSON; nothing where results are for people.
    pub(crate) fn json(&self, value: &Value) {
        if self.json {
            println!("{value}");
        }
    }

    /// Progress is told in the run too from here on, and a wish to stop heard from there.
    pub(crate) fn tell_in(&self, run: &Path, kind: &str) {
        *self.job.borrow_mut() = Some(JobWriter::new(run, kind));
    }

    /// The work on a run is over.
    pub(crate) fn finished(&self) {
        self.job_ended(JobState::Finished);
    }

    fn job_ended(&self, state: JobState) {
        if let Some(job) = self.job.borrow_mut().take() {
            job.end(state);
        }
    }

    /// A remark on standard error.
    pub(crate) fn note(&self, text: &str) {
        eprintln!("{text}");
    }

    /// Tells of a failure and gives the exit status that fits it.
    pub(crate) fn failure(&self, error: &anyhow::Error) -> ExitCode {
        if let Some(stage) = self.stage.borrow_mut().take()
            && let Some(bar) = stage.bar
        {
            bar.abandon();
        }
        let stopped = matches!(error.downcast_ref::<HarvestError>(), Some(HarvestError::Interrupted))
            || matches!(error.downcast_ref::<LabError>(), Some(LabError::Interrupted | LabError::Saved { .. }));
        self.job_ended(if stopped { JobState::Cancelled } else { JobState::Failed });
        if stopped {
            eprintln!("{error}");
            return ExitCode::from(interrupt::STATUS);
        }
        eprintln!("error: {}", told(error));
        ExitCode::FAILURE
    }

    /// Tells of a command line that makes no sense.
    pub(crate) fn usage_error(&self, error: &anyhow::Error) -> ExitCode {
        eprintln!("error: {}", told(error));
        ExitCode::from(2)
    }
}

/// Shows what a download tells.
pub(crate) fn tell_download(printer: &Printer) -> impl Fn(DownloadEvent<'_>) + '_ {
    let file_now = RefCell::new(String::new());
    move |event| match event {
        DownloadEvent::Progress { file, done, total } => {
            if *file_now.borrow() != file {
                printer.begin("download", total, &format!("bytes of {file}"), done);
                *file_now.borrow_mut() = file.to_owned();
            }
            printer.at(done, "");
            if done == total {
                printer.end(file);
            }
        }
        DownloadEvent::Waiting { reason, .. } => printer.note(&format!("download: waiting, {reason}")),
        DownloadEvent::UsingCache { reason } => {
            printer.note(&format!("download: {reason}; what the cache holds is used"));
        }
        _ => {}
    }
}

/// An error with its causes; one that its effect already quotes is not told twice.
fn told(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[allow(clippy::print_stderr)] // This is the place.
impl Progress for Printer {
    fn begin(&self, stage: &str, total: u64, unit: &str, done: u64) {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total).with_position(done);
            let style = "{prefix:<11} {bar:30} {human_pos}/{human_len} {msg}  {elapsed} so far, {eta} left";
            bar.set_style(ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(stage.to_owned());
            bar.reset_eta();
            bar
        });
        if let Some(job) = self.job.borrow_mut().as_mut() {
            job.begin(stage, total, unit, done);
        }
        let now = Instant::now();
        let (name, unit) = (stage.to_owned(), unit.to_owned());
        *self.stage.borrow_mut() = Some(Stage { name, unit, total, bar, began: now, began_at: done, told: now });
    }

    fn at(&self, done: u64, note: &str) {
        if let Some(job) = self.job.borrow_mut().as_mut() {
            job.at(done);
        }
        let mut stage = self.stage.borrow_mut();
        let Some(stage) = stage.as_mut() else { return };
        // Each step of a stage is an instant at which the crash tests may kill the program.
        exegete_store::killpoint(&stage.name);
        if let Some(bar) = &stage.bar {
            bar.set_position(done);
            bar.set_message(format!("{} {note}", stage.unit));
        } else if stage.told.elapsed() >= TELL_EVERY {
            stage.told = Instant::now();
            let rate = (done - stage.began_at.min(done)) as f64 / stage.began.elapsed().as_secs_f64();
            let left = stage.total.saturating_sub(done) as f64 / rate.max(1e-9);
            let (name, total, unit) = (&stage.name, stage.total, &stage.unit);
            eprintln!("{name}: {done}/{total} {unit}, {rate:.0} a second, {left:.0} s left  {note}");
        }
    }

    fn end(&self, summary: &str) {
        let Some(stage) = self.stage.borrow_mut().take() else { return };
        if let Some(bar) = stage.bar {
            bar.finish_and_clear();
        }
        eprintln!("{:<11} {summary}  [{:.1} s]", stage.name, stage.began.elapsed().as_secs_f64());
    }

    fn is_cancelled(&self) -> bool {
        interrupt::asked() || self.job.borrow_mut().as_mut().is_some_and(JobWriter::is_cancelled)
    }
}
