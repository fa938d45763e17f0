//! A job under way: its trainer, its state, its log and its checkpoints.

use exegete_base::settings::TrainSettings;
use exegete_model::Model;
use exegete_sae::metrics::density::Density;
use exegete_sae::train::{CrossLayerTrainer, Given, Side, StepStats, TrainState, Trainer};
use exegete_sae::{AnyDictionary, Codes};
use exegete_store::{DensityRow, Run, StepLog, StepRow};

use super::end_to_end::loss_gradient;
use super::feed::Ends;
use super::job::{Job, Shape};
use crate::rows::WindowRows;
use crate::{HarvestError, Result};

const CHECKPOINT: &str = "checkpoint.bin";
/// What the training measured along the way.
const LOG: &str = "steps.parquet";
/// Steps between its rows.
const LOG_EVERY: u64 = 10;
/// How often latents fired.
const DENSITY: &str = "density.parquet";
/// Steps over which firings are counted. Stretches end with the training, so that the last of them is a whole one.
const DENSITY_EVERY: u64 = 100;

impl Job {
    fn log(&self) -> String {
        format!("{}/{LOG}", self.dir())
    }

    fn density(&self) -> String {
        format!("{}/{DENSITY}", self.dir())
    }

    pub(super) fn checkpoint(&self) -> String {
        format!("{}/{CHECKPOINT}", self.dir())
    }
}

/// A job under way.
pub(super) struct Learner<'a> {
    pub(super) job: &'a Job,
    pub(super) ends: Ends,
    /// One, or of a cross-layer transcoder one a layer.
    pub(super) states: Vec<TrainState>,
    pub(super) last: Option<StepStats>,
    /// Whether a step of it failed: its states may be at different steps, and are of no more use.
    pub(super) is_lost: bool,
    trainer: Steps,
    log: StepLog,
    density: Vec<DensityRow>,
}

/// Where a batch's rows are, for losses that the model judges.
pub(super) struct Context<'a> {
    pub(super) model: &'a Model,
    /// The windows whose rows make the batch; none where rows are mixed.
    pub(super) windows: &'a [&'a WindowRows],
}

/// Fraction of variance unexplained about the batch's mean.
fn reconstruction_fvu(y_ND: &[f32], recon_ND: &[f32], d: usize) -> f64 {
    let mut sums = exegete_sae::metrics::Reconstruction::new(d, 1);
    sums.add(y_ND, recon_ND, &Codes::default(), false);
    sums.fvu().value
}

/// What takes steps.
enum Steps {
    One(Box<Trainer>),
    Layers(CrossLayerTrainer),
}

/// The states in which a job begins.
fn begin(settings: &TrainSettings, ends: &Ends, seed: u64) -> Vec<TrainState> {
    let Ends { sites, reads, .. } = ends;
    let n = reads.sites.len();
    let writes = ends.target();
    match sites.shape() {
        Shape::Autoencoder => vec![TrainState::init(settings, reads.width(), reads.scale, &reads.mean, seed)],
        // It is the autoencoder of all its sites, whose parts of a decoder row count one by one.
        Shape::Crosscoder => {
            let state = TrainState::init(settings, reads.width(), reads.scale, &reads.mean, seed);
            vec![TrainState { blocks: n, ..state }]
        }
        Shape::Transcoder => vec![TrainState::init_transcoder(settings, reads.side(), writes.side(), seed)],
        Shape::CrossLayer => {
            let each = reads.mean.chunks_exact(reads.width() / n);
            let sides: Vec<Side> = each.map(|mean_D| Side { scale: reads.scale, mean_D }).collect();
            CrossLayerTrainer::init(settings, &sides, writes.side(), seed)
        }
    }
}

impl<'a> Learner<'a> {
    /// Begins a job of `n_steps`, or goes on with it from its checkpoint.
    ///
    /// # Errors
    /// Settings out of range, a damaged checkpoint.
    pub(super) fn new(run: &Run, job: &'a Job, ends: Ends, n_steps: u64) -> Result<Self> {
        let (settings, n) = (&job.settings, ends.reads.sites.len());
        let trainer = match ends.sites.shape() {
            Shape::CrossLayer => Steps::Layers(CrossLayerTrainer::new(settings, n, n_steps)?),
            _ => Steps::One(Box::new(Trainer::new(settings.clone(), n_steps)?)),
        };
        let (states, rows, density) = match run.part_done(&job.checkpoint()) {
            true => read_checkpoint(run, job)?,
            false => (begin(settings, &ends, job.seed), Vec::new(), Vec::new()),
        };
        Ok(Self {
            job,
            ends,
            states,
            last: None,
            is_lost: false,
            trainer,
            log: StepLog { planned: n_steps, rows },
            density,
        })
    }

    /// Steps done.
    pub(super) fn at(&self) -> u64 {
        self.states[0].step
    }

    /// The dictionary as it stands, of sites times their factors.
    pub(super) fn dictionary(&self) -> AnyDictionary {
        match &self.trainer {
            Steps::One(_) => self.states[0].dictionary(&self.job.settings).into(),
            Steps::Layers(_) => CrossLayerTrainer::dictionary(&self.states, &self.job.settings).into(),
        }
    }

