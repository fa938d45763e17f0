//! Training a dictionary on the cached activations, with checkpoints from which it goes on bit for bit.

use std::time::{Duration, Instant};

use exegete_base::sampling::pair_hash;
use exegete_base::settings::TrainSettings;
use exegete_base::stats::Estimate;
use exegete_sae::formats::{Saved, saelens};
use exegete_sae::metrics::{self, Reconstruction};
use exegete_sae::train::{TrainState, Trainer};
use exegete_sae::{Dictionary, Sae};
use exegete_store::Run;
use serde_json::{Map, Value, json};

use crate::cache::{ActivationCache, WindowRows, split};
use crate::{HarvestError, Progress, Result};

/// The stage's name in the manifest.
pub const STAGE: &str = "train";
/// Where the dictionary lies in the run.
pub const DIR: &str = "sae";
const CHECKPOINT: &str = "sae/checkpoint.bin";

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

/// Trains on the documents that are not held out, measures on those that are, and saves in the SAELens layout.
///
/// # Errors
/// Too few activations for one batch, failures of the disk.
pub fn run(
    run: &mut Run,
    cache: &ActivationCache,
    subject: &Subject,
    settings: &TrainSettings,
    every: CheckpointEvery,
    progress: &dyn Progress,
) -> Result<()> {
    if run.stage(STAGE).is_some() {
        return Ok(());
    }
    let rows = split(subject.windows, subject.seed).training_rows();
    let steps_per_epoch = steps_per_epoch(subject, settings)?;
    let n_steps = steps_per_epoch * settings.epochs as u64;
    let mut trainer = Trainer::new(settings.clone(), n_steps)?;
    let mut state = match run.part_done(CHECKPOINT) {
        true => read_checkpoint(run)?,
        false => first_state(cache, &rows, settings, subject.seed),
    };
    progress.begin(STAGE, n_steps, "steps", state.step);
    let (mut order, mut order_of, mut batch) = (Vec::new(), None, Vec::new());
    let mut saved_at = (Instant::now(), state.step);
    while state.step < n_steps {
        progress.check().or_else(|stop| save_checkpoint(run, &state).and(Err(stop)))?;
        let (epoch, at) = (state.step / steps_per_epoch, state.step % steps_per_epoch);
        if order_of != Some(epoch) {
            order = shuffled(&rows, subject.seed, epoch);
            order_of = Some(epoch);
        }
        let from = at as usize * settings.batch;
        cache.gather(&order[from..from + settings.batch], &mut batch);
        let stats = trainer.step(&mut state, &batch)?;
        progress.at(state.step, &format!("FVU {:.4}  dead {}", stats.fvu, stats.n_dead));
        let due = match every {
            CheckpointEvery::Time(time) => saved_at.0.elapsed() >= time,
            CheckpointEvery::Steps(steps) => state.step - saved_at.1 >= steps,
        };
        if due && state.step < n_steps {
            save_checkpoint(run, &state)?;
            saved_at = (Instant::now(), state.step);
        }
    }
    finish(run, cache, subject, settings, &state, n_steps, progress)
}

/// Steps in a pass over the training documents.
///
/// # Errors
/// There are fewer activations than a batch.
pub fn steps_per_epoch(subject: &Subject, settings: &TrainSettings) -> Result<u64> {
    let n_rows: usize = split(subject.windows, subject.seed).training.iter().map(|w| w.len()).sum();
    match n_rows / settings.batch {
        0 => {
            let detail = format!("{n_rows} activations to train on are fewer than one batch of {}", settings.batch);
            Err(HarvestError::Request(format!("{detail}; give more text or lower --batch")))
        }
        steps => Ok(steps as u64),
    }
}

