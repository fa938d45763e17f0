//! `latents.parquet`: one row a latent, dead ones included.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::{Decimal128Type, Float32Type, Float64Type, UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, PrimitiveArray, RecordBatch};
use arrow_schema::ArrowError;
use exegete_base::LatentId;
use exegete_base::levels::N_LEVELS;
use exegete_base::stats::{Estimate, wilson};

use crate::accumulate::LatentStats;
use crate::error::Result;
use crate::profile::{self, LatentProfile, N_POSITIONS};
use crate::table::{self, Columns};

const LATENTS: &str = "latents";
const GROUP_ROWS: usize = 1 << 14;

/// What is known of a latent.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentRow {
    /// The latent.
    pub latent: LatentId,
    /// Counts and moments.
    pub stats: LatentStats,
    /// Share of the tokens on which it fired, with Wilson's interval over the tokens looked at.
    pub firing_rate: Estimate,
    /// Tokens that its decoder row promotes most, with their logits.
    pub top_tokens: Vec<(u32, f32)>,
    /// Tokens that its decoder row suppresses most, with their logits.
    pub bottom_tokens: Vec<(u32, f32)>,
    /// Latents with the nearest decoder rows, with their cosines.
    pub neighbours: Vec<(u32, f32)>,
    /// What is known besides.
    pub profile: LatentProfile,
}

impl LatentRow {
    /// The row of a latent counted over `n_tokens` tokens, without vocabulary and neighbours.
    pub fn new(latent: LatentId, stats: LatentStats, n_tokens: u64) -> Self {
        let firing_rate = wilson(stats.count, n_tokens);
        let profile = LatentProfile::default();
        Self { latent, stats, firing_rate, top_tokens: vec![], bottom_tokens: vec![], neighbours: vec![], profile }
    }
}

/// Writes all latents.
///
/// # Errors
/// Those of the writer.
pub fn write_latents(writer: &mut (impl Write + Send), rows: &[LatentRow]) -> io::Result<()> {
    table::write_rows(writer, LATENTS, &[], rows, GROUP_ROWS, batch_of)
}

/// Reads all latents.
///
/// # Errors
/// [`crate::StoreError::Damaged`] and its kin.
pub fn read_latents(path: &Path) -> Result<Vec<LatentRow>> {
    table::read_rows(path, table::open_kind(path, LATENTS)?, rows_of)
}

type Pick = fn(&LatentRow) -> &[(u32, f32)];

fn batch_of(rows: &[LatentRow]) -> Result<RecordBatch, ArrowError> {
    let decimals = |pick: fn(&LatentRow) -> i128| {
        PrimitiveArray::<Decimal128Type>::from_iter_values(rows.iter().map(pick))
            .with_precision_and_scale(38, 0)
            .map(|array| Arc::new(array) as ArrayRef)
    };
    let floats = |pick: fn(&LatentRow) -> f64| table::numbers::<Float64Type>(rows.iter().map(pick));
    let ids = |pick: Pick| {
        let lists: Vec<Vec<u32>> = rows.iter().map(|r| pick(r).iter().map(|p| p.0).collect()).collect();
        table::lists::<UInt32Type>(lists.iter().map(Vec::as_slice))
    };
    let weights = |pick: Pick| {
        let lists: Vec<Vec<f32>> = rows.iter().map(|r| pick(r).iter().map(|p| p.1).collect()).collect();
        table::lists::<Float32Type>(lists.iter().map(Vec::as_slice))
    };
    let profiles: Vec<&LatentProfile> = rows.iter().map(|r| &r.profile).collect();
    let columns = [
        ("latent", table::numbers::<UInt32Type>(rows.iter().map(|r| r.latent.0))),
        ("count", table::numbers::<UInt64Type>(rows.iter().map(|r| r.stats.count))),
        ("n_tokens", table::numbers::<UInt64Type>(rows.iter().map(|r| r.firing_rate.n))),
        ("sum_fixed", decimals(|r| r.stats.sum_fixed)?),
        ("sumsq_fixed", decimals(|r| r.stats.sumsq_fixed)?),
        ("mean", floats(|r| r.stats.mean())),
        ("max", table::numbers::<Float32Type>(rows.iter().map(|r| r.stats.max))),
        ("firing_rate", floats(|r| r.firing_rate.value)),
        ("firing_rate_low", floats(|r| r.firing_rate.low)),
        ("firing_rate_high", floats(|r| r.firing_rate.high)),
        ("histogram", table::lists::<UInt64Type>(rows.iter().map(|r| r.stats.histogram.as_slice()))),
        ("positions", table::lists::<UInt64Type>(rows.iter().map(|r| r.stats.positions.as_slice()))),
        ("top_tokens", ids(|r| &r.top_tokens)),
        ("top_logits", weights(|r| &r.top_tokens)),
        ("bottom_tokens", ids(|r| &r.bottom_tokens)),
        ("bottom_logits", weights(|r| &r.bottom_tokens)),
        ("neighbours", ids(|r| &r.neighbours)),
        ("neighbour_cosines", weights(|r| &r.neighbours)),
    ];
    RecordBatch::try_from_iter(columns.into_iter().chain(profile::columns_of(&profiles)))
}

fn rows_of(columns: &Columns, rows: &mut Vec<LatentRow>) -> Result<()> {
    let latents = columns.numbers::<UInt32Type>("latent")?;
    let (counts, n_tokens) = (columns.numbers::<UInt64Type>("count")?, columns.numbers::<UInt64Type>("n_tokens")?);
    let (sums, squares) =
        (columns.numbers::<Decimal128Type>("sum_fixed")?, columns.numbers::<Decimal128Type>("sumsq_fixed")?);
    let (maxima, histograms) = (columns.numbers::<Float32Type>("max")?, columns.lists::<UInt64Type>("histogram")?);
    for row in 0..columns.len() {
        let histogram: [u64; N_LEVELS] =
            histograms.row(row).try_into().map_err(|_| columns.damaged("a histogram has another number of levels"))?;
        let stats = LatentStats {
            count: counts[row],
            sum_fixed: sums[row],
            sumsq_fixed: squares[row],
            max: maxima[row],
            histogram,
            positions: positions_in(columns, row)?,
        };
        // Mean and rates are stored for other programs; ours are functions of the counts.
        rows.push(LatentRow {
            top_tokens: columns.pairs(row, "top_tokens", "top_logits")?,
            bottom_tokens: columns.pairs(row, "bottom_tokens", "bottom_logits")?,
            neighbours: columns.pairs(row, "neighbours", "neighbour_cosines")?,
            profile: profile::profile_in(columns, row)?,
            ..LatentRow::new(LatentId(latents[row]), stats, n_tokens[row])
        });
    }
    Ok(())
}

/// Firings by part of the window; zeros in files that do not have them.
fn positions_in(columns: &Columns, row: usize) -> Result<[u64; N_POSITIONS]> {
    if !columns.has("positions") {
        return Ok([0; N_POSITIONS]);
    }
    let positions = columns.lists::<UInt64Type>("positions")?;
    positions.row(row).try_into().map_err(|_| columns.damaged("a profile has another number of positions"))
}
