//! A job under way: its trainer, its state, its log and its checkpoints.

use exegete_sae::train::{StepStats, TrainState, Trainer};
use exegete_store::{Run, StepRow};

use super::feed::Ends;
use super::job::Job;
use crate::{HarvestError, Result};

const CHECKPOINT: &str = "checkpoint.bin";
/// What the training measured along the way.
const LOG: &str = "steps.parquet";
/// Steps between its rows.
const LOG_EVERY: u64 = 10;

impl Job {
    fn log(&self) -> String {
        format!("{}/{LOG}", self.dir())
    }

    pub(super) fn checkpoint(&self) -> String {
        format!("{}/{CHECKPOINT}", self.dir())
    }
}

/// A job under way.
pub(super) struct Learner<'a> {
    pub(super) job: &'a Job,
    pub(super) ends: Ends,
    pub(super) state: TrainState,
    pub(super) last: Option<StepStats>,
    trainer: Trainer,
    log: Vec<StepRow>,
}

impl<'a> Learner<'a> {
    /// Begins a job of `n_steps`, or goes on with it from its checkpoint.
    ///
    /// # Errors
    /// Settings out of range, a damaged checkpoint.
    pub(super) fn new(run: &Run, job: &'a Job, ends: Ends, n_steps: u64) -> Result<Self> {
        let trainer = Trainer::new(job.settings.clone(), n_steps)?;
        let (state, log) = match run.part_done(&job.checkpoint()) {
            true => read_checkpoint(run, job)?,
            false => {
                let reads = &ends.reads;
                (TrainState::init(&job.settings, reads.width(), reads.scale, &reads.mean, job.seed), Vec::new())
            }
        };
        Ok(Self { job, ends, state, last: None, trainer, log })
    }

    /// A step on what is read and, where that is another, what is written.
    pub(super) fn step(&mut self, x_ND: &[f32], y_ND: Option<&[f32]>) -> Result<()> {
        let step = self.state.step;
        let stats = self.trainer.step(&mut self.state, x_ND, y_ND)?;
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

    /// Before the state: what it says to be done is told of.
    pub(super) fn save_log(&self, run: &mut Run) -> Result<()> {
        let rel = self.job.log();
        run.commit_part(&rel, self.log.len() as u64, |w| exegete_store::write_steps(w, &self.log))?;
        Ok(())
    }

    /// Saves the log and the state.
    pub(super) fn save(&self, run: &mut Run) -> Result<()> {
        self.save_log(run)?;
        let bytes = self.state.to_bytes();
        run.commit_part(&self.job.checkpoint(), self.state.step, |w| std::io::Write::write_all(w, &bytes))?;
        Ok(())
    }
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
