//! Accumulator state as a file, so that shards can be merged later: one row for each latent that has fired.

use std::io::{self, Write};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::{Decimal128Type, Float32Type, Int32Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, PrimitiveArray, RecordBatch};
use arrow_schema::ArrowError;
use exegete_base::DocId;
use exegete_base::levels::{GRID_VERSION, N_LEVELS, level_of};

use crate::accumulate::{AccumulatorSettings, Accumulators, Cell, Kept, Key, LatentStats};
use crate::error::{Result, StoreError};
use crate::sketch::Sketched;
use crate::table::{self, Columns};

const STATE: &str = "accumulators-2";
const GROUP_ROWS: usize = 1024;
const META_KEY: &str = "exegete.accumulators";
/// Latents that a file may declare: more than any dictionary has, little enough to allocate a pointer for each.
const MAX_LATENTS: u64 = 1 << 28;

impl Accumulators {
    /// Writes the whole state; [`Accumulators::read_state`] gives it back exactly.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write_state(&self, writer: &mut (impl Write + Send)) -> io::Result<()> {
        let AccumulatorSettings { seed, samples_per_level, n_top, context, sketch, window } = self.settings;
        let meta = serde_json::json!({
            "grid": GRID_VERSION, "n_latents": self.latents.len(), "tokens": self.tokens,
            "seed": seed, "samples_per_level": samples_per_level, "n_top": n_top, "context": context,
            "sketch": sketch, "window": window,
        });
        let alive: Vec<(u32, &Cell)> =
            self.latents.iter().enumerate().filter_map(|(i, cell)| Some((i as u32, cell.as_deref()?))).collect();
        table::write_rows(writer, STATE, &[(META_KEY, meta.to_string())], &alive, GROUP_ROWS, batch_of)
    }

    /// Reads a state that [`Accumulators::write_state`] wrote.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the file is not such a state.
    pub fn read_state(path: &Path) -> Result<Accumulators> {
        Self::read_range(path, 0..u32::MAX)
    }

    /// Reads of a state the latents of a range, and no more of the file than they lie in. Tokens are those of the whole.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the file is not such a state.
    pub fn read_range(path: &Path, range: Range<u32>) -> Result<Accumulators> {
        let builder = table::open_kind(path, STATE)?;
        let groups = table::groups_with(&builder, &range);
        let builder = builder.with_row_groups(groups);
        let meta = table::metadata_of(&builder, META_KEY).unwrap_or_default();
        let mut state = empty_from(&meta).ok_or_else(|| StoreError::damaged(path, "its settings are unreadable"))?;
        let settings = state.settings;
        let cells = table::read_rows(path, builder, |columns, cells| cells_of(columns, &settings, cells))?;
        for (latent, cell) in cells.into_iter().filter(|(latent, _)| range.contains(latent)) {
            match state.latents.get_mut(latent as usize) {
                Some(slot @ None) => *slot = Some(Box::new(cell)),
                _ => return Err(StoreError::damaged(path, format!("latent {latent} is out of range or twice there"))),
            }
        }
        Ok(state)
    }
}

fn empty_from(meta: &str) -> Option<Accumulators> {
    let meta: serde_json::Value = serde_json::from_str(meta).ok()?;
    let number = |key: &str| meta.get(key)?.as_u64();
    let size = |key: &str| number(key).filter(|&n| n <= MAX_LATENTS).and_then(|n| usize::try_from(n).ok());
    (number("grid")? == u64::from(GRID_VERSION)).then_some(())?;
    let tokens: Vec<u64> = meta.get("tokens")?.as_array()?.iter().map(|n| n.as_u64()).collect::<Option<_>>()?;
    let settings = AccumulatorSettings {
        seed: number("seed")?,
        sketch: size("sketch")?,
        window: size("window")?,
        samples_per_level: size("samples_per_level")?,
        n_top: size("n_top")?,
        context: size("context")?,
    };
    let mut state = Accumulators::new(size("n_latents")?, settings);
    state.tokens = tokens.try_into().ok()?;
    Some(state)
}

/// The kept firings of a cell, the top ones first; the samples' levels follow from their values.
fn kept_of(cell: &Cell) -> impl Iterator<Item = &Kept> {
    cell.top.iter().chain(cell.samples.iter().flat_map(|(_, kept)| kept))
}

