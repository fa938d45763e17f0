//! Training the organism.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Result;
use exegete_lab::organism::{OrganismSettings, Trainer};
use exegete_model::Residence;

use super::Case;
use crate::machine::Phase;

const ROWS: usize = 32;
const LENGTH: usize = 128;

/// The organism's shape; the learning rate stays where it begins.
fn settings() -> OrganismSettings {
    OrganismSettings { warmup: 0.0, tokens: u64::MAX, lr: 1e-3, ..OrganismSettings::default() }
}

fn place(folder: &Path) -> PathBuf {
    folder.join("organism")
}

/// Writes what both sides begin with: the model before its training.
pub(crate) fn write_organism(folder: &Path) -> Result<()> {
    let trainer = Trainer::open(&place(folder), &settings(), 0, Residence::F32, None)?;
    Ok(std::fs::write(place(folder).join("model/model.safetensors"), trainer.weights(Residence::F32)?)?)
}

/// A step of training: forward, backward, clipping and AdamW.
pub(super) struct OrganismStep {
    trainer: Trainer,
    rows: Vec<Vec<u32>>,
    losses: Vec<f32>,
}

impl OrganismStep {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let trainer = Trainer::open(&place(folder), &settings(), 0, Residence::F32, None)?;
        let vocab = trainer.model().spec.vocab_size as u64;
        let ids = (0..(ROWS * (LENGTH + 1)) as u64).map(|i| ((i * 2_654_435_761 % (1 << 32)) % vocab) as u32);
        let rows = ids.collect::<Vec<_>>().chunks(LENGTH + 1).map(<[u32]>::to_vec).collect();
        Ok(Self { trainer, rows, losses: Vec::new() })
    }
}

impl Case for OrganismStep {
    fn run(&mut self) -> Result<f64> {
        let start = Instant::now();
        let step = self.trainer.step_on(&self.rows)?;
        let secs = start.elapsed().as_secs_f64();
        self.losses.push(step.loss as f32);
        Ok(secs)
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(self.losses.clone())
    }

    /// The products of all matrices, three times, but for the embedding, which is read by rows.
    fn phases(&self) -> Vec<Phase> {
        let spec = &self.trainer.model().spec;
        let multiplied = (spec.n_parameters() - spec.vocab_size * spec.d_model) as f64;
        vec![Phase { flops: 6.0 * multiplied * (ROWS * LENGTH) as f64, ..Phase::default() }]
    }
}