    /// A step on what is read and, where that is another, what is written, at the rows of some windows.
    pub(super) fn step(&mut self, x_ND: &[f32], y_ND: Option<&[f32]>, context: &Context) -> Result<()> {
        let step = self.at();
        let stats = match &mut self.trainer {
            Steps::One(trainer) if self.job.settings.reconstruction.is_end_to_end() => {
                let (state, site) = (&mut self.states[0], self.ends.sites.written()[0]);
                let factor = state.scale_out;
                let recon: Vec<f32> = trainer.forward(state, x_ND)?.iter().map(|r| r / factor).collect();
                let loss = self.job.settings.reconstruction;
                let (loss, mut grad) = loss_gradient(context.model, site, context.windows, &recon, loss)?;
                grad.iter_mut().for_each(|g| *g /= factor);
                let y_ND = y_ND.unwrap_or(x_ND);
                let left: Vec<f32> = y_ND.iter().zip(&recon).map(|(y, r)| (y - r) * factor).collect();
                let fvu = reconstruction_fvu(y_ND, &recon, state.d_out);
                trainer.backward(state, Given { loss, fvu, grad_ND: &grad, left_ND: Some(&left) })?
            }
            Steps::One(trainer) => trainer.step(&mut self.states[0], x_ND, y_ND)?,
            Steps::Layers(trainer) => trainer.step(&mut self.states, x_ND, y_ND.unwrap_or_default())?,
        };
        if step.is_multiple_of(LOG_EVERY) {
            self.log.rows.push(StepRow {
                step,
                loss: stats.loss as f32,
                fvu: stats.fvu as f32,
                l0: stats.l0 as f32,
                penalty: stats.penalty as f32,
                sparsity: stats.sparsity as f32,
                aux: stats.aux as f32,
                pre_act: stats.pre_act as f32,
                dead: stats.n_dead as u64,
            });
        }
        self.last = Some(stats);
        if (self.log.planned - self.at()).is_multiple_of(DENSITY_EVERY) {
            self.count_density();
        }
        Ok(())
    }

    /// Ends a stretch of steps: takes down how many latents fired how often in it.
    fn count_density(&mut self) {
        let (step, tokens) = (self.at(), self.states[0].counted);
        let fired_F: Vec<u64> = self.states.iter().flat_map(|state| &state.fired_F).copied().collect();
        let density = Density { fired_F: &fired_F, n_tokens: tokens };
        let row = |low, high, latents| DensityRow { step, tokens, low, high, latents };
        self.density.push(row(0.0, 0.0, density.n_dead() as u64));
        self.density.extend(density.histogram().into_iter().map(|bin| row(bin.from, bin.to, bin.latents)));
        self.states.iter_mut().for_each(TrainState::count_anew);
    }

    /// Saves what was measured. Before the state: what that says to be done is told of.
    pub(super) fn save_log(&self, run: &mut Run) -> Result<()> {
        let (log, density) = (&self.log, &self.density);
        run.commit_part(&self.job.log(), log.rows.len() as u64, |w| exegete_store::write_steps(w, log))?;
        run.commit_part(&self.job.density(), density.len() as u64, |w| exegete_store::write_density(w, density))?;
        Ok(())
    }

    /// Saves what was measured, and the state.
    pub(super) fn save(&self, run: &mut Run) -> Result<()> {
        self.save_log(run)?;
        let step = self.at();
        run.commit_part(&self.job.checkpoint(), step, |w| {
            // Each state between its length and its checksum: that of the manifest is not of the file where a training was
            // killed between the two.
            self.states.iter().try_for_each(|state| {
                let bytes = state.to_bytes();
                std::io::Write::write_all(w, &(bytes.len() as u64).to_le_bytes())?;
                std::io::Write::write_all(w, &bytes)?;
                std::io::Write::write_all(w, &crc32fast::hash(&bytes).to_le_bytes())
            })
        })?;
        Ok(())
    }
}

/// States and what was measured up to them.
fn read_checkpoint(run: &Run, job: &Job) -> Result<(Vec<TrainState>, Vec<StepRow>, Vec<DensityRow>)> {
    let path = run.path(&job.checkpoint());
    let again = |why: String| HarvestError::Request(format!("{}: {why}; remove it to train anew", path.display()));
    let bytes = std::fs::read(&path).map_err(|e| again(e.to_string()))?;
    let (mut states, mut rest) = (Vec::new(), &bytes[..]);
    while let Some((len, behind)) = rest.split_first_chunk::<8>() {
        let state = usize::try_from(u64::from_le_bytes(*len)).ok().and_then(|len| behind.split_at_checked(len));
        let cut_off = || again("it is cut off".into());
        let (state, behind) = state.ok_or_else(cut_off)?;
        // One of another version has no checksum, and is told of as that.
        states.push(TrainState::from_bytes(state).map_err(|e| again(e.to_string()))?);
        let (checksum, behind) = behind.split_first_chunk::<4>().ok_or_else(cut_off)?;
        if crc32fast::hash(state) != u32::from_le_bytes(*checksum) {
            return Err(again("it is damaged: its content is not what was written".into()));
        }
        rest = behind;
    }
    let step = states.first().map(|state| state.step).ok_or_else(|| again("it is empty".into()))?;
    let mut rows = exegete_store::read_steps(&run.path(&job.log()))?.rows;
    let mut density = exegete_store::read_density(&run.path(&job.density()))?;
    // They were written first, and may be ahead.
    rows.retain(|row| row.step < step);
    density.retain(|row| row.step <= step);
    Ok((states, rows, density))
}
