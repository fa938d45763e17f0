//! `skeleton`: the model runtime and dictionary training against transformers and PyTorch, in f32 on two threads.
//!
//! Peer: `bench/peer.py`, in evaluation and inference mode with sdpa attention, on the same GGUF file dequantised
//! to f32. Its variants, each with the allocator's defaults and with the settings that ours makes, are all tried
//! and the fastest is measured; the row names it.

use std::io::BufWriter;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use exegete_base::sampling::pair_hash;
use exegete_sae::train::TrainState;

use crate::compare::compare;
use crate::machine::Machine;
use crate::side::Side;
use crate::worker::{TOPK_BATCH, TOPK_D, TOPK_LATENTS};
use crate::{Options, print, progress};

/// Rows, the peer's variants of each, and rounds.
const ROWS: &[(&str, &[&str], usize)] = &[
    ("prefill_8x128_f32", &["forward"], 15),
    ("decode_b1_f32", &["loop", "generate"], 15),
    ("decode_b16_f32", &["loop", "generate"], 15),
    ("fwdbwd_8x64_f32", &["autograd"], 15),
    ("train_topk_768x16384", &["fused", "foreach"], 11),
];

/// What `exegete_tensor::alloc::keep_freed_memory` sets, said to the C library from outside.
const KEEP_FREED: [(&str, &str); 3] =
    [("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "-1"), ("MALLOC_TOP_PAD_", "67108864")];

/// Runs the rows against the peer.
pub(crate) fn run(options: &Options) -> Result<()> {
    let python = std::env::var_os("EXEGETE_BENCH_PYTHON")
        .context("EXEGETE_BENCH_PYTHON does not name the peer's Python; `cargo xtask bench skeleton` sets it up")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("peer.py");
    rows(options, |row, variants, folder, model| {
        let mut candidates = Vec::new();
        for variant in variants {
            for kept in [true, false] {
                let mut command = Command::new(&python);
                command.arg(&script).args([row, variant]).args([folder, model]);
                command.env("TQDM_DISABLE", "1").envs(KEEP_FREED.into_iter().filter(|_| kept));
                let name = format!("pytorch {variant}, {} malloc", if kept { "same" } else { "default" });
                candidates.push(Side::start(&name, &mut command)?);
            }
        }
        Ok(candidates)
    })
}

/// The same rows of ours against ours with the allocator's defaults.
pub(crate) fn allocator(options: &Options) -> Result<()> {
    rows(options, |row, _, folder, model| {
        let mut command = worker(row, folder, model)?;
        Ok(vec![Side::start("ours, default malloc", command.arg("--default-malloc"))?])
    })
}

fn rows(options: &Options, peers: impl Fn(&str, &[&str], &Path, &Path) -> Result<Vec<Side>>) -> Result<()> {
    let model = model()?;
    let folder = tempfile::tempdir()?;
    let machine = Machine::measure();
    progress(format_args!("machine: {:.0} GFLOP/s, {:.1} GB/s", machine.flops / 1e9, machine.bytes / 1e9));
    for (row, variants, rounds) in ROWS {
        if options.only.as_ref().is_some_and(|only| !row.starts_with(only.as_str())) {
            continue;
        }
        if row.starts_with("train") {
            write_training(folder.path())?;
        }
        let ours = Side::start("ours", &mut worker(row, folder.path(), &model)?)?;
        let candidates = peers(row, variants, folder.path(), &model)?;
        let rounds = options.rounds.unwrap_or(*rounds);
        print(&compare(row, ours, candidates, rounds, machine, folder.path())?, options.json)?;
    }
    Ok(())
}

fn worker(row: &str, folder: &Path, model: &Path) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["worker", row]).args([folder, model]);
    Ok(command)
}

fn model() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set, so there is no place for ~/.cache/exegete")?;
    let path = PathBuf::from(home).join(".cache/exegete/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    ensure!(path.is_file(), "{} is not there: run cargo xtask models", path.display());
    Ok(path)
}

/// What both sides train on: standard normal activations, and the decoder to start from.
fn write_training(folder: &Path) -> Result<()> {
    let x: Vec<f32> = (0..TOPK_BATCH * TOPK_D).map(|i| gaussian(i as u64)).collect();
    let start = TrainState::init(TOPK_D, TOPK_LATENTS, 1.0, &vec![0.0; TOPK_D], 1);
    for (name, values) in [("x.f32", &x), ("w_dec.f32", &start.w_dec.w)] {
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