fn batch_of(rows: &[(u32, &Cell)]) -> Result<RecordBatch, ArrowError> {
    let decimals = |pick: fn(&LatentStats) -> i128| {
        let values = rows.iter().map(|(_, cell)| pick(&cell.stats));
        PrimitiveArray::<Decimal128Type>::from_iter_values(values)
            .with_precision_and_scale(38, 0)
            .map(|array| Arc::new(array) as ArrayRef)
    };
    // Lists of a row's kept firings, and flat beneath them the surroundings with their lengths.
    fn gather<N>(rows: &[(u32, &Cell)], pick: impl Fn(&Kept, &mut Vec<N>)) -> Vec<Vec<N>> {
        let one = |cell: &Cell| {
            let mut out = Vec::new();
            kept_of(cell).for_each(|kept| pick(kept, &mut out));
            out
        };
        rows.iter().map(|(_, cell)| one(cell)).collect()
    }
    fn sketch<N>(rows: &[(u32, &Cell)], pick: impl Fn(&Sketched) -> N) -> Vec<Vec<N>> {
        rows.iter().map(|(_, cell)| cell.sketch.iter().map(&pick).collect()).collect()
    }
    let values = gather(rows, |k, out| out.push(k.key.value));
    let hashes = gather(rows, |k, out| out.push(k.key.hash));
    let docs = gather(rows, |k, out| out.push(k.key.doc.0));
    let windows = gather(rows, |k, out| out.push(k.key.window));
    let positions = gather(rows, |k, out| out.push(k.key.position));
    let lengths = gather(rows, |k, out| out.push(k.around.len() as u32));
    let offsets = gather(rows, |k, out| out.extend(k.around.iter().map(|&(offset, _)| offset)));
    let around = gather(rows, |k, out| out.extend(k.around.iter().map(|&(_, value)| value)));
    RecordBatch::try_from_iter([
        ("latent", table::numbers::<UInt32Type>(rows.iter().map(|(latent, _)| *latent))),
        ("count", table::numbers::<UInt64Type>(rows.iter().map(|(_, cell)| cell.stats.count))),
        ("sum_fixed", decimals(|s| s.sum_fixed)?),
        ("sumsq_fixed", decimals(|s| s.sumsq_fixed)?),
        ("max", table::numbers::<Float32Type>(rows.iter().map(|(_, cell)| cell.stats.max))),
        ("histogram", table::lists::<UInt64Type>(rows.iter().map(|(_, cell)| cell.stats.histogram.as_slice()))),
        ("positions", table::lists::<UInt64Type>(rows.iter().map(|(_, cell)| cell.stats.positions.as_slice()))),
        ("sketch_hash", table::lists::<UInt64Type>(sketch(rows, |s| s.hash).iter().map(Vec::as_slice))),
        ("sketch_token", table::lists::<UInt32Type>(sketch(rows, |s| s.token).iter().map(Vec::as_slice))),
        ("sketch_value", table::lists::<Float32Type>(sketch(rows, |s| s.value).iter().map(Vec::as_slice))),
        ("n_top", table::numbers::<UInt32Type>(rows.iter().map(|(_, cell)| cell.top.len() as u32))),
        ("kept_value", table::lists::<Float32Type>(values.iter().map(Vec::as_slice))),
        ("kept_hash", table::lists::<UInt64Type>(hashes.iter().map(Vec::as_slice))),
        ("kept_doc", table::lists::<UInt64Type>(docs.iter().map(Vec::as_slice))),
        ("kept_window", table::lists::<UInt32Type>(windows.iter().map(Vec::as_slice))),
        ("kept_position", table::lists::<UInt32Type>(positions.iter().map(Vec::as_slice))),
        ("around_len", table::lists::<UInt32Type>(lengths.iter().map(Vec::as_slice))),
        ("around_offset", table::lists::<Int32Type>(offsets.iter().map(Vec::as_slice))),
        ("around_value", table::lists::<Float32Type>(around.iter().map(Vec::as_slice))),
    ])
}

