//! What a foreign file says of a latent and the tables of a run have no column for: `imported.parquet`.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use arrow_array::types::UInt32Type;
use arrow_array::{ArrayRef, RecordBatch, StringArray};
use serde::{Deserialize, Serialize};

use super::{Bars, Bin, Dfa, Ground};
use crate::error::{Result, StoreError};
use crate::table;

const IMPORTED: &str = "imported";
const GROUP_ROWS: usize = 1024;

/// What the tables of a run do not hold of a feature that was read from a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Kept {
    /// As in the file; counts give it only roughly.
    pub density: Option<f64>,
    /// Histogram of activations, whose bars are not our levels.
    pub firings: Bars,
    /// Histogram of logits.
    pub logits: Bars,
    /// Second numbers of the aligned neurons, correlated neurons and correlated latents.
    pub l1: [Vec<f64>; 3],
    /// See [`super::Feature::decoder_norms`].
    pub decoder_norms: Vec<f64>,
    /// See [`super::Feature::vector`].
    pub vector: Vec<f64>,
    /// See [`super::Feature::ground`].
    pub ground: Ground,
    /// Of each sequence, in the order of the file, which is that of the examples' hashes.
    pub sequences: Vec<KeptSequence>,
}

/// What examples do not hold of a sequence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct KeptSequence {
    /// See [`super::Sequence::at`].
    pub at: Option<u32>,
    /// See [`super::Sequence::bin`].
    pub bin: Bin,
    /// See [`super::Sequence::dfa`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dfa: Option<Dfa>,
}

/// Writes what was kept, by latent.
///
/// # Errors
/// Those of the writer.
pub fn write_kept(writer: &mut (impl Write + Send), kept: &BTreeMap<u32, String>) -> io::Result<()> {
    let rows: Vec<(&u32, &String)> = kept.iter().collect();
    table::write_rows(writer, IMPORTED, &[], &rows, GROUP_ROWS, |rows| {
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|(_, text)| text)));
        RecordBatch::try_from_iter([
            ("latent", table::numbers::<UInt32Type>(rows.iter().map(|(latent, _)| **latent))),
            ("kept", texts),
        ])
    })
}

/// Reads what was kept, as JSON by latent; [`Kept::of`] reads one.
///
/// # Errors
/// [`StoreError::Damaged`] and its kin.
pub fn read_kept(path: &Path) -> Result<BTreeMap<u32, String>> {
    let rows = table::read_rows(path, table::open_kind(path, IMPORTED)?, |columns, rows| {
        let (latents, texts) = (columns.numbers::<UInt32Type>("latent")?, columns.texts("kept")?);
        rows.extend(latents.iter().copied().zip(texts.into_iter().map(str::to_owned)));
        Ok(())
    })?;
    Ok(rows.into_iter().collect())
}

impl Kept {
    /// What was kept of a latent.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if it is not what we write.
    pub fn of(path: &Path, latent: u32, text: &str) -> Result<Kept> {
        serde_json::from_str(text).map_err(|e| StoreError::damaged(path, format!("latent {latent}: {e}")))
    }
}
