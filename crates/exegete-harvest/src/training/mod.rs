//! Training dictionaries on activations, with checkpoints from which it goes on bit for bit.

mod end_to_end;
mod feed;
mod job;
mod learner;
mod outcome;

use std::time::{Duration, Instant};

use exegete_base::Site;
use exegete_model::{Model, ModelSpec};
use exegete_sae::Sae;
use exegete_sae::formats::saelens;
use exegete_sae::train::{StepStats, Trainer};
use exegete_store::Run;

pub use self::feed::steps_per_epoch;
use self::feed::{Feed, Group};
pub use self::job::{Job, Shape, Sites, default_site};
use self::learner::{Context, Learner};
use crate::activations::Activations;
use crate::rows::WindowRows;
use crate::{HarvestError, Progress, Result};

/// The stage's name in the manifest.
pub const STAGE: &str = "train";
/// Where the dictionary lies in the run.
pub const DIR: &str = "sae";

/// How many times what the last checkpoint took passes before the next by the clock: a hundred dictionaries are written for
/// seconds.
const BETWEEN_SAVES: u32 = 30;
/// The longest that this may put off a checkpoint: whoever watches takes a training that is quiet for stopped.
const AT_LEAST_EVERY: Duration = Duration::from_secs(60);

/// How often a checkpoint is written. When it is does not matter to the result.
#[derive(Debug, Clone, Copy)]
pub enum CheckpointEvery {
    /// By the clock, and less often where saving takes long.
    Time(Duration),
    /// By steps, for tests.
    Steps(u64),
}

/// What dictionaries are trained for.
#[derive(Clone)]
pub struct Subject<'a> {
    /// The model.
    pub model: &'a Model,
    /// Its name, which the dictionaries' metadata record.
    pub name: String,
    /// Windows of the text.
    pub windows: &'a [WindowRows],
    /// Seed of the run.
    pub seed: u64,
    /// Rows that are mixed with each other; 0 mixes all.
    pub buffer_tokens: usize,
}

/// Trains on the documents that are not held out, measures on those that are, and saves in the SAELens layout. All jobs
/// that are not finished see the same batches, which are read once; that they can, [`check`] says.
///
/// # Errors
/// Too few activations for one batch, failures of the model and the disk.
pub fn run(
    run: &mut Run,
    acts: &Activations,
    subject: &Subject,
    jobs: &[Job],
    every: CheckpointEvery,
    progress: &dyn Progress,
) -> Result<()> {
    let left: Vec<&Job> = jobs.iter().filter(|job| run.stage(&job.stage()).is_none()).collect();
    let Some(first) = left.first() else { return Ok(()) };
    let mut feed = Feed::new(acts, subject, &first.settings)?;
    let n_steps = feed.steps_per_epoch() * first.settings.epochs as u64;
    let streamed = if acts.is_streamed() { subject.buffer_tokens } else { 0 };
    check_memory(&left, &subject.model.spec, streamed)?;
    let mut learners: Vec<Learner> = Vec::new();
    for job in left {
        let ends = feed.ends(job, &subject.model.spec)?;
        learners.push(Learner::new(run, job, ends, n_steps)?);
    }
    let mut batches = Batches::default();
    let of: Vec<(usize, Option<usize>)> = learners
        .iter()
        .map(|l| (batches.index(&l.ends.reads), l.ends.writes.as_ref().map(|w| batches.index(w))))
        .collect();
    let mut learners: Vec<(Learner, (usize, Option<usize>))> = learners.into_iter().zip(of).collect();
    let Some(mut step) = learners.iter().map(|(learner, _)| learner.at()).min() else { return Ok(()) };
    progress.begin(STAGE, n_steps, "steps", step);
    let (mut saved_at, mut saving, mut lost) = ((Instant::now(), step), Duration::ZERO, Vec::new());
    while step < n_steps {
        progress.check().or_else(|stop| save(run, &learners).and(Err(stop)))?;
        feed.draw(step)?;
        batches.fill(acts, feed.rows())?;
        acts.forget(feed.rows());
        let context = Context { model: subject.model, windows: feed.drawn() };
        // Killed between two checkpoints, some may be ahead of others: they wait.
        for (learner, (x, y)) in learners.iter_mut().filter(|(learner, _)| learner.at() == step) {
            if let Err(error) = learner.step(batches.of(*x), y.map(|y| batches.of(y)), &context) {
                lost.push(learner.job.said(&error.to_string()));
                learner.is_lost = true;
            }
        }
        // One that diverges costs the others nothing.
        learners.retain(|(learner, _)| !learner.is_lost);
        if learners.is_empty() {
            break;
        }
        step += 1;
        progress.at(step, &live(&learners));
        let due = match every {
            CheckpointEvery::Time(time) => {
                saved_at.0.elapsed() >= time.max((saving * BETWEEN_SAVES).min(AT_LEAST_EVERY))
            }
            CheckpointEvery::Steps(steps) => step - saved_at.1 >= steps,
        };
        if due && step < n_steps {
            let began = Instant::now();
            save(run, &learners)?;
            saved_at = (Instant::now(), step);
            saving = began.elapsed();
        }
    }
    acts.hold(&[])?;
    let mut said = Vec::new();
    for (learner, _) in &learners {
        learner.save_log(run)?;
        match outcome::finish(run, acts, subject, (learner, &feed), n_steps) {
            Ok(how) => said.push(how),
            Err(HarvestError::Sae(error)) => lost.push(learner.job.said(&error.to_string())),
            Err(error) => return Err(error),
        }
    }
    progress.end(&said.join("\n"));
    match lost.is_empty() {
        true => Ok(()),
        false => Err(HarvestError::Request(lost.join("\n"))),
    }
}