fn cells_of(columns: &Columns, settings: &AccumulatorSettings, cells: &mut Vec<(u32, Cell)>) -> Result<()> {
    let latents = columns.numbers::<UInt32Type>("latent")?;
    let counts = columns.numbers::<UInt64Type>("count")?;
    let (sums, squares) =
        (columns.numbers::<Decimal128Type>("sum_fixed")?, columns.numbers::<Decimal128Type>("sumsq_fixed")?);
    let (maxima, histograms) = (columns.numbers::<Float32Type>("max")?, columns.lists::<UInt64Type>("histogram")?);
    let n_top = columns.numbers::<UInt32Type>("n_top")?;
    let positions = columns.lists::<UInt64Type>("positions")?;
    let hashes = columns.lists::<UInt64Type>("sketch_hash")?;
    let tokens = columns.lists::<UInt32Type>("sketch_token")?;
    let sketched = columns.lists::<Float32Type>("sketch_value")?;
    for row in 0..columns.len() {
        let histogram: [u64; N_LEVELS] =
            histograms.row(row).try_into().map_err(|_| columns.damaged("a histogram has another number of levels"))?;
        let stats = LatentStats {
            count: counts[row],
            sum_fixed: sums[row],
            sumsq_fixed: squares[row],
            max: maxima[row],
            histogram,
            positions: positions
                .row(row)
                .try_into()
                .map_err(|_| columns.damaged("a profile has another number of positions"))?,
        };
        let mut cell = Cell { stats, ..Cell::default() };
        let kept = kept_in(columns, row, settings.context)?;
        if n_top[row] as usize > kept.len() {
            return Err(columns.damaged(format!("latent {}: its examples are incomplete", latents[row])));
        }
        for (i, kept) in kept.into_iter().enumerate() {
            if i < n_top[row] as usize {
                cell.top.push(kept);
            } else {
                let level = level_of(kept.key.value) as u8;
                cell.samples_at(level).push(kept);
            }
        }
        let (hashes, tokens, sketched) = (hashes.row(row), tokens.row(row), sketched.row(row));
        if hashes.len() != tokens.len() || hashes.len() != sketched.len() || !hashes.is_sorted_by(|a, b| a < b) {
            return Err(columns.damaged(format!("latent {}: its sketch is incomplete", latents[row])));
        }
        let of = |((hash, token), value): ((&u64, &u32), &f32)| Sketched { hash: *hash, token: *token, value: *value };
        cell.sketch = hashes.iter().zip(tokens).zip(sketched).map(of).collect();
        cells.push((latents[row], cell));
    }
    Ok(())
}

fn kept_in(columns: &Columns, row: usize, context: usize) -> Result<Vec<Kept>> {
    let values = columns.lists::<Float32Type>("kept_value")?;
    let (hashes, docs) = (columns.lists::<UInt64Type>("kept_hash")?, columns.lists::<UInt64Type>("kept_doc")?);
    let windows = columns.lists::<UInt32Type>("kept_window")?;
    let positions = columns.lists::<UInt32Type>("kept_position")?;
    let lengths = columns.lists::<UInt32Type>("around_len")?;
    let (offsets, around) =
        (columns.lists::<Int32Type>("around_offset")?, columns.lists::<Float32Type>("around_value")?);
    let incomplete = || columns.damaged("an example is incomplete or has no positive value");
    let mut from = 0usize;
    let mut kept = Vec::with_capacity(values.row(row).len());
    for (i, &value) in values.row(row).iter().enumerate() {
        let part = || {
            let to = from.checked_add(*lengths.row(row).get(i)? as usize)?;
            let (offsets, around) = (offsets.row(row).get(from..to)?, around.row(row).get(from..to)?);
            (value.is_finite() && value > 0.0).then_some(())?;
            offsets.iter().all(|o| o.unsigned_abs() as usize <= context).then_some(())?;
            let key = Key {
                value,
                hash: *hashes.row(row).get(i)?,
                doc: DocId(*docs.row(row).get(i)?),
                window: *windows.row(row).get(i)?,
                position: *positions.row(row).get(i)?,
            };
            Some((to, Kept { key, around: offsets.iter().copied().zip(around.iter().copied()).collect() }))
        };
        let (to, item) = part().ok_or_else(incomplete)?;
        from = to;
        kept.push(item);
    }
    Ok(kept)
}
