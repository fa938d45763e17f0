//! The activation cache: activations of sites over all windows, written once, used for training and harvest.
//!
//! A part holds whole windows of one site: `acts [N, D]` and, of those kept as int8, `scale [N]`, in safetensors. Its
//! checksum is in the manifest of the run that it belongs to, beside those of the model and the text.

use std::path::Path;

use exegete_base::Site;
use exegete_base::settings::StoredAs;
use exegete_model::Model;
use exegete_store::{Run, StoreError};
use half::bf16;
use memmap2::Mmap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde_json::json;

use crate::capture::{BATCH, Capture};
use crate::rows::{WindowRows, n_rows};
use crate::verify::damaged;
use crate::{HarvestError, Progress, Result};

/// The stage's name in the manifest, for each site `cache/SITE`.
pub const STAGE: &str = "cache";
/// Bytes of activations in a part, about.
const PART_BYTES: usize = 64 << 20;

fn part_rel(site: Site, idx: usize) -> String {
    format!("{STAGE}/{site}/part-{idx:05}.safetensors")
}

fn stage_of(site: Site) -> String {
    format!("{STAGE}/{site}")
}

/// Windows in a part: whole batches of the model.
fn part_windows(len: usize, d: usize) -> usize {
    (PART_BYTES / (4 * len * d)).clamp(BATCH, 256) / BATCH * BATCH
}

/// Parts of a site under way.
struct Writing {
    site: Site,
    d: usize,
    /// Windows in a part.
    each: usize,
    parts: usize,
    held: Vec<f32>,
}

