//! Our side: the cases of `bench/peer.py`, with the same names, inputs and lines.

use std::io::{BufRead, Write};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use exegete_base::settings::TrainSettings;
use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, GenerateOptions, Hooks, KvCache, Logits, Model};
use exegete_sae::train::{TrainState, Trainer};
use exegete_tensor::{Tape, f32s, tensor};
use serde_json::json;

use crate::machine::Phase;

pub(crate) const TOPK_D: usize = 768;
pub(crate) const TOPK_LATENTS: usize = 16_384;
pub(crate) const TOPK_BATCH: usize = 4096;
const TOPK_K: usize = 32;
const PROMPT: usize = 32;
const STEPS: usize = 32;

/// What is timed.
trait Case {
    /// Runs once; the seconds of the part that counts.
    fn run(&mut self) -> Result<f64>;
    /// What the last run computed, to be compared with the peer's.
    fn result(&mut self) -> Result<Vec<f32>>;
    /// The work that no implementation can avoid.
    fn phases(&self) -> Vec<Phase>;
}

/// Serves one case over standard input and output: `worker CASE FOLDER MODEL [--default-malloc]`.
pub(crate) fn serve(args: &[String]) -> Result<()> {
    let [case, folder, model, rest @ ..] = args else { bail!("worker CASE FOLDER MODEL [--default-malloc]") };
    if rest.is_empty() {
        exegete_tensor::alloc::keep_freed_memory();
    }
    let open = || Model::open(Path::new(model));
    let mut case: Box<dyn Case> = match case.as_str() {
        "prefill_8x128_f32" => Box::new(Prefill { model: open()?, batch: tokens(8, 128), logits: Vec::new() }),
        "decode_b1_f32" => Box::new(Decode { model: open()?, prompt: tokens(1, PROMPT), ids: Vec::new() }),
        "decode_b16_f32" => Box::new(Decode { model: open()?, prompt: tokens(16, PROMPT), ids: Vec::new() }),
        "fwdbwd_8x64_f32" => Box::new(Gradient { model: open()?, batch: tokens(8, 64), gradient: Vec::new() }),
        "train_topk_768x16384" => Box::new(SparseStep::open(Path::new(folder))?),
        other => bail!("unknown case {other}"),
    };
    let phases: Vec<(f64, f64)> = case.phases().iter().map(|p| (p.flops, p.bytes)).collect();
    // From here on the peak is that of running, as on the other side.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {}", json!({ "phases": phases }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("run", "") => writeln!(out, "{}", case.run()?)?,
            ("peak", "") => writeln!(out, "{}", peak_kib()?)?,
            ("result", path) => {
                let bytes: Vec<u8> = case.result()?.iter().flat_map(|v| v.to_le_bytes()).collect();
                std::fs::write(path, bytes)?;
                writeln!(out)?;
            }
            _ => bail!("unknown line {line:?}"),
        }
        out.flush()?;
    }
    Ok(())
}

fn peak_kib() -> Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with("VmHWM")).context("no VmHWM")?;
    Ok(line.split_whitespace().nth(1).context("VmHWM has no value")?.into())
}

/// Scattered token ids, the same as the other side's.
fn tokens(n_rows: usize, len: usize) -> Batch {
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

/// Operations of causal attention over whole sequences: scores and mixing, half of the square each.
fn attention_flops(model: &Model, batch: &Batch) -> f64 {
    let s = &model.spec;
    let len = batch.len().unwrap_or(0);
    (2 * s.n_layers * batch.n_rows() * len * (len + 1) * s.n_heads * s.d_head) as f64
}

struct Prefill {
    model: Model,
    batch: Batch,
    logits: Vec<f32>,
}

impl Case for Prefill {
    fn run(&mut self) -> Result<f64> {
        let start = Instant::now();
        let logits = self.model.run(&Tape::new(), &self.batch, None, &mut Hooks::none(), Logits::Last)?;
        let secs = start.elapsed().as_secs_f64();
        self.logits = f32s(logits.context("no logits")?.tensor())?.to_vec();
        Ok(secs)
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(self.logits.clone())
    }

    fn phases(&self) -> Vec<Phase> {
        let (blocks, unembed) = sizes(&self.model);
        let flops = 2.0 * (self.batch.ids.len() as f64 * blocks + self.batch.n_rows() as f64 * unembed);
        vec![Phase { flops: flops + attention_flops(&self.model, &self.batch), bytes: 4.0 * (blocks + unembed) }]
    }
}

/// Greedy steps behind a prompt; seconds of one step.
struct Decode {
    model: Model,
    prompt: Batch,
    ids: Vec<Vec<u32>>,
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

    /// The tokens, and the logits behind them, from the cache.
    fn result(&mut self) -> Result<Vec<f32>> {
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
        vec![Phase { flops, bytes: 4.0 * (blocks + unembed) }]
    }
}

/// Mean next-token loss and its gradient at the input embeddings.
struct Gradient {
    model: Model,
    batch: Batch,
    gradient: Vec<f32>,
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
        vec![Phase { flops, bytes: 8.0 * (blocks + unembed) }]
    }
}

/// A training step of a TopK dictionary, sparse where the codes are.
struct SparseStep {
    x: Vec<f32>,
    state: TrainState,
    trainer: Trainer,
    losses: Vec<f32>,
}

impl SparseStep {
    fn open(folder: &Path) -> Result<Self> {
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
        let products = Phase { flops: 2.0 * n * d * f + 8.0 * n * d * TOPK_K as f64, bytes: 0.0 };
        vec![products, Phase { flops: 0.0, bytes: 2.0 * 6.0 * 4.0 * d * f }]
    }
}
