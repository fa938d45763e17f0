//! Examples of a latent's firings: `examples/part-*.parquet`, sorted by latent so that one latent is a short read.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_array::types::{Float32Type, UInt8Type, UInt32Type, UInt64Type};
use exegete_base::{DocId, LatentId};

use crate::error::Result;
use crate::table::{self, ByLatent, Columns};

const EXAMPLES: &str = "examples";
/// Rows of a row group: one latent's hundred or so examples lie in one or two groups.
const GROUP_ROWS: usize = 1024;

/// Why an example was kept. The order is that of the files: the strongest stand first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ExampleKind {
    /// Among the strongest firings of the latent.
    Top,
    /// In the random sample of its level.
    Sample,
}

/// One firing of a latent with the latent's values around it.
#[derive(Debug, Clone, PartialEq)]
pub struct Example {
    /// The latent that fired.
    pub latent: LatentId,
    /// Level of the activation, see `exegete_base::levels`.
    pub level: u8,
    /// Why the example was kept.
    pub kind: ExampleKind,
    /// Document of the firing.
    pub doc: DocId,
    /// Window of the document.
    pub window: u32,
    /// Offset in the window.
    pub position: u32,
    /// The activation.
    pub value: f32,
    /// The latent's values at the offsets `-context..=context`: 0 where it is silent or the window has ended.
    pub values: Vec<f32>,
    /// The firing's hash, by which it was drawn.
    pub hash: u64,
}

/// Writes examples, sorted by (latent, level, kind, hash) whatever order they come in.
///
/// # Errors
/// Those of the writer.
pub fn write_examples(writer: &mut (impl Write + Send), examples: &[Example]) -> io::Result<()> {
    let mut sorted: Vec<&Example> = examples.iter().collect();
    sorted.sort_by_key(|e| (e.latent, e.level, e.kind, e.hash, e.doc, e.window, e.position));
    table::write_rows(writer, EXAMPLES, &[], &sorted, GROUP_ROWS, |rows| {
        RecordBatch::try_from_iter([
            ("latent", table::numbers::<UInt32Type>(rows.iter().map(|e| e.latent.0))),
            ("level", table::numbers::<UInt8Type>(rows.iter().map(|e| e.level))),
            ("kind", table::numbers::<UInt8Type>(rows.iter().map(|e| e.kind as u8))),
            ("doc", table::numbers::<UInt64Type>(rows.iter().map(|e| e.doc.0))),
            ("window", table::numbers::<UInt32Type>(rows.iter().map(|e| e.window))),
            ("position", table::numbers::<UInt32Type>(rows.iter().map(|e| e.position))),
            ("value", table::numbers::<Float32Type>(rows.iter().map(|e| e.value))),
            ("values", table::lists::<Float32Type>(rows.iter().map(|e| e.values.as_slice()))),
            ("hash", table::numbers::<UInt64Type>(rows.iter().map(|e| e.hash))),
        ])
    })
}

/// Reads the examples of one latent at a time.
pub struct ExampleReader(ByLatent);

impl ExampleReader {
    /// Opens the parts of a run (`run.parts_under("examples/part-")`), reading their footers only.
    ///
    /// # Errors
    /// [`crate::StoreError::Damaged`] and its kin.
    pub fn open(parts: &[PathBuf]) -> Result<Self> {
        Ok(Self(ByLatent::open(parts, EXAMPLES)?))
    }

    /// The examples of a latent in the order of the files; none if it never fired.
    ///
    /// # Errors
    /// [`crate::StoreError::Damaged`] and its kin.
    pub fn latent(&self, latent: LatentId) -> Result<Vec<Example>> {
        self.0.read(latent.0, |columns, rows| examples_of(columns, rows, |found| found == latent.0))
    }
}

/// Reads a whole part.
///
/// # Errors
/// [`crate::StoreError::Damaged`] and its kin.
pub fn read_examples(path: &Path) -> Result<Vec<Example>> {
    table::read_rows(path, table::open_kind(path, EXAMPLES)?, |columns, rows| examples_of(columns, rows, |_| true))
}

fn examples_of(columns: &Columns, rows: &mut Vec<Example>, wanted: impl Fn(u32) -> bool) -> Result<()> {
    let latents = columns.numbers::<UInt32Type>("latent")?;
    let (levels, kinds) = (columns.numbers::<UInt8Type>("level")?, columns.numbers::<UInt8Type>("kind")?);
    let (docs, windows) = (columns.numbers::<UInt64Type>("doc")?, columns.numbers::<UInt32Type>("window")?);
    let (positions, strengths) = (columns.numbers::<UInt32Type>("position")?, columns.numbers::<Float32Type>("value")?);
    let (values, hashes) = (columns.lists::<Float32Type>("values")?, columns.numbers::<UInt64Type>("hash")?);
    for row in (0..columns.len()).filter(|&row| wanted(latents[row])) {
        rows.push(Example {
            latent: LatentId(latents[row]),
            level: levels[row],
            kind: kind_from(kinds[row]).ok_or_else(|| columns.damaged(format!("unknown kind {}", kinds[row])))?,
            doc: DocId(docs[row]),
            window: windows[row],
            position: positions[row],
            value: strengths[row],
            values: values.row(row).to_vec(),
            hash: hashes[row],
        });
    }
    Ok(())
}

/// The kind stored as a number.
pub(crate) fn kind_from(number: u8) -> Option<ExampleKind> {
    match number {
        0 => Some(ExampleKind::Top),
        1 => Some(ExampleKind::Sample),
        _ => None,
    }
}
