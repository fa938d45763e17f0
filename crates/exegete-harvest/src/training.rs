//! Training dictionaries on the cached activations, with checkpoints from which it goes on bit for bit.

use std::time::{Duration, Instant};

use exegete_base::sampling::pair_hash;
use exegete_base::settings::{Activation, TrainSettings};
use exegete_base::stats::Estimate;
use exegete_sae::formats::{Saved, saelens};
use exegete_sae::metrics::{self, Reconstruction};
use exegete_sae::train::{StepStats, TrainState, Trainer};
use exegete_sae::{Dictionary, Sae};
use exegete_store::{Run, StepRow};
use serde_json::{Map, Value, json};

use crate::cache::{ActivationCache, WindowRows, split};
use crate::{HarvestError, Progress, Result};

/// The stage's name in the manifest.
pub const STAGE: &str = "train";
/// Where the dictionary lies in the run.
pub const DIR: &str = "sae";
const CHECKPOINT: &str = "checkpoint.bin";
/// How far off its target a steered L0 may be without a word.
const NEAR: f64 = 0.1;
/// What the training measured along the way.
const LOG: &str = "steps.parquet";
/// Steps between its rows.
const LOG_EVERY: u64 = 10;
/// Training tokens on which the threshold of a BatchTopK dictionary is found, drawn at random.
const CALIBRATION_TOKENS: usize = 8192;

/// How often a checkpoint is written. When it is does not matter to the result.
#[derive(Debug, Clone, Copy)]
pub enum CheckpointEvery {
    /// By the clock.
    Time(Duration),
    /// By steps, for tests.
    Steps(u64),
}

/// What a dictionary is trained for, recorded in its metadata.
pub struct Subject<'a> {
    /// Name of the model.
    pub model: String,
    /// Site, in TransformerLens spelling.
    pub site: String,
    /// Windows of the cache.
    pub windows: &'a [WindowRows],
    /// Seed of the run.
    pub seed: u64,
}

/// A dictionary to be trained.
#[derive(Debug, Clone)]
pub struct Job {
    /// Its name in a grid; none for a run's only one.
    pub name: Option<String>,
    /// How it is trained.
    pub settings: TrainSettings,
    /// Seed of its first weights.
    pub seed: u64,
}

impl Job {
    /// Where it lies in the run.
    pub fn dir(&self) -> String {
        self.name.as_ref().map_or(DIR.into(), |name| format!("{DIR}/{name}"))
    }

    /// Its stage's name in the manifest.
    pub fn stage(&self) -> String {
        self.name.as_ref().map_or(STAGE.into(), |name| format!("{STAGE}/{name}"))
    }

    fn log(&self) -> String {
        format!("{}/{LOG}", self.dir())
    }

    fn checkpoint(&self) -> String {
        format!("{}/{CHECKPOINT}", self.dir())
    }
}

/// A job under way.
struct Learner<'a> {
    job: &'a Job,
    trainer: Trainer,
    state: TrainState,
    last: Option<StepStats>,
    log: Vec<StepRow>,
}

impl Learner<'_> {
    fn step(&mut self, batch: &[f32]) -> Result<()> {
        let step = self.state.step;
        let stats = self.trainer.step(&mut self.state, batch, None)?;
        if step.is_multiple_of(LOG_EVERY) {
            self.log.push(StepRow {
                step,
                loss: stats.loss as f32,
                fvu: stats.fvu as f32,
                l0: stats.l0 as f32,
                penalty: stats.penalty as f32,
                sparsity: stats.sparsity as f32,
                aux: stats.aux as f32,
                dead: stats.n_dead as u64,
            });
        }
        self.last = Some(stats);
        Ok(())
    }
}

