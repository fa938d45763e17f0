//! A cache of activations as delphi writes it, and its explanations.
//!
//! ```text
//! latents/MODULE/config.json               ctx_len and cache_ctx_len, since its writer says one and a reader asks for the other
//! latents/MODULE/START_END.safetensors     locations [n, 3] (row, position, latent - START), activations [n], tokens [rows, ctx]
//! explanations/MODULE_latentN.txt          one JSON string
//! ```
//!
//! Rows are our windows. Windows end with their documents, and delphi's rows are all of one length: what is missing is filled
//! with a token on which nothing fires.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::RunSource;
use crate::activations::{Activation, ActivationReader};
use crate::atomic::{AtomicWriter, write_atomic};
use crate::error::{Result, StoreError};

/// Activations up to this size count as none, as in delphi.
const SILENT: f32 = 1e-5;
/// Where a whole number no longer fits delphi's narrow locations.
const NARROW: usize = 1 << 16;

/// How a cache is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelphiSettings {
    /// The module that the dictionary reads, as delphi names it: `layers.5`.
    pub module: String,
    /// Files that the latents are split over.
    pub n_splits: usize,
    /// Token that fills up short windows.
    pub pad_token: u32,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DelphiWritten {
    /// Files of activations.
    pub files: usize,
    /// Firings in them.
    pub firings: u64,
    /// Rows of tokens, and the tokens of each.
    pub rows: usize,
    /// Tokens of a row.
    pub ctx_len: usize,
    /// Latents with an explanation.
    pub explanations: usize,
}

/// The module that delphi would name for a site: blocks count from the input, and the stream before a block is the output of
/// the one before it. A site that it has no module for keeps its name.
pub fn module_of(site: &str) -> String {
    let known = site.strip_prefix("blocks.").and_then(|rest| rest.split_once('.'));
    let Some((layer, hook)) = known.and_then(|(layer, hook)| Some((layer.parse::<u32>().ok()?, hook))) else {
        return site.into();
    };
    match hook {
        "hook_resid_post" => format!("layers.{layer}"),
        "hook_resid_pre" if layer > 0 => format!("layers.{}", layer - 1),
        "hook_mlp_out" => format!("layers.{layer}.mlp"),
        "hook_attn_out" => format!("layers.{layer}.attention"),
        _ => site.into(),
    }
}

/// Writes a run's activations as a cache under `out`.
///
/// # Memory
/// The firings of one file, and some windows.
///
/// # Errors
/// [`StoreError::Missing`] where the harvest kept none, what is wrong with a part, and the disk's.
pub fn write(source: &RunSource, out: &Path, settings: &DelphiSettings) -> Result<DelphiWritten> {
    let parts = source.parts("activations/part-");
    if parts.is_empty() {
        return Err(StoreError::Missing {
            path: source.run().dir().to_owned(),
            what: "activations (activations/part-*.parquet)",
            cure: "harvest it with --keep-activations",
        });
    }
    let reader = ActivationReader::open(&parts)?;
    let width = source.latents().last().map_or(0, |row| row.latent.0 as usize + 1);
    let rows = source.tokens().len();
    let mut ctx_len = 0;
    for row in 0..rows {
        ctx_len = ctx_len.max(source.tokens().window(row)?.map_or(0, |w| w.token_ids.len()));
    }
    let n_splits = settings.n_splits.clamp(1, width.max(1));
    let dir = out.join("latents").join(&settings.module);
    let mut written = DelphiWritten { files: 0, firings: 0, rows, ctx_len, explanations: 0 };
    for split in 0..n_splits {
        let (first, end) = (width * split / n_splits, width * (split + 1) / n_splits);
        if first == end {
            continue;
        }
        let latents = first as u32..=end as u32 - 1;
        let firings = firings_of(&reader, &latents, (rows, ctx_len), &parts[0])?;
        let path = dir.join(format!("{first}_{}.safetensors", end - 1));
        let narrow = rows < NARROW && ctx_len < NARROW && end - first < NARROW;
        write_file(&path, source, &firings, *latents.start(), narrow, (rows, ctx_len), settings.pad_token)?;
        written.files += 1;
        written.firings += firings.len() as u64;
    }
    let config = config(source, settings, &written, n_splits);
    write_atomic(&dir.join("config.json"), |w| Ok(serde_json::to_writer_pretty(w, &config)?))?;
    written.explanations = write_explanations(source, out, &settings.module)?;
    Ok(written)
}

