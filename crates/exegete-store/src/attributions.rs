//! Where the strongest firings of an attention dictionary's latents come from: `attribution.parquet`, sorted by latent.

use std::io::{self, Write};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::types::{Float32Type, UInt32Type, UInt64Type};
use exegete_base::{DocId, LatentId};

use crate::error::Result;
use crate::examples::Example;
use crate::table::{self, ByLatent};

/// The table beside a dictionary's latents.
pub const TABLE: &str = "attribution.parquet";
const ATTRIBUTION: &str = "attribution";
/// Rows of a row group: the strongest firings of some fifty latents.
const GROUP_ROWS: usize = 1024;

/// Direct feature attribution of a firing: what each token of its window, from the first to the firing's own, adds to the latent's
/// pre-activation by the heads' patterns and values.
#[derive(Debug, Clone, PartialEq)]
pub struct Attribution {
    /// The latent that fired.
    pub latent: LatentId,
    /// Document of the firing.
    pub doc: DocId,
    /// Window of the document.
    pub window: u32,
    /// Offset in the window.
    pub position: u32,
    /// What the tokens `0..=position` add, in units of the activation.
    pub values: Vec<f32>,
}

impl Attribution {
    /// Whether it is of this firing.
    pub fn is_of(&self, example: &Example) -> bool {
        (self.latent, self.doc, self.window, self.position)
            == (example.latent, example.doc, example.window, example.position)
    }
}

/// Writes attributions, sorted by (latent, doc, window, position) whatever order they come in.
///
/// # Errors
/// Those of the writer.
pub fn write_attributions(writer: &mut (impl Write + Send), attributions: &[Attribution]) -> io::Result<()> {
    let mut sorted: Vec<&Attribution> = attributions.iter().collect();
    sorted.sort_by_key(|a| (a.latent, a.doc, a.window, a.position));
    table::write_rows(writer, ATTRIBUTION, &[], &sorted, GROUP_ROWS, |rows| {
        RecordBatch::try_from_iter([
            ("latent", table::numbers::<UInt32Type>(rows.iter().map(|a| a.latent.0))),
            ("doc", table::numbers::<UInt64Type>(rows.iter().map(|a| a.doc.0))),
            ("window", table::numbers::<UInt32Type>(rows.iter().map(|a| a.window))),
            ("position", table::numbers::<UInt32Type>(rows.iter().map(|a| a.position))),
            ("values", table::lists::<Float32Type>(rows.iter().map(|a| a.values.as_slice()))),
        ])
    })
}

/// Reads the attributions of one latent at a time.
pub struct AttributionReader(ByLatent);

impl AttributionReader {
    /// Opens a part, reading its footer only.
    ///
    /// # Errors
    /// [`crate::StoreError::Damaged`] and its kin.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self(ByLatent::open(&[path.to_owned()], ATTRIBUTION)?))
    }

    /// The attributions of a latent.
    ///
    /// # Errors
    /// [`crate::StoreError::Damaged`] and its kin.
    pub fn latent(&self, latent: LatentId) -> Result<Vec<Attribution>> {
        self.0.read(latent.0, |columns, rows| {
            let latents = columns.numbers::<UInt32Type>("latent")?;
            let (docs, windows) = (columns.numbers::<UInt64Type>("doc")?, columns.numbers::<UInt32Type>("window")?);
            let (positions, values) =
                (columns.numbers::<UInt32Type>("position")?, columns.lists::<Float32Type>("values")?);
            for row in (0..columns.len()).filter(|&row| latents[row] == latent.0) {
                let values = values.row(row).to_vec();
                if values.len() != positions[row] as usize + 1 {
                    return Err(columns.damaged(format!("{} values for position {}", values.len(), positions[row])));
                }
                let (doc, window, position) = (DocId(docs[row]), windows[row], positions[row]);
                rows.push(Attribution { latent, doc, window, position, values });
            }
            Ok(())
        })
    }
}
