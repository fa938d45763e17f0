//! Forward passes, generation and gradients of a model.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, GenerateOptions, Hooks, KvCache, Logits, Model};
use exegete_tensor::{Keep, Tape, f32s, tensor};

use super::Case;
use crate::machine::Phase;

const PROMPT: usize = 32;
const STEPS: usize = 32;

/// Scattered token ids, the same as the other side's.
pub(super) fn tokens(n_rows: usize, len: usize) -> Batch {
    let ids = (0..(n_rows * len) as u64).map(|i| (i * 2_654_435_761 % (1 << 32) % 49_152) as u32).collect();
    Batch::uniform(ids, n_rows)
}

/// Weights in the blocks, weights of the unembedding.
fn sizes(model: &Model) -> (f64, f64) {
    let s = &model.spec;
    let (d, q, kv) = (s.d_model, s.n_heads * s.d_head, s.n_kv_heads * s.d_head);
    let layer = 2 * d * q + 2 * d * kv + 3 * d * s.d_mlp;
    ((s.n_layers * layer) as f64, (d * s.vocab_size) as f64)
}

/// A phase of products with the weights as they are kept, which are read once.
fn products(model: &Model, flops: f64, weights: f64) -> Phase {
    match model.weights.embed.keep() {
        Some(Keep::Bf16) => Phase { bf16_flops: flops, bytes: 2.0 * weights, ..Phase::default() },
        _ => Phase { flops, bytes: 4.0 * weights, ..Phase::default() },
    }
}

/// Operations of causal attention over whole sequences: scores and mixing, half of the square each.
fn attention_flops(model: &Model, batch: &Batch) -> f64 {
    let s = &model.spec;
    let len = batch.len().unwrap_or(0);
    (2 * s.n_layers * batch.n_rows() * len * (len + 1) * s.n_heads * s.d_head) as f64
}

/// Logits of the last position; with the residual stream behind every layer read, if asked for.
pub(super) struct Prefill {
    model: Model,
    batch: Batch,
    taps: Vec<Site>,
    /// Whether what was read is part of the result.
    shown: bool,
    logits: Vec<f32>,
}

impl Prefill {
    pub(super) fn new(model: Model, n_rows: usize, len: usize) -> Self {
        Self { model, batch: tokens(n_rows, len), taps: Vec::new(), shown: false, logits: Vec::new() }
    }

    /// Reads the residual stream behind every layer.
    pub(super) fn capturing(self) -> Self {
        let taps = (0..self.model.spec.n_layers).map(|l| Site::at(SiteKind::ResidPost, l)).collect();
        Self { taps, ..self }
    }

    /// Makes what was read part of the result: each layer's last position of the first row.
    pub(super) fn showing(self) -> Self {
        Self { shown: true, ..self }
    }
}

impl Case for Prefill {
    fn run(&mut self) -> Result<f64> {
        let mut hooks = self.taps.iter().fold(Hooks::none(), |hooks, site| hooks.tap(*site));
        let start = Instant::now();
        let logits = self.model.run(&Tape::new(), &self.batch, None, &mut hooks, Logits::Last)?;
        let secs = start.elapsed().as_secs_f64();
        self.logits = f32s(logits.context("no logits")?.tensor())?.to_vec();
        let len = self.batch.len().context("rows of several lengths")?;
        for site in self.taps.iter().filter(|_| self.shown) {
            let value = hooks.value(*site).context("a site was not read")?;
            let d = self.model.spec.d_model;
            self.logits.extend_from_slice(&f32s(value.tensor())?[(len - 1) * d..len * d]);
        }
        Ok(secs)
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(self.logits.clone())
    }

    fn phases(&self) -> Vec<Phase> {
        let (blocks, unembed) = sizes(&self.model);
        let flops = 2.0 * (self.batch.ids.len() as f64 * blocks + self.batch.n_rows() as f64 * unembed);
        vec![products(&self.model, flops + attention_flops(&self.model, &self.batch), blocks + unembed)]
    }
}

/// Greedy steps behind a prompt; seconds of one step.
pub(super) struct Decode {
    model: Model,
    prompt: Batch,
    ids: Vec<Vec<u32>>,
}

impl Decode {
    pub(super) fn new(model: Model, n_rows: usize) -> Self {
        Self { model, prompt: tokens(n_rows, PROMPT), ids: Vec::new() }
    }

    /// Logits behind given tokens, one a step. In bf16 two programs soon take different tokens, after which their
    /// logits say nothing about each other.
    fn forced(&self) -> Result<Vec<f32>> {
        let (model, n_rows) = (&self.model, self.prompt.n_rows());
        let all = tokens(n_rows, PROMPT + STEPS).ids;
        let rows = || all.chunks_exact(PROMPT + STEPS);
        let mut cache = KvCache::new(&model.spec, n_rows, PROMPT + STEPS)?;
        let prompt = Batch::uniform(rows().flat_map(|row| &row[..PROMPT]).copied().collect(), n_rows);
        let mut logits = model.run(&Tape::new(), &prompt, Some(&mut cache), &mut Hooks::none(), Logits::Last)?;
        for at in PROMPT..PROMPT + STEPS {
            let step = Batch::uniform(rows().map(|row| row[at]).collect(), n_rows);
            logits = model.run(&Tape::new(), &step, Some(&mut cache), &mut Hooks::none(), Logits::Last)?;
        }
        Ok(f32s(logits.context("no logits")?.tensor())?.to_vec())
    }
}

