//! Dictionary training and encoding.

use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use exegete_base::sampling::pair_hash;
use exegete_base::settings::{Activation, DecoderRows, Penalty, Reconstruction, TrainSettings};
use exegete_sae::train::{TrainState, Trainer};
use exegete_sae::{Dictionary, Sae};

use super::Case;
use crate::machine::Phase;

/// Tokens of a step.
const BATCH: usize = 4096;
const K: usize = 32;
/// Where thresholds lie, or biases below 0: of standard normal pre-activations so few are above it that about 64 of 16,384
/// latents are active, as in most of a training.
const SPARSE: f32 = 2.66;

/// A case by its name: `train_KIND_WIDTHxLATENTS`, `encode_KIND_WIDTHxLATENTS`. `relu-dense` is ReLU at its very start,
/// with half of all latents active.
struct Shape<'a> {
    kind: &'a str,
    d: usize,
    latents: usize,
}

impl<'a> Shape<'a> {
    fn of(case: &'a str) -> Result<Self> {
        let mut parts = case.splitn(3, '_').skip(1);
        let (kind, sizes) = parts.next().zip(parts.next()).context("a case is train_KIND_WIDTHxLATENTS")?;
        let (d, latents) = sizes.split_once('x').context("sizes are WIDTHxLATENTS")?;
        Ok(Self { kind, d: d.parse()?, latents: latents.parse()? })
    }

    fn settings(&self) -> Result<TrainSettings> {
        let activation = match self.kind {
            "topk" => Activation::TopK,
            "batchtopk" => Activation::BatchTopK,
            "relu" | "relu-dense" => Activation::Relu,
            "jumprelu" => Activation::JumpRelu,
            other => bail!("unknown kind {other}"),
        };
        Ok(TrainSettings {
            latents: self.latents,
            activation,
            k: K,
            penalty: Penalty::Auto,
            sparsity: 0.1,
            sparsity_warmup: 0.0,
            threshold: f64::from(SPARSE),
            bandwidth: 0.5,
            decoder_rows: DecoderRows::Free,
            reconstruction: Reconstruction::Mse,
            epochs: 1,
            batch: BATCH,
            lr: 1e-4,
            warmup: 0.0,
            decay: 0.0,
            aux_weight: 0.0,
            ..TrainSettings::default()
        })
    }

    /// The bias of every latent.
    fn bias(&self) -> f32 {
        if self.kind == "relu" { -SPARSE } else { 0.0 }
    }

    fn state(&self, folder: &Path) -> Result<(TrainSettings, TrainState)> {
        let (settings, w) = (self.settings()?, read(folder, "w_dec.f32")?);
        let mut state = TrainState::from_parts(&settings, self.d, 1.0, w.clone(), w, vec![0.0; self.d]);
        state.b_enc.values.fill(self.bias());
        Ok((settings, state))
    }
}

fn read(folder: &Path, name: &str) -> Result<Vec<f32>> {
    let bytes = std::fs::read(folder.join(name))?;
    Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
}

/// Writes what both sides train on, or encode: standard normal activations, and the decoder to start from.
pub(crate) fn write_activations(case: &str, folder: &Path) -> Result<()> {
    let shape = Shape::of(case)?;
    let x: Vec<f32> = (0..BATCH * shape.d).map(|i| gaussian(i as u64)).collect();
    let start = TrainState::init(&shape.settings()?, shape.d, 1.0, &vec![0.0; shape.d], 1);
    for (name, values) in [("x.f32", &x), ("w_dec.f32", &start.w_dec.values)] {
        let mut file = BufWriter::new(std::fs::File::create(folder.join(name))?);
        values.iter().try_for_each(|v| file.write_all(&v.to_le_bytes()))?;
        file.flush()?;
    }
    Ok(())
}

/// A standard normal number by hash (Box-Muller).
fn gaussian(i: u64) -> f32 {
    let hash = pair_hash(2, i, 0);
    let unit = |bits: u64| (bits as f64 + 0.5) / 4_294_967_296.0;
    let (a, b) = (unit(hash >> 32), unit(hash & 0xffff_ffff));
    ((-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}

/// A training step.
pub(super) struct Step {
    x: Vec<f32>,
    state: TrainState,
    trainer: Trainer,
    /// The squared error of the first step, before anything has moved, and its number of active latents.
    first: Option<[f32; 2]>,
}

impl Step {
    pub(super) fn open(case: &str, folder: &Path) -> Result<Self> {
        let (settings, state) = Shape::of(case)?.state(folder)?;
        Ok(Self { x: read(folder, "x.f32")?, state, trainer: Trainer::new(settings, 1 << 20)?, first: None })
    }
}

impl Case for Step {
    fn run(&mut self) -> Result<f64> {
        let start = Instant::now();
        let stats = self.trainer.step(&mut self.state, &self.x, None)?;
        let secs = start.elapsed().as_secs_f64();
        let error = stats.loss - stats.sparsity * stats.penalty;
        self.first.get_or_insert([error as f32, stats.l0 as f32]);
        Ok(secs)
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(self.first.context("nothing has run")?.to_vec())
    }

    /// The encoder's product, the four products of the active latents, and Adam's pass over weights and moments.
    fn phases(&self) -> Vec<Phase> {
        let (n, d, f) = (BATCH as f64, self.state.d as f64, self.state.n_latents() as f64);
        let active = self.first.map_or(K as f64, |first| f64::from(first[1]));
        let products = Phase { flops: 2.0 * n * d * f + 8.0 * n * d * active, ..Phase::default() };
        vec![products, Phase { bytes: 2.0 * 6.0 * 4.0 * d * f, ..Phase::default() }]
    }
}

/// Codes of a batch.
pub(super) struct Encode {
    x: Vec<f32>,
    sae: Sae,
    first: Option<[f32; 2]>,
}

impl Encode {
    pub(super) fn open(case: &str, folder: &Path) -> Result<Self> {
        let (settings, state) = Shape::of(case)?.state(folder)?;
        Ok(Self { x: read(folder, "x.f32")?, sae: state.dictionary(&settings), first: None })
    }
}

impl Case for Encode {
    fn run(&mut self) -> Result<f64> {
        let start = Instant::now();
        let codes = self.sae.encode(&self.x)?;
        let secs = start.elapsed().as_secs_f64();
        let sum: f64 = codes.values().iter().map(|v| f64::from(*v)).sum();
        self.first = Some([sum as f32, codes.n_active() as f32]);
        Ok(secs)
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(self.first.context("nothing has run")?.to_vec())
    }

    fn phases(&self) -> Vec<Phase> {
        let (d, f) = (self.sae.d_in as f64, self.sae.n_latents() as f64);
        vec![Phase { flops: 2.0 * BATCH as f64 * d * f, ..Phase::default() }]
    }
}
