//! Our side: the cases of `bench/peer.py`, with the same names, inputs and lines.

mod cold;
mod dashboards;
mod layers;
mod organism;
mod runtime;
mod scores;
mod several;
mod train;

use std::io::{BufRead, Write};
use std::path::Path;

use anyhow::{Context, Result, bail};
use exegete_model::{LoadOptions, Model, Residence};
use serde_json::json;

use crate::machine::Phase;
use crate::side::Memory;
use cold::FirstToken;
use layers::{Lens, Stacks};
use organism::OrganismStep;
use runtime::{Decode, Gradient, Prefill};

pub(crate) use dashboards::write_dashboards;
pub(crate) use organism::write_organism;
pub(crate) use train::write_activations;

/// What is timed.
trait Case {
    /// Runs once; the seconds of the part that counts.
    fn run(&mut self) -> Result<f64>;
    /// What the last run computed, to be compared with the peer's.
    fn result(&mut self) -> Result<Vec<f32>>;
    /// The work that no implementation can avoid; none where that is not known.
    fn phases(&self) -> Vec<Phase> {
        Vec::new()
    }
}

/// Serves one case over standard input and output: `worker CASE FOLDER MODEL [--default-malloc]`.
pub(crate) fn serve(args: &[String]) -> Result<()> {
    let [case, folder, model, rest @ ..] = args else { bail!("worker CASE FOLDER MODEL [--default-malloc]") };
    if rest.is_empty() {
        exegete_tensor::alloc::keep_freed_memory();
    }
    let before = memory()?;
    let mut case = case_of(case, Path::new(folder), Path::new(model))?;
    // From here on the peak is that of running, as on the other side.
    std::fs::write("/proc/self/clear_refs", "5")?;
    let mut out = std::io::stdout().lock();
    writeln!(out, "ready {}", json!({ "phases": case.phases(), "before": before }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        match line.split_once(' ').unwrap_or((&line, "")) {
            ("run", "") => writeln!(out, "{}", case.run()?)?,
            ("peak", "") => writeln!(out, "{}", status_kib("VmHWM")?)?,
            ("memory", "") => writeln!(out, "{}", json!(memory()?))?,
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

fn case_of(case: &str, folder: &Path, model: &Path) -> Result<Box<dyn Case>> {
    let kept = |residence| Model::open_with(model, &LoadOptions { residence, ..LoadOptions::default() });
    let open = || kept(Residence::F32);
    Ok(match case {
        "prefill_8x128_f32" | "prefill_8x128_tl_f32" => Box::new(Prefill::new(open()?, 8, 128)),
        "prefill_8x128_bf16" => Box::new(Prefill::new(kept(Residence::Bf16)?, 8, 128)),
        "capture_all_layers_f32" => Box::new(Prefill::new(open()?, 8, 128).capturing()),
        "capture_all_layers_tl_f32" => Box::new(Prefill::new(open()?, 8, 128).capturing().showing()),
        "stored_resident" => Box::new(Prefill::new(kept(Residence::Stored)?, 1, 32)),
        "decode_b1_f32" => Box::new(Decode::new(open()?, 1)),
        "decode_b16_f32" => Box::new(Decode::new(open()?, 16)),
        "decode_b16_bf16" => Box::new(Decode::new(kept(Residence::Bf16)?, 16)),
        "fwdbwd_8x64_f32" => Box::new(Gradient::new(open()?, 8, 64)),
        "first_token_cold" => Box::new(FirstToken::new(model)?),
        "lens_all_layers" => Box::new(Lens::new(open()?, true)?),
        "lens_by_layer" => Box::new(Lens::new(open()?, false)?),
        "load_stacks" => Box::new(Stacks::new(&open()?, true)?),
        "load_per_layer" => Box::new(Stacks::new(&open()?, false)?),
        "dashboards_1k_128k" => Box::new(dashboards::Dashboards::open(open()?, folder)?),
        "dashboards_1k_128k_bf16" => Box::new(dashboards::Dashboards::open(kept(Residence::Bf16)?, folder)?),
        "detection_scores" => Box::new(scores::DetectionScores::new(open()?, folder)),
        "several_one_pass" => Box::new(several::Several::new(open()?, false)?),
        "several_apart" => Box::new(several::Several::new(open()?, true)?),
        "train_organism_32x128_f32" => Box::new(OrganismStep::open(folder)?),
        _ if case.starts_with("train_") => Box::new(train::Step::open(case, folder)?),
        _ if case.starts_with("encode_") => Box::new(train::Encode::open(case, folder)?),
        other => bail!("unknown case {other}"),
    })
}

/// Resident memory of this process.
fn memory() -> Result<Memory> {
    let mib = |key: &str| Ok::<f64, anyhow::Error>(status_kib(key)? as f64 / 1024.0);
    Ok(Memory { total: mib("VmRSS")?, anonymous: mib("RssAnon")?, mapped: mib("RssFile")? })
}

fn status_kib(key: &str) -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find(|line| line.starts_with(key)).with_context(|| format!("no {key}"))?;
    let value = line.split_whitespace().nth(1).with_context(|| format!("{key} has no value"))?;
    Ok(value.parse()?)
}