fn finish(
    run: &mut Run,
    cache: &ActivationCache,
    subject: &Subject,
    settings: &TrainSettings,
    state: &TrainState,
    n_steps: u64,
    progress: &dyn Progress,
) -> Result<()> {
    let dictionary = state.dictionary(settings.k);
    let quality = measure(&dictionary, cache, subject)?;
    let (fvu, l0) = (quality.estimate, quality.l0);
    let n_dead = state.since_fired_F.iter().filter(|since| **since > settings.dead_after_tokens).count();
    let metadata: Map<String, Value> = [
        ("sae_lens_version".into(), json!("6")),
        ("model_name".into(), json!(subject.model)),
        ("hook_name".into(), json!(subject.site)),
        ("exegete_input_scale".into(), json!(state.scale)),
        ("exegete_fvu".into(), json!(fvu)),
        ("exegete_fvu_measured_on".into(), json!(quality.measured_on)),
        ("exegete_l0".into(), json!(l0)),
        ("exegete_metrics_version".into(), json!(metrics::VERSION)),
    ]
    .into_iter()
    .collect();
    let (config, weights) = saelens::to_bytes(&Saved { metadata, ..Saved::new(dictionary, saelens::NAME) })?;
    for (name, bytes) in [(saelens::WEIGHTS, weights), (saelens::CONFIG, config)] {
        let rel = format!("{DIR}/{name}");
        run.commit_part(&rel, state.n_latents() as u64, |w| std::io::Write::write_all(w, &bytes))?;
    }
    let summary = json!({
        "kind": "topk", "n_latents": state.n_latents(), "k": settings.k, "steps": n_steps,
        "tokens": n_steps * settings.batch as u64, "lr": settings.peak_lr(), "aux_k": settings.resolved_aux_k(state.d), "fvu": fvu, "fvu_measured_on": quality.measured_on,
        "l0": l0, "dead": n_dead, "input_scale": state.scale, "metrics_version": metrics::VERSION, "seed": subject.seed,
    });
    run.finish_stage(STAGE, summary)?;
    let span = match fvu.n {
        0 | 1 => "no interval".into(),
        n => format!("{:.4} to {:.4}, n = {n}", fvu.low, fvu.high),
    };
    let on = quality.measured_on;
    progress.end(&format!("FVU {:.4} ({span}) on {on}, L0 {l0:.1}, {n_dead} dead", fvu.value));
    Ok(())
}

/// Removes the checkpoint, which a finished training needs no more.
///
/// # Errors
/// The disk's.
pub fn remove_checkpoint(run: &mut Run) -> Result<()> {
    Ok(run.remove_part(CHECKPOINT)?)
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
    /// See [`Split::measured_on`](crate::cache::Split::measured_on).
    pub measured_on: &'static str,
}

/// Measures a dictionary on the documents of a cache that were held out of training.
///
/// # Errors
/// Those of the dictionary.
pub fn measure(dictionary: &dyn Dictionary, cache: &ActivationCache, subject: &Subject) -> Result<Quality> {
    let split = split(subject.windows, subject.seed);
    let mut sums = Reconstruction::new(cache.d());
    let (mut x, mut last_doc) = (Vec::new(), None);
    for w in &split.measured {
        cache.range(w.first, w.len(), &mut x);
        let codes = dictionary.encode(&x)?;
        let mut recon = vec![0f32; x.len()];
        dictionary.reconstruct(&x, &codes, &mut recon)?;
        sums.add(&x, &recon, &codes, last_doc == Some(w.window.doc));
        last_doc = Some(w.window.doc);
    }
    Ok(Quality { estimate: sums.fvu(), l0: sums.l0(), measured_on: split.measured_on() })
}

/// Rows in the order of their hashes: a shuffle that any program can repeat from the seed.
fn shuffled(rows: &[u64], seed: u64, epoch: u64) -> Vec<u64> {
    let mut keyed: Vec<(u64, u64)> = rows.iter().map(|row| (pair_hash(seed, epoch, *row), *row)).collect();
    keyed.sort_unstable();
    keyed.into_iter().map(|(_, row)| row).collect()
}

/// The mean and the mean norm of the training rows set the bias and the scale; sums are in f64, in order.
fn first_state(cache: &ActivationCache, rows: &[u64], settings: &TrainSettings, seed: u64) -> TrainState {
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
    let scale = ((d as f64).sqrt() / (sum_norm / n)) as f32;
    TrainState::init(d, settings.latents, scale, &mean_D, seed)
}

fn save_checkpoint(run: &mut Run, state: &TrainState) -> Result<()> {
    let bytes = state.to_bytes();
    run.commit_part(CHECKPOINT, state.step, |w| std::io::Write::write_all(w, &bytes))?;
    Ok(())
}

fn read_checkpoint(run: &Run) -> Result<TrainState> {
    let path = run.path(CHECKPOINT);
    let again = |why: String| HarvestError::Request(format!("{}: {why}; remove it to train anew", path.display()));
    let bytes = std::fs::read(&path).map_err(|e| again(e.to_string()))?;
    TrainState::from_bytes(&bytes).map_err(|e| again(e.to_string()))
}