impl Case for Decode {
    fn run(&mut self) -> Result<f64> {
        let (model, hooks) = (&self.model, &mut Hooks::none());
        let mut cache = KvCache::new(&model.spec, self.prompt.n_rows(), PROMPT + STEPS)?;
        let once = |n| GenerateOptions::greedy(n, Vec::new());
        let first = model.generate_behind(&mut cache, self.prompt.clone(), &once(1), hooks)?.ids.concat();
        let step = Batch::uniform(first, self.prompt.n_rows());
        let start = Instant::now();
        self.ids = model.generate_behind(&mut cache, step, &once(STEPS), hooks)?.ids;
        Ok(start.elapsed().as_secs_f64() / STEPS as f64)
    }

    /// The tokens, and the logits behind them, from the cache; in bf16 the logits behind given tokens.
    fn result(&mut self) -> Result<Vec<f32>> {
        if self.model.weights.embed.keep() == Some(Keep::Bf16) {
            return self.forced();
        }
        let (model, n_rows) = (&self.model, self.prompt.n_rows());
        let mut cache = KvCache::new(&model.spec, n_rows, PROMPT + STEPS + 1)?;
        let options = GenerateOptions::greedy(STEPS + 1, Vec::new());
        let ids = model.generate_behind(&mut cache, self.prompt.clone(), &options, &mut Hooks::none())?.ids;
        let timed = ids.iter().zip(&self.ids).all(|(whole, timed)| whole[1..] == timed[..]);
        ensure!(timed, "generation in one go and in two pieces differ");
        let last = ids.iter().map(|ids| ids[STEPS]).collect();
        let step = Batch::uniform(last, n_rows);
        let logits = model.run(&Tape::new(), &step, Some(&mut cache), &mut Hooks::none(), Logits::Last)?;
        let logits = logits.context("no logits")?;
        let mut out: Vec<f32> = self.ids.concat().iter().map(|id| *id as f32).collect();
        out.extend_from_slice(&f32s(logits.tensor())?);
        Ok(out)
    }

    fn phases(&self) -> Vec<Phase> {
        let (blocks, unembed) = sizes(&self.model);
        let flops = 2.0 * self.prompt.n_rows() as f64 * (blocks + unembed);
        vec![products(&self.model, flops, blocks + unembed)]
    }
}

/// Mean next-token loss and its gradient at the input embeddings.
pub(super) struct Gradient {
    model: Model,
    batch: Batch,
    gradient: Vec<f32>,
}

impl Gradient {
    pub(super) fn new(model: Model, n_rows: usize, len: usize) -> Self {
        Self { model, batch: tokens(n_rows, len), gradient: Vec::new() }
    }
}

impl Case for Gradient {
    fn run(&mut self) -> Result<f64> {
        let (model, batch) = (&self.model, &self.batch);
        let start = Instant::now();
        let tape = Tape::new();
        let embed = Site::global(SiteKind::Embed);
        let mut hooks = Hooks::none().watch(embed);
        let logits = model.run(&tape, batch, None, &mut hooks, Logits::All)?.context("no logits")?;
        let flat = tape.reshape(&logits, &[batch.ids.len(), model.spec.vocab_size])?;
        let len = batch.len().context("rows of several lengths")?;
        let rows: Vec<u32> = (0..batch.ids.len() as u32).filter(|i| !(*i as usize + 1).is_multiple_of(len)).collect();
        let targets: Vec<u32> = rows.iter().map(|i| batch.ids[*i as usize + 1]).collect();
        let loss_N = tape.cross_entropy(&tape.rows(&flat, &rows)?, &targets)?;
        let n = targets.len();
        let seed = tensor(vec![1.0 / n as f32; n], n)?;
        let grads = tape.gradients(&loss_N, &seed, &[hooks.value(embed).context("not watched")?])?;
        let secs = start.elapsed().as_secs_f64();
        self.gradient = f32s(&grads[0])?.to_vec();
        Ok(secs)
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(self.gradient.clone())
    }

    fn phases(&self) -> Vec<Phase> {
        let (blocks, unembed) = sizes(&self.model);
        let forward = 2.0 * self.batch.ids.len() as f64 * (blocks + unembed);
        // Backward: the same products once more, and attention's twice.
        let flops = 2.0 * forward + 3.0 * attention_flops(&self.model, &self.batch);
        vec![products(&self.model, flops, 2.0 * (blocks + unembed))]
    }
}
