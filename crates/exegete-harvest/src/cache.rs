//! The activation cache: one site's activations over all windows, written once, used for training and harvest.
//!
//! Position 0 of every window is left out (attention sinks live there, with norms many times the others'), so a
//! window of n tokens has n - 1 rows. The model always runs batches of one shape, padded, so that a row's bits do
//! not depend on what else is in the batch.

use std::path::PathBuf;

use exegete_base::{Site, sampling};
use exegete_model::{Batch, Hooks, Logits, Model};
use exegete_store::{Run, StoreError, TokenReader, Window};
use exegete_tensor::{Tape, f32s};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;

use crate::{HarvestError, Progress, Result};

/// The stage's name in the manifest.
pub const STAGE: &str = "cache";
/// Windows in a part.
const PART: usize = 256;
/// Windows in a batch of the model.
const BATCH: usize = 8;

fn part_rel(idx: usize) -> String {
    format!("cache/part-{idx:05}.safetensors")
}

/// Where the rows of a window lie in the cache.
#[derive(Debug, Clone)]
pub struct WindowRows {
    /// The window.
    pub window: Window,
    /// Its first row; the row of position p is `first + p - 1`.
    pub first: u64,
}

impl WindowRows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.window.token_ids.len() - 1
    }

    /// Whether the window has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All windows with their places in the cache.
///
/// # Errors
/// Unreadable token parts.
pub fn window_rows(tokens: &TokenReader) -> Result<Vec<WindowRows>> {
    let (mut rows, mut first) = (Vec::with_capacity(tokens.len()), 0);
    for i in 0..tokens.len() {
        let window = tokens.window(i)?.ok_or_else(|| HarvestError::Request(format!("token window {i} is missing")))?;
        let entry = WindowRows { window, first };
        first += entry.len() as u64;
        rows.push(entry);
    }
    Ok(rows)
}

/// Runs the model over all windows up to the site and writes its activations.
///
/// # Errors
/// A site that is no residual-width site of the model, failures of the model or the disk.
pub fn run(
    run: &mut Run,
    model: &Model,
    site: Site,
    windows: &[WindowRows],
    window_len: usize,
    progress: &dyn Progress,
) -> Result<()> {
    if run.stage(STAGE).is_some() {
        return Ok(());
    }
    let site = model.spec.site(site).map_err(exegete_model::ModelError::from)?;
    let layer = site.layer;
    let d = model.spec.site_width(site, 0);
    let n_rows: u64 = windows.iter().map(|w| w.len() as u64).sum();
    let parts: Vec<&[WindowRows]> = windows.chunks(PART).collect();
    let rows_of = |part: &[WindowRows]| part.iter().map(|w| w.len() as u64).sum::<u64>();
    let mut done: u64 = (0..parts.len()).filter(|i| run.part_done(&part_rel(*i))).map(|i| rows_of(parts[i])).sum();
    progress.begin(STAGE, n_rows, "tokens", done);
    for (i, part) in parts.iter().enumerate() {
        if run.part_done(&part_rel(i)) {
            continue;
        }
        let mut acts: Vec<f32> = Vec::with_capacity(rows_of(part) as usize * d);
        for batch in part.chunks(BATCH) {
            progress.check()?;
            let before = acts.len();
            activations(model, site, layer, batch, window_len, d, &mut acts)?;
            if acts[before..].iter().any(|x| !x.is_finite()) {
                let doc = batch[0].window.doc;
                let place = format!("in or near document {} of text file {}", doc.record_idx(), doc.source_idx());
                return Err(HarvestError::Request(format!("activations at {site} are not finite {place}")));
            }
            done += rows_of(batch);
            progress.at(done, "");
        }
        let bytes = encode_part(&acts, d)?;
        run.commit_part(&part_rel(i), rows_of(part), |w| std::io::Write::write_all(w, &bytes))?;
    }
    let summary = json!({
        "rows": n_rows, "d_model": d, "site": site.to_string(),
        "model": model.path.file_name().map(|n| n.to_string_lossy()), "position_0": "left out",
    });
    run.finish_stage(STAGE, summary)?;
    progress.end(&format!("{n_rows} activations of width {d} at {site}"));
    Ok(())
}

/// Appends the activations of a batch's windows, position 0 left out.
fn activations(
    model: &Model,
    site: Site,
    layer: Option<usize>,
    windows: &[WindowRows],
    len: usize,
    d: usize,
    acts: &mut Vec<f32>,
) -> Result<()> {
    // Short windows and missing rows are padded with token 0 behind the text, which nothing before it can see.
    let mut ids = vec![0u32; BATCH * len];
    for (row, w) in ids.chunks_exact_mut(len).zip(windows) {
        row[..w.window.token_ids.len()].copy_from_slice(&w.window.token_ids);
    }
    let batch = Batch::uniform(ids, BATCH);
    let mut hooks = Hooks::none().tap(site);
    hooks.stop_after_layer = layer;
    let logits = if layer.is_none() { Logits::All } else { Logits::None };
    model.run(&Tape::new(), &batch, None, &mut hooks, logits)?;
    let value = hooks.value(site).ok_or_else(|| HarvestError::Request(format!("{site} was not reached")))?;
    let values = f32s(value.tensor())?;
    for (row, w) in values.chunks_exact(len * d).zip(windows) {
        acts.extend_from_slice(&row[d..w.window.token_ids.len() * d]);
    }
    Ok(())
}

