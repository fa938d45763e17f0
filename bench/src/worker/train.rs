//! Dictionary training.

use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use exegete_base::settings::TrainSettings;
use exegete_sae::train::{TrainState, Trainer};

use super::Case;
use crate::machine::Phase;

pub(crate) const TOPK_D: usize = 768;
pub(crate) const TOPK_LATENTS: usize = 16_384;
pub(crate) const TOPK_BATCH: usize = 4096;
const TOPK_K: usize = 32;

/// A training step of a TopK dictionary, sparse where the codes are.
pub(super) struct SparseStep {
    x: Vec<f32>,
    state: TrainState,
    trainer: Trainer,
    losses: Vec<f32>,
}

impl SparseStep {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        let read = |name: &str| -> Result<Vec<f32>> {
            let bytes = std::fs::read(folder.join(name))?;
            Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
        };
        let settings = TrainSettings {
            latents: TOPK_LATENTS,
            k: TOPK_K,
            epochs: 1,
            batch: TOPK_BATCH,
            lr: 1e-4,
            warmup: 0.0,
            decay: 0.0,
            aux_weight: 0.0,
            aux_k: 0,
            dead_after_tokens: u64::MAX,
        };
        let state = TrainState::from_parts(TOPK_D, 1.0, read("w_dec.f32")?, vec![0.0; TOPK_D]);
        Ok(Self { x: read("x.f32")?, state, trainer: Trainer::new(settings, 1 << 20)?, losses: Vec::new() })
    }
}

impl Case for SparseStep {
    fn run(&mut self) -> Result<f64> {
        let start = Instant::now();
        let stats = self.trainer.step(&mut self.state, &self.x)?;
        let secs = start.elapsed().as_secs_f64();
        self.losses.push(stats.loss as f32);
        Ok(secs)
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(self.losses.clone())
    }

    /// The encoder's product, the four sparse products, and Adam's pass over weights and moments.
    fn phases(&self) -> Vec<Phase> {
        let (n, d, f) = (TOPK_BATCH as f64, TOPK_D as f64, TOPK_LATENTS as f64);
        let products = Phase { flops: 2.0 * n * d * f + 8.0 * n * d * TOPK_K as f64, ..Phase::default() };
        vec![products, Phase { bytes: 2.0 * 6.0 * 4.0 * d * f, ..Phase::default() }]
    }
}