/// Trains on the documents that are not held out, measures on those that are, and saves in the SAELens layout. All jobs
/// that are not finished see the same batches, which are read once; that they can, [`check`] says.
///
/// # Errors
/// Too few activations for one batch, failures of the disk.
pub fn run(
    run: &mut Run,
    cache: &ActivationCache,
    subject: &Subject,
    jobs: &[Job],
    every: CheckpointEvery,
    progress: &dyn Progress,
) -> Result<()> {
    let Some(first) = jobs.first() else { return Ok(()) };
    let rows = split(subject.windows, subject.seed).training_rows();
    let steps_per_epoch = steps_per_epoch(subject.windows, subject.seed, &first.settings)?;
    let n_steps = steps_per_epoch * first.settings.epochs as u64;
    let left = || jobs.iter().filter(|job| run.stage(&job.stage()).is_none());
    let bytes = left().map(|job| Trainer::bytes(&job.settings, cache.d(), cache.d())).fold(0, usize::saturating_add);
    let what = || format!("training {} dictionaries", left().count());
    exegete_model::memory::check(bytes, what, "give fewer latents, or fewer dictionaries at a time")?;
    let (mut learners, mut known) = (Vec::new(), None);
    for job in jobs.iter().filter(|job| run.stage(&job.stage()).is_none()) {
        let trainer = Trainer::new(job.settings.clone(), n_steps)?;
        let (state, log) = match run.part_done(&job.checkpoint()) {
            true => read_checkpoint(run, job)?,
            false => {
                let (scale, mean_D) = known.get_or_insert_with(|| scale_and_mean(cache, &rows));
                let state = TrainState::init(&job.settings, cache.d(), *scale, mean_D, job.seed);
                (state, Vec::new())
            }
        };
        learners.push(Learner { job, trainer, state, last: None, log });
    }
    let Some(mut step) = learners.iter().map(|learner| learner.state.step).min() else { return Ok(()) };
    progress.begin(STAGE, n_steps, "steps", step);
    let (mut order, mut order_of, mut batch) = (Vec::new(), None, Vec::new());
    let (mut saved_at, mut lost) = ((Instant::now(), step), Vec::new());
    while step < n_steps {
        progress.check().or_else(|stop| save_checkpoints(run, &learners).and(Err(stop)))?;
        let (epoch, at) = (step / steps_per_epoch, step % steps_per_epoch);
        if order_of != Some(epoch) {
            order = shuffled(&rows, subject.seed, epoch);
            order_of = Some(epoch);
        }
        let from = at as usize * first.settings.batch;
        cache.gather(&order[from..from + first.settings.batch], &mut batch);
        // Killed between two checkpoints, some may be ahead of others: they wait.
        for learner in learners.iter_mut().filter(|learner| learner.state.step == step) {
            if let Err(error) = learner.step(&batch) {
                lost.push(match &learner.job.name {
                    Some(name) => format!("dictionary {name:?}: {error}"),
                    None => error.to_string(),
                });
            }
        }
        // One that diverges costs the others nothing.
        learners.retain(|learner| learner.state.step != step);
        if learners.is_empty() {
            break;
        }
        step += 1;
        progress.at(step, &live(&learners));
        let due = match every {
            CheckpointEvery::Time(time) => saved_at.0.elapsed() >= time,
            CheckpointEvery::Steps(steps) => step - saved_at.1 >= steps,
        };
        if due && step < n_steps {
            save_checkpoints(run, &learners)?;
            saved_at = (Instant::now(), step);
        }
    }
    let mut said = Vec::new();
    for learner in &learners {
        save_log(run, learner)?;
        said.push(finish(run, cache, subject, (learner.job, &learner.state), n_steps)?);
    }
    progress.end(&said.join("\n"));
    match lost.is_empty() {
        true => Ok(()),
        false => Err(HarvestError::Request(lost.join("\n"))),
    }
}

/// How the jobs are doing, in a few words.
fn live(learners: &[Learner]) -> String {
    let stats = || learners.iter().filter_map(|learner| learner.last);
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
    for job in jobs {
        let named = |detail: &str| match &job.name {
            Some(name) => HarvestError::Request(format!("dictionary {name:?}: {detail}")),
            None => HarvestError::Request(detail.into()),
        };
        job.settings.check().map_err(|detail| named(&detail))?;
        if fed(job) != fed(&jobs[0]) {
            return Err(named("one pass feeds all dictionaries of a grid, so batch and epochs are the same for all"));
        }
    }
    Ok(())
}