fn encode_part(acts: &[f32], d: usize) -> Result<Vec<u8>> {
    let mut bytes = vec![0u8; acts.len() * 4];
    bytes.as_chunks_mut::<4>().0.iter_mut().zip(acts).for_each(|(b, v)| *b = v.to_le_bytes());
    let fail = |e: safetensors::SafeTensorError| HarvestError::Request(format!("cannot lay out activations: {e}"));
    let view = TensorView::new(Dtype::F32, vec![acts.len() / d, d], &bytes).map_err(fail)?;
    safetensors::serialize([("acts", view)], None).map_err(fail)
}

/// The cache, opened for reading.
pub struct ActivationCache {
    parts: Vec<CachePart>,
    d: usize,
    n_rows: u64,
}

struct CachePart {
    map: Mmap,
    /// Where the values begin in the file.
    data: usize,
    first: u64,
    rows: u64,
}

impl ActivationCache {
    /// Opens the cache of a run.
    ///
    /// # Errors
    /// Missing or damaged parts.
    pub fn open(run: &Run) -> Result<Self> {
        let (mut parts, mut d, mut n_rows): (Vec<CachePart>, _, _) = (Vec::new(), 0, 0);
        for path in run.parts_under("cache/part-") {
            let (map, data, shape) = open_part(&path)?;
            if d != 0 && d != shape[1] {
                return Err(damaged(&path, "its width differs from that of the other parts"));
            }
            d = shape[1];
            parts.push(CachePart { map, data, first: n_rows, rows: shape[0] as u64 });
            n_rows += shape[0] as u64;
        }
        if parts.is_empty() {
            return Err(HarvestError::Request(
                "this run holds no activation cache (it was removed after the harvest)".into(),
            ));
        }
        Ok(Self { parts, d, n_rows })
    }

    /// Width of a row.
    pub fn d(&self) -> usize {
        self.d
    }

    /// Number of rows.
    pub fn n_rows(&self) -> u64 {
        self.n_rows
    }

    /// Copies a row.
    fn read(&self, row: u64, out: &mut [f32]) {
        let part = &self.parts[self.parts.partition_point(|p| p.first + p.rows <= row)];
        let from = part.data + (row - part.first) as usize * self.d * 4;
        for (o, b) in out.iter_mut().zip(part.map[from..from + self.d * 4].as_chunks::<4>().0) {
            *o = f32::from_le_bytes(*b);
        }
    }

    /// Copies rows, in the order given. Rows must exist.
    pub fn gather(&self, rows: &[u64], out_ND: &mut Vec<f32>) {
        out_ND.resize(rows.len() * self.d, 0.0);
        out_ND.par_chunks_exact_mut(self.d).zip(rows).for_each(|(out, row)| self.read(*row, out));
    }

    /// Copies the rows `first..first + n`.
    pub fn range(&self, first: u64, n: usize, out_ND: &mut Vec<f32>) {
        let rows: Vec<u64> = (first..first + n as u64).collect();
        self.gather(&rows, out_ND);
    }
}

fn damaged(path: &std::path::Path, detail: &str) -> HarvestError {
    HarvestError::Request(format!("{}: {detail}; remove the run and start again", path.display()))
}

fn open_part(path: &PathBuf) -> Result<(Mmap, usize, Vec<usize>)> {
    let io = |source| StoreError::Io { action: "open", path: path.clone(), source };
    let file = std::fs::File::open(path).map_err(io)?;
    // SAFETY: the map is read-only, and the run's lock keeps other writers away.
    let map = unsafe { Mmap::map(&file) }.map_err(io)?;
    let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| damaged(path, &e.to_string()))?;
    let info = metadata.info("acts").filter(|i| i.dtype == Dtype::F32 && i.shape.len() == 2 && i.shape[1] > 0);
    let info = info.ok_or_else(|| damaged(path, "no tensor \"acts\" of two axes"))?;
    let (from, to) = info.data_offsets;
    let data = header + 8 + from;
    if data + (to - from) != map.len() {
        return Err(damaged(path, "its length is not what its header says"));
    }
    Ok((map, data, info.shape.clone()))
}

/// Removes the cache of a run, once nothing needs it any more. The stage stays finished.
///
/// # Errors
/// The disk's.
pub fn remove(run: &mut Run) -> Result<()> {
    let parts: Vec<String> = run.manifest().parts.keys().filter(|rel| rel.starts_with("cache/")).cloned().collect();
    for rel in parts {
        run.remove_part(&rel)?;
    }
    // Empty by now; where it is not, or was never made, there is nothing to do.
    let _ = std::fs::remove_dir(run.path("cache"));
    Ok(())
}

/// Windows to train on and windows to measure on. A text too small to have both gives all of it to both.
pub fn split(windows: &[WindowRows], seed: u64) -> Split<'_> {
    let (held_out, training): (Vec<&WindowRows>, Vec<&WindowRows>) =
        windows.iter().partition(|w| sampling::is_held_out(seed, w.window.doc));
    if held_out.is_empty() || training.is_empty() {
        let all: Vec<&WindowRows> = windows.iter().collect();
        return Split { training: all.clone(), measured: all, is_held_out: false };
    }
    Split { training, measured: held_out, is_held_out: true }
}

/// Windows by their use.
pub struct Split<'a> {
    /// Trained on.
    pub training: Vec<&'a WindowRows>,
    /// Measured on.
    pub measured: Vec<&'a WindowRows>,
    /// Whether the measured windows were held out of training.
    pub is_held_out: bool,
}

impl Split<'_> {
    /// Rows of the training windows, in order.
    pub fn training_rows(&self) -> Vec<u64> {
        self.training.iter().flat_map(|w| w.first..w.first + w.len() as u64).collect()
    }

    /// What the measured windows are, in words.
    pub fn measured_on(&self) -> &'static str {
        if self.is_held_out { "held-out documents" } else { "the training documents (too few to hold any out)" }
    }
}
