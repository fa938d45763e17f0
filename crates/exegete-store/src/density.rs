//! `density.parquet`: how often latents fire while they are trained, a histogram over latents for every stretch of steps.

use std::io::{self, Write};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::types::{Float64Type, UInt64Type};
use arrow_schema::ArrowError;

use crate::error::Result;
use crate::table::{self, Columns};

const DENSITY: &str = "density";
const GROUP_ROWS: usize = 1 << 14;

/// A bin of the histogram of a stretch.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DensityRow {
    /// Steps that were done when the stretch ended.
    pub step: u64,
    /// Tokens of the stretch.
    pub tokens: u64,
    /// Lower edge, as a share of the tokens.
    pub low: f64,
    /// Upper edge; 0 in the row of those that fired on none.
    pub high: f64,
    /// Latents that fired on a share of the tokens at or above `low`, and below `high`.
    pub latents: u64,
}

/// Writes all rows.
///
/// # Errors
/// Those of the writer.
pub fn write_density(writer: &mut (impl Write + Send), rows: &[DensityRow]) -> io::Result<()> {
    table::write_rows(writer, DENSITY, &[], rows, GROUP_ROWS, batch_of)
}

/// Reads all rows.
///
/// # Errors
/// [`crate::StoreError::Damaged`] and its kin.
pub fn read_density(path: &Path) -> Result<Vec<DensityRow>> {
    table::read_rows(path, table::open_kind(path, DENSITY)?, rows_of)
}

fn batch_of(rows: &[DensityRow]) -> std::result::Result<RecordBatch, ArrowError> {
    let wholes = |pick: fn(&DensityRow) -> u64| table::numbers::<UInt64Type>(rows.iter().map(pick));
    let floats = |pick: fn(&DensityRow) -> f64| table::numbers::<Float64Type>(rows.iter().map(pick));
    RecordBatch::try_from_iter([
        ("step", wholes(|r| r.step)),
        ("tokens", wholes(|r| r.tokens)),
        ("low", floats(|r| r.low)),
        ("high", floats(|r| r.high)),
        ("latents", wholes(|r| r.latents)),
    ])
}

fn rows_of(columns: &Columns, rows: &mut Vec<DensityRow>) -> Result<()> {
    let wholes = |name: &str| columns.numbers::<UInt64Type>(name);
    let (steps, tokens, latents) = (wholes("step")?, wholes("tokens")?, wholes("latents")?);
    let (lows, highs) = (columns.numbers::<Float64Type>("low")?, columns.numbers::<Float64Type>("high")?);
    rows.extend((0..columns.len()).map(|i| DensityRow {
        step: steps[i],
        tokens: tokens[i],
        low: lows[i],
        high: highs[i],
        latents: latents[i],
    }));
    Ok(())
}