/// Steps in a pass over the training documents.
///
/// # Errors
/// There are fewer activations than a batch.
pub fn steps_per_epoch(windows: &[WindowRows], seed: u64, settings: &TrainSettings) -> Result<u64> {
    let n_rows: usize = split(windows, seed).training.iter().map(|w| w.len()).sum();
    match n_rows / settings.batch {
        0 => {
            let detail = format!("{n_rows} activations to train on are fewer than one batch of {}", settings.batch);
            Err(HarvestError::Request(format!("{detail}; give more text or lower --batch")))
        }
        steps => Ok(steps as u64),
    }
}

/// Measures and saves a trained dictionary; says how it is.
fn finish(
    run: &mut Run,
    cache: &ActivationCache,
    subject: &Subject,
    (job, state): (&Job, &TrainState),
    n_steps: u64,
) -> Result<String> {
    let settings = &job.settings;
    let mut dictionary = state.dictionary(settings);
    let mut metadata: Map<String, Value> = Map::new();
    if settings.activation == Activation::BatchTopK {
        let mut x = Vec::new();
        let rows = split(subject.windows, subject.seed).training_rows();
        let mut rows = shuffled(&rows, subject.seed, u64::MAX);
        rows.truncate(CALIBRATION_TOKENS);
        cache.gather(&rows, &mut x);
        metadata.insert("exegete_calibrated_on_tokens".into(), json!(x.len() / cache.d()));
        metadata.insert("exegete_batchtopk_k".into(), json!(settings.k));
        dictionary = dictionary.calibrated(&x)?;
    }
    let quality = measure(&dictionary, cache, subject)?;
    let (fvu, l0) = (quality.estimate, quality.l0);
    let facts = [
        ("sae_lens_version", json!("6")),
        ("model_name", json!(subject.model)),
        ("hook_name", json!(subject.site)),
        ("exegete_input_scale", json!(state.scale)),
        ("exegete_fvu", json!(fvu)),
        ("exegete_fvu_measured_on", json!(quality.measured_on)),
        ("exegete_l0", json!(l0)),
        ("exegete_metrics_version", json!(metrics::VERSION)),
        ("exegete_training", json!(settings)),
    ];
    metadata.extend(facts.map(|(key, value)| (key.to_owned(), value)));
    let kind = dictionary.kind();
    let (config, weights) = saelens::to_bytes(&Saved { metadata, ..Saved::new(dictionary, saelens::NAME) })?;
    for (name, bytes) in [(saelens::WEIGHTS, weights), (saelens::CONFIG, config)] {
        let rel = format!("{}/{name}", job.dir());
        run.commit_part(&rel, state.n_latents() as u64, |w| std::io::Write::write_all(w, &bytes))?;
    }
    let summary = json!({
        "kind": kind, "n_latents": state.n_latents(), "k": settings.k, "steps": n_steps,
        "tokens": n_steps * settings.batch as u64, "lr": settings.peak_lr(),
        "aux_k": settings.resolved_aux_k(state.d), "fvu": fvu, "fvu_measured_on": quality.measured_on, "l0": l0,
        "silent": quality.n_silent, "input_scale": state.scale, "metrics_version": metrics::VERSION, "seed": subject.seed,
        "sparsity": settings.sparsity * state.steering,
    });
    run.finish_stage(&job.stage(), summary)?;
    let span = match fvu.n {
        0 | 1 => "no interval".into(),
        n => format!("{:.4} to {:.4}, n = {n}", fvu.low, fvu.high),
    };
    let on = quality.measured_on;
    let name = job.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let silent = quality.n_silent;
    let missed = match settings.target_l0 > 0.0 && (l0 / settings.target_l0 - 1.0).abs() > NEAR {
        true => {
            format!("; not yet at the L0 of {} that it is steered to: more steps bring it there", settings.target_l0)
        }
        false => String::new(),
    };
    Ok(format!("{name}FVU {:.4} ({span}), L0 {l0:.1}, {silent} silent on {on}{missed}", fvu.value))
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
    Ok(saelens::load(&run.path(DIR))?.dictionary)
}

