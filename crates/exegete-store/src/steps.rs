//! `steps.parquet`: what a training measured along the way, one row every few steps.

use std::io::{self, Write};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::types::{Float32Type, UInt64Type};
use arrow_schema::ArrowError;

use crate::error::{Result, StoreError};
use crate::table::{self, Columns};

const STEPS: &str = "steps";
/// Key of the file's metadata that holds how many steps there are to be.
const PLANNED: &str = "exegete.steps";
const GROUP_ROWS: usize = 1 << 14;

/// A training step, measured before it moved anything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepRow {
    /// Its number, from 0.
    pub step: u64,
    /// Whole loss.
    pub loss: f32,
    /// Fraction of the batch's variance unexplained.
    pub fvu: f32,
    /// Mean number of active latents.
    pub l0: f32,
    /// The penalty before its weight, mean over tokens.
    pub penalty: f32,
    /// The penalty's weight.
    pub sparsity: f32,
    /// Auxiliary loss before its weight.
    pub aux: f32,
    /// The loss that raises dead latents to their thresholds, before its weight.
    pub pre_act: f32,
    /// Latents that counted as dead.
    pub dead: u64,
}

/// What is logged of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct StepLog {
    /// Steps that the training is to have.
    pub planned: u64,
    /// The steps that were logged, in their order.
    pub rows: Vec<StepRow>,
}

/// Writes a log.
///
/// # Errors
/// Those of the writer.
pub fn write_steps(writer: &mut (impl Write + Send), log: &StepLog) -> io::Result<()> {
    let metadata = [(PLANNED, log.planned.to_string())];
    table::write_rows(writer, STEPS, &metadata, &log.rows, GROUP_ROWS, batch_of)
}

/// Reads a log.
///
/// # Errors
/// [`StoreError::Damaged`] and its kin.
pub fn read_steps(path: &Path) -> Result<StepLog> {
    let table = table::open_kind(path, STEPS)?;
    let planned = table::metadata_of(&table, PLANNED).and_then(|n| n.parse().ok());
    let planned = planned.ok_or_else(|| StoreError::damaged(path, format!("it does not say {PLANNED:?}")))?;
    Ok(StepLog { planned, rows: table::read_rows(path, table, rows_of)? })
}

fn batch_of(rows: &[StepRow]) -> std::result::Result<RecordBatch, ArrowError> {
    let floats = |pick: fn(&StepRow) -> f32| table::numbers::<Float32Type>(rows.iter().map(pick));
    RecordBatch::try_from_iter([
        ("step", table::numbers::<UInt64Type>(rows.iter().map(|r| r.step))),
        ("loss", floats(|r| r.loss)),
        ("fvu", floats(|r| r.fvu)),
        ("l0", floats(|r| r.l0)),
        ("penalty", floats(|r| r.penalty)),
        ("sparsity", floats(|r| r.sparsity)),
        ("aux", floats(|r| r.aux)),
        ("pre_act", floats(|r| r.pre_act)),
        ("dead", table::numbers::<UInt64Type>(rows.iter().map(|r| r.dead))),
    ])
}

fn rows_of(columns: &Columns, rows: &mut Vec<StepRow>) -> Result<()> {
    let whole = |name: &str| columns.numbers::<UInt64Type>(name);
    let floats = |name: &str| columns.numbers::<Float32Type>(name);
    let (steps, dead) = (whole("step")?, whole("dead")?);
    let (losses, fvus, l0s, auxes) = (floats("loss")?, floats("fvu")?, floats("l0")?, floats("aux")?);
    let (penalties, sparsities, pre_acts) = (floats("penalty")?, floats("sparsity")?, floats("pre_act")?);
    rows.extend((0..columns.len()).map(|i| StepRow {
        step: steps[i],
        loss: losses[i],
        fvu: fvus[i],
        l0: l0s[i],
        penalty: penalties[i],
        sparsity: sparsities[i],
        aux: auxes[i],
        pre_act: pre_acts[i],
        dead: dead[i],
    }));
    Ok(())
}