/// Runs the model once over all windows and writes the activations of those sites that are not there yet.
///
/// # Errors
/// Sites that the model does not have, activations that are not finite, failures of the model or the disk.
pub fn run(
    run: &mut Run,
    model: &Model,
    sites: &[Site],
    windows: &[WindowRows],
    (len, stored): (usize, StoredAs),
    progress: &dyn Progress,
) -> Result<()> {
    let missing: Vec<Site> = sites.iter().copied().filter(|site| run.stage(&stage_of(*site)).is_none()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let capture = Capture::new(model, &missing, len)?;
    let writing = |(site, d): (&Site, &usize)| {
        let parts = (0..).take_while(|i| run.part_done(&part_rel(*site, *i))).count();
        Writing { site: *site, d: *d, each: part_windows(len, *d), parts, held: Vec::new() }
    };
    let mut all: Vec<Writing> = missing.iter().zip(capture.widths()).map(writing).collect();
    // Stopped in the middle, some sites may be ahead of others.
    let from = all.iter().map(|w| w.parts * w.each).min().unwrap_or(0).min(windows.len());
    let (total, mut done) = (n_rows(windows), n_rows(&windows[..from]));
    progress.begin(STAGE, total, "tokens", done);
    let mut values = vec![Vec::new(); all.len()];
    for (i, batch) in windows[from..].chunks(BATCH).enumerate() {
        progress.check()?;
        values.iter_mut().for_each(Vec::clear);
        capture.append(&batch.iter().collect::<Vec<_>>(), &mut values)?;
        let to = from + i * BATCH + batch.len();
        for (w, values) in all.iter_mut().zip(&values).filter(|(w, _)| to > w.parts * w.each) {
            w.held.extend_from_slice(values);
            if to == windows.len() || to == (w.parts + 1) * w.each {
                let bytes = encode_part(&w.held, w.d, stored)?;
                let rows = (w.held.len() / w.d) as u64;
                run.commit_part(&part_rel(w.site, w.parts), rows, |out| std::io::Write::write_all(out, &bytes))?;
                w.parts += 1;
                w.held.clear();
            }
        }
        done += n_rows(batch);
        progress.at(done, "");
    }
    for w in &all {
        let summary = json!({
            "rows": total, "width": w.d, "site": w.site.to_string(), "stored": stored, "position_0": "left out",
        });
        run.finish_stage(&stage_of(w.site), summary)?;
    }
    let of = all.iter().map(|w| format!("{} ({} wide)", w.site, w.d)).collect::<Vec<_>>().join(", ");
    progress.end(&format!("activations of {total} tokens at {of}"));
    Ok(())
}

fn encode_part(acts: &[f32], d: usize, stored: StoredAs) -> Result<Vec<u8>> {
    let fail = |e: safetensors::SafeTensorError| HarvestError::Request(format!("cannot lay out activations: {e}"));
    let rows = acts.len() / d;
    let (mut scales, mut bytes) = (Vec::new(), Vec::with_capacity(acts.len() * stored.bytes()));
    match stored {
        StoredAs::F32 => acts.iter().for_each(|v| bytes.extend_from_slice(&v.to_le_bytes())),
        StoredAs::Bf16 => acts.iter().for_each(|v| bytes.extend_from_slice(&bf16::from_f32(*v).to_le_bytes())),
        StoredAs::Int8 => {
            for row in acts.chunks_exact(d) {
                let scale = row.iter().fold(0f32, |most, v| most.max(v.abs())) / 127.0;
                let over = if scale > 0.0 { 1.0 / scale } else { 0.0 };
                bytes.extend(row.iter().map(|v| (v * over).round() as i8 as u8));
                scales.extend_from_slice(&scale.to_le_bytes());
            }
        }
    }
    let dtype = match stored {
        StoredAs::F32 => Dtype::F32,
        StoredAs::Bf16 => Dtype::BF16,
        StoredAs::Int8 => Dtype::I8,
    };
    let mut tensors = vec![("acts", TensorView::new(dtype, vec![rows, d], &bytes).map_err(fail)?)];
    if stored == StoredAs::Int8 {
        tensors.push(("scale", TensorView::new(Dtype::F32, vec![rows], &scales).map_err(fail)?));
    }
    safetensors::serialize(tensors, None).map_err(fail)
}

/// The parts of a site, opened for reading.
pub(crate) struct SiteParts {
    parts: Vec<CachePart>,
    d: usize,
}

struct CachePart {
    map: Mmap,
    /// Where the values begin in the file, and the scales of rows.
    at: (usize, usize),
    stored: StoredAs,
    first: u64,
    rows: u64,
}

impl SiteParts {
    /// Opens the parts of a site.
    ///
    /// # Errors
    /// Missing or damaged parts.
    pub(crate) fn open(run: &Run, site: Site) -> Result<Self> {
        let (mut parts, mut d, mut first): (Vec<CachePart>, _, _) = (Vec::new(), 0, 0);
        for path in run.parts_under(&format!("{STAGE}/{site}/part-")) {
            let (mut part, width) = CachePart::open(&path)?;
            if d != 0 && d != width {
                return Err(damaged(&path, "its width differs from that of the other parts"));
            }
            (d, part.first) = (width, first);
            first += part.rows;
            parts.push(part);
        }
        match parts.is_empty() {
            false => Ok(Self { parts, d }),
            true => {
                let detail = format!("this run holds no activations of {site} (they were removed at its end)");
                Err(HarvestError::Request(detail))
            }
        }
    }

    /// Width of a row.
    pub(crate) fn d(&self) -> usize {
        self.d
    }

    /// Number of rows.
    pub(crate) fn n_rows(&self) -> u64 {
        self.parts.last().map_or(0, |part| part.first + part.rows)
    }

    /// Copies a row.
    pub(crate) fn read(&self, row: u64, out: &mut [f32]) {
        let part = &self.parts[self.parts.partition_point(|p| p.first + p.rows <= row)];
        let (row, d) = ((row - part.first) as usize, self.d);
        let from = part.at.0 + row * d * part.stored.bytes();
        let bytes = &part.map[from..from + d * part.stored.bytes()];
        match part.stored {
            StoredAs::F32 => {
                out.iter_mut().zip(bytes.as_chunks::<4>().0).for_each(|(o, b)| *o = f32::from_le_bytes(*b));
            }
            StoredAs::Bf16 => {
                let values = bytes.as_chunks::<2>().0;
                out.iter_mut().zip(values).for_each(|(o, b)| *o = bf16::from_le_bytes(*b).to_f32());
            }
            StoredAs::Int8 => {
                let scale = part.map[part.at.1 + 4 * row..].as_chunks::<4>().0[0];
                let scale = f32::from_le_bytes(scale);
                out.iter_mut().zip(bytes).for_each(|(o, b)| *o = f32::from(*b as i8) * scale);
            }
        }
    }
}

impl CachePart {
    fn open(path: &Path) -> Result<(Self, usize)> {
        let io = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => damaged(path, "it is missing"),
            _ => StoreError::Io { action: "open", path: path.to_owned(), source }.into(),
        };
        let file = std::fs::File::open(path).map_err(io)?;
        // SAFETY: the map is read-only, and the run's lock keeps other writers away.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        let (header, metadata) = SafeTensors::read_metadata(&map).map_err(|e| damaged(path, &e.to_string()))?;
        let none = || damaged(path, "no tensor \"acts\" of two axes, of a type that is known");
        let info = metadata.info("acts").filter(|i| i.shape.len() == 2 && i.shape[1] > 0).ok_or_else(none)?;
        let stored = match info.dtype {
            Dtype::F32 => StoredAs::F32,
            Dtype::BF16 => StoredAs::Bf16,
            Dtype::I8 => StoredAs::Int8,
            _ => return Err(none()),
        };
        let (rows, d, base) = (info.shape[0], info.shape[1], header + 8);
        let scale = metadata.info("scale").filter(|i| i.dtype == Dtype::F32 && i.shape == [rows]);
        if (stored == StoredAs::Int8) != scale.is_some() {
            return Err(damaged(path, "scales of rows go with int8, and with nothing else"));
        }
        let end = scale.map_or(0, |i| i.data_offsets.1).max(info.data_offsets.1);
        if base + end != map.len() {
            return Err(damaged(path, "its length is not what its header says"));
        }
        let at = (base + info.data_offsets.0, base + scale.map_or(0, |i| i.data_offsets.0));
        Ok((Self { map, at, stored, first: 0, rows: rows as u64 }, d))
    }
}

/// Removes the cache of a run, once nothing needs it any more. The stages stay finished.
///
/// # Errors
/// The disk's.
pub fn remove(run: &mut Run) -> Result<()> {
    let parts: Vec<String> = run.manifest().parts.keys().filter(|rel| rel.starts_with("cache/")).cloned().collect();
    let dirs: std::collections::BTreeSet<_> =
        parts.iter().filter_map(|rel| Some(run.path(rel).parent()?.to_owned())).collect();
    for rel in parts {
        run.remove_part(&rel)?;
    }
    // Empty by now; where they are not, or were never made, there is nothing to do.
    dirs.into_iter().for_each(|dir| drop(std::fs::remove_dir(dir)));
    let _ = std::fs::remove_dir(run.path(STAGE));
    Ok(())
}