/// Fraction of variance unexplained, and what it was measured on.
pub struct Quality {
    /// FVU with its interval over documents.
    pub estimate: Estimate,
    /// Mean number of active latents.
    pub l0: f64,
    /// Latents that were never active.
    pub n_silent: usize,
    /// See [`Split::measured_on`](crate::cache::Split::measured_on).
    pub measured_on: &'static str,
}

/// Measures a dictionary on the documents of a cache that were held out of training.
///
/// # Errors
/// Those of the dictionary.
pub fn measure(dictionary: &dyn Dictionary, cache: &ActivationCache, subject: &Subject) -> Result<Quality> {
    let split = split(subject.windows, subject.seed);
    let mut sums = Reconstruction::new(cache.d(), dictionary.n_latents());
    let (mut x, mut last_doc) = (Vec::new(), None);
    for w in &split.measured {
        cache.range(w.first, w.len(), &mut x);
        let codes = dictionary.encode(&x)?;
        let mut recon = vec![0f32; x.len()];
        dictionary.reconstruct(&x, &codes, &mut recon)?;
        sums.add(&x, &recon, &codes, last_doc == Some(w.window.doc));
        last_doc = Some(w.window.doc);
    }
    let n_silent = sums.density().n_dead();
    Ok(Quality { estimate: sums.fvu(), l0: sums.l0(), n_silent, measured_on: split.measured_on() })
}

/// Rows in the order of their hashes: a shuffle that any program can repeat from the seed.
fn shuffled(rows: &[u64], seed: u64, epoch: u64) -> Vec<u64> {
    let mut keyed: Vec<(u64, u64)> = rows.iter().map(|row| (pair_hash(seed, epoch, *row), *row)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, row)| row).collect()
}

/// The factor that brings the training rows to a mean length of the root of their width, and their mean; sums are in f64, in
/// order.
fn scale_and_mean(cache: &ActivationCache, rows: &[u64]) -> (f32, Vec<f32>) {
    let d = cache.d();
    let (mut sum_D, mut sum_norm, mut x) = (vec![0f64; d], 0f64, Vec::new());
    for chunk in rows.chunks(4096) {
        cache.gather(chunk, &mut x);
        for row in x.chunks_exact(d) {
            sum_D.iter_mut().zip(row).for_each(|(s, v)| *s += f64::from(*v));
            sum_norm += row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
        }
    }
    let n = rows.len() as f64;
    let mean_D: Vec<f32> = sum_D.iter().map(|s| (s / n) as f32).collect();
    (((d as f64).sqrt() / (sum_norm / n)) as f32, mean_D)
}

/// Before the state: what it says to be done is told of.
fn save_log(run: &mut Run, learner: &Learner) -> Result<()> {
    let rel = learner.job.log();
    run.commit_part(&rel, learner.log.len() as u64, |w| exegete_store::write_steps(w, &learner.log))?;
    Ok(())
}

fn save_checkpoints(run: &mut Run, learners: &[Learner]) -> Result<()> {
    for learner in learners {
        save_log(run, learner)?;
        let Learner { job, state, .. } = learner;
        let bytes = state.to_bytes();
        run.commit_part(&job.checkpoint(), state.step, |w| std::io::Write::write_all(w, &bytes))?;
    }
    Ok(())
}

/// A state and what was logged up to it.
fn read_checkpoint(run: &Run, job: &Job) -> Result<(TrainState, Vec<StepRow>)> {
    let path = run.path(&job.checkpoint());
    let again = |why: String| HarvestError::Request(format!("{}: {why}; remove it to train anew", path.display()));
    let bytes = std::fs::read(&path).map_err(|e| again(e.to_string()))?;
    let state = TrainState::from_bytes(&bytes).map_err(|e| again(e.to_string()))?;
    let mut log = exegete_store::read_steps(&run.path(&job.log()))?;
    // It was written first, and may be ahead.
    log.retain(|row| row.step < state.step);
    Ok((state, log))
}