type Under<'a> = (Learner<'a>, (usize, Option<usize>));

fn save(run: &mut Run, learners: &[Under]) -> Result<()> {
    learners.iter().try_for_each(|(learner, _)| learner.save(run))
}

/// What jobs read and write at the rows of a step, each once.
#[derive(Default)]
struct Batches {
    groups: Vec<Group>,
    values: Vec<Vec<f32>>,
}

impl Batches {
    /// The place of a group's values.
    fn index(&mut self, group: &Group) -> usize {
        if let Some(there) = self.groups.iter().position(|g| g == group) {
            return there;
        }
        self.groups.push(group.clone());
        self.values.push(Vec::new());
        self.groups.len() - 1
    }

    fn fill(&mut self, acts: &Activations, rows: &[u64]) -> Result<()> {
        self.groups.iter().zip(&mut self.values).try_for_each(|(group, values)| group.gather(acts, rows, values))
    }

    fn of(&self, group: usize) -> &[f32] {
        &self.values[group]
    }
}

/// Refuses what would not fit into memory: the jobs' states and scratch, and the tokens of all sites that a stream holds.
///
/// # Errors
/// So many bytes are not there; sites that the model does not have.
pub fn check_memory(jobs: &[&Job], spec: &ModelSpec, streamed_tokens: usize) -> Result<()> {
    let width = |sites: &[Site]| -> usize { sites.iter().map(|site| spec.site_width(*site, 0)).sum() };
    let mut all = Vec::new();
    let mut bytes = 0usize;
    for job in jobs {
        let sites = job.sites(spec)?;
        let (reads, writes) = (width(&sites.reads), width(sites.written()));
        let n = sites.reads.len();
        bytes = bytes.saturating_add(match sites.shape() {
            // Each layer writes those from its own on.
            Shape::CrossLayer => (1..=n)
                .map(|left| Trainer::bytes(&job.settings, reads / n, writes / n * left))
                .fold(0, usize::saturating_add),
            _ => Trainer::bytes(&job.settings, reads, writes),
        });
        all.extend(sites.all());
    }
    all.sort_unstable_by_key(Site::to_string);
    all.dedup();
    bytes = bytes.saturating_add(streamed_tokens.saturating_mul(4 * width(&all)));
    let what = || format!("training {} dictionaries", jobs.len());
    Ok(exegete_model::memory::check(bytes, what, "give fewer latents, or fewer dictionaries at a time")?)
}

/// How the jobs are doing, in a few words.
fn live(learners: &[Under]) -> String {
    let stats = || learners.iter().filter_map(|(learner, _)| learner.last);
    let range = |of: fn(&StepStats) -> f64, digits: usize| {
        let (low, high) = stats().map(|s| of(&s)).fold((f64::MAX, f64::MIN), |(l, h), x| (l.min(x), h.max(x)));
        let (low, high) = (format!("{low:.digits$}"), format!("{high:.digits$}"));
        if low == high { low } else { format!("{low} to {high}") }
    };
    let (fvu, l0, dead) = (range(|s| s.fvu, 4), range(|s| s.l0, 1), range(|s| s.n_dead as f64, 0));
    format!("FVU {fvu}  L0 {l0}  dead {dead}")
}

/// Checks that jobs can be fed by one pass.
///
/// # Errors
/// Jobs that disagree in batch or epochs, and settings out of range.
pub fn check(jobs: &[Job]) -> Result<()> {
    let fed = |job: &Job| (job.settings.batch, job.settings.epochs);
    let whole = |job: &Job| job.settings.reconstruction.is_end_to_end();
    for job in jobs {
        job.settings.check().map_err(|detail| job.fault(&detail))?;
        if fed(job) != fed(&jobs[0]) {
            let detail = "one pass feeds all dictionaries of a grid, so batch and epochs are the same for all";
            return Err(job.fault(detail));
        }
        if whole(job) != whole(&jobs[0]) {
            let detail = "ce and kl are trained on whole windows, fvu and mse on tokens of all of them";
            return Err(job.fault(&format!("{detail}: they cannot be in one grid")));
        }
    }
    Ok(())
}

/// Removes the checkpoints, which a finished training needs no more.
///
/// # Errors
/// The disk's.
pub fn remove_checkpoints(run: &mut Run, jobs: &[Job]) -> Result<()> {
    jobs.iter().try_for_each(|job| Ok(run.remove_part(&job.checkpoint())?))
}

/// The dictionary of a run.
///
/// # Errors
/// It is not trained yet, or its files are damaged.
pub fn dictionary(run: &Run) -> Result<Sae> {
    Ok(saelens::load(&run.path(DIR))?.dictionary.into_sae()?)
}