fn firings_of(
    reader: &ActivationReader,
    latents: &RangeInclusive<u32>,
    (rows, ctx_len): (usize, usize),
    part: &Path,
) -> Result<Vec<Activation>> {
    let mut firings = reader.range(latents.clone())?;
    firings.retain(|a| a.value.abs() > SILENT);
    match firings.iter().find(|a| a.row as usize >= rows || a.position as usize >= ctx_len) {
        Some(a) => {
            let told = format!(
                "a firing of latent {} lies at row {}, position {}, which the run does not have",
                a.latent, a.row, a.position
            );
            Err(StoreError::damaged(part, told))
        }
        None => Ok(firings),
    }
}

fn write_file(
    path: &Path,
    source: &RunSource,
    firings: &[Activation],
    first: u32,
    narrow: bool,
    (rows, ctx_len): (usize, usize),
    pad_token: u32,
) -> Result<()> {
    // The widest numbers first, so that each tensor lies at a multiple of its width.
    let tensors = [
        ("activations", "F32", vec![firings.len()], 4),
        ("tokens", "I32", vec![rows, ctx_len], 4),
        ("locations", if narrow { "U16" } else { "U32" }, vec![firings.len(), 3], if narrow { 2 } else { 4 }),
    ];
    let (mut header, mut offset) = (Map::new(), 0);
    for (name, dtype, shape, width) in tensors {
        let end = offset + shape.iter().product::<usize>() * width;
        header.insert(name.into(), json!({ "dtype": dtype, "shape": shape, "data_offsets": [offset, end] }));
        offset = end;
    }
    let mut header = Value::Object(header).to_string();
    header.extend(std::iter::repeat_n(' ', header.len().next_multiple_of(8) - header.len()));
    // Reading a window may fail in the midst of writing; that error is the one to tell.
    let mut failed = None;
    let done = write_atomic(path, |w| {
        w.write_all(&(header.len() as u64).to_le_bytes())?;
        w.write_all(header.as_bytes())?;
        for firing in firings {
            w.write_all(&firing.value.to_le_bytes())?;
        }
        for row in 0..rows {
            if let Err(error) = write_row(w, source, row, ctx_len, pad_token)? {
                failed = Some(error);
                return Err(io::Error::other("a window cannot be read"));
            }
        }
        for firing in firings {
            for number in [firing.row, firing.position, firing.latent - first] {
                match narrow {
                    true => w.write_all(&(number as u16).to_le_bytes())?,
                    false => w.write_all(&number.to_le_bytes())?,
                }
            }
        }
        Ok(())
    });
    match failed {
        Some(error) => Err(error),
        None => done.map(drop),
    }
}

/// Writes a window, filled up; an error of the disk outside, one of the run inside.
fn write_row(w: &mut AtomicWriter, source: &RunSource, row: usize, ctx_len: usize, pad: u32) -> io::Result<Result<()>> {
    let window = match source.tokens().window(row) {
        Ok(window) => window.map_or(Vec::new(), |w| w.token_ids),
        Err(error) => return Ok(Err(error)),
    };
    for id in window.into_iter().chain(std::iter::repeat(pad)).take(ctx_len) {
        w.write_all(&id.to_le_bytes())?;
    }
    Ok(Ok(()))
}

fn config(source: &RunSource, settings: &DelphiSettings, written: &DelphiWritten, n_splits: usize) -> Value {
    json!({
        "dataset_repo": source.ground().dataset.unwrap_or_default(),
        "dataset_split": "",
        "dataset_name": "",
        "dataset_column": "text",
        "batch_size": 32,
        "ctx_len": written.ctx_len,
        "cache_ctx_len": written.ctx_len,
        "n_tokens": written.rows * written.ctx_len,
        "n_splits": n_splits,
        "model_name": source.model().unwrap_or_default(),
        "pad_token": settings.pad_token,
    })
}

fn write_explanations(source: &RunSource, out: &Path, module: &str) -> Result<usize> {
    let mut n = 0;
    for row in source.latents() {
        if let Some(said) = source.explanations(row.latent)?.first() {
            let path = out.join("explanations").join(format!("{module}_latent{}.txt", row.latent.0));
            write_atomic(&path, |w| w.write_all(json!(said.text).to_string().as_bytes()))?;
            n += 1;
        }
    }
    Ok(n)
}
