//! Sparse activations that a harvest kept: `activations/part-*.parquet`, every firing of every latent.

use std::io::{self, Write};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use arrow_array::RecordBatch;
use arrow_array::types::{Float32Type, UInt32Type};
use parquet::file::statistics::Statistics;

use crate::error::Result;
use crate::table::{self, Columns};

const ACTIVATIONS: &str = "activations";
/// Rows of a row group, the unit in which a range of latents is read.
const GROUP_ROWS: usize = 1 << 16;

/// A firing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Activation {
    /// The window's number, in the order of the run's windows.
    pub row: u32,
    /// Offset in the window.
    pub position: u32,
    /// The latent.
    pub latent: u32,
    /// The activation.
    pub value: f32,
}

/// Writes a part, sorted by (latent, row, position) whatever order they come in, so that few latents are a short read.
///
/// # Errors
/// Those of the writer.
pub fn write_activations(writer: &mut (impl Write + Send), activations: &[Activation]) -> io::Result<()> {
    let mut sorted: Vec<&Activation> = activations.iter().collect();
    sorted.sort_unstable_by_key(|a| place(a));
    table::write_rows(writer, ACTIVATIONS, &[], &sorted, GROUP_ROWS, |rows| {
        RecordBatch::try_from_iter([
            ("row", table::numbers::<UInt32Type>(rows.iter().map(|a| a.row))),
            ("position", table::numbers::<UInt32Type>(rows.iter().map(|a| a.position))),
            ("latent", table::numbers::<UInt32Type>(rows.iter().map(|a| a.latent))),
            ("value", table::numbers::<Float32Type>(rows.iter().map(|a| a.value))),
        ])
    })
}

/// Reads a whole part.
///
/// # Errors
/// [`crate::StoreError::Damaged`] and its kin.
pub fn read_activations(path: &Path) -> Result<Vec<Activation>> {
    let builder = table::open_kind(path, ACTIVATIONS)?;
    table::read_rows(path, builder, |columns, rows| activations_of(columns, rows, &(0..=u32::MAX)))
}

/// Reads ranges of latents from all parts of a run.
pub struct ActivationReader {
    groups: Vec<Group>,
}

/// A row group and the latents in it.
struct Group {
    path: PathBuf,
    idx_in_file: usize,
    latents: RangeInclusive<u32>,
}

impl ActivationReader {
    /// Opens parts, reading their footers only.
    ///
    /// # Errors
    /// [`crate::StoreError::Damaged`] and its kin.
    pub fn open(parts: &[PathBuf]) -> Result<Self> {
        let mut groups = Vec::new();
        for path in parts {
            let builder = table::open_kind(path, ACTIVATIONS)?;
            for (idx_in_file, group) in builder.metadata().row_groups().iter().enumerate() {
                let column = group.columns().iter().find(|c| c.column_path().string() == "latent");
                // Without statistics a group may hold any latent.
                let latents = match column.and_then(|column| column.statistics()) {
                    Some(Statistics::Int32(s)) => match (s.min_opt(), s.max_opt()) {
                        (Some(&min), Some(&max)) => min as u32..=max as u32,
                        _ => 0..=u32::MAX,
                    },
                    _ => 0..=u32::MAX,
                };
                groups.push(Group { path: path.clone(), idx_in_file, latents });
            }
        }
        Ok(Self { groups })
    }

    /// All firings of a range of latents, sorted by (latent, row, position).
    ///
    /// # Memory
    /// Sixteen bytes a firing of the range, and one row group.
    ///
    /// # Errors
    /// [`crate::StoreError::Damaged`] and its kin.
    pub fn range(&self, latents: RangeInclusive<u32>) -> Result<Vec<Activation>> {
        let mut found = Vec::new();
        let meets = |g: &&Group| g.latents.start() <= latents.end() && latents.start() <= g.latents.end();
        for group in self.groups.iter().filter(meets) {
            let builder = table::open_kind(&group.path, ACTIVATIONS)?.with_row_groups(vec![group.idx_in_file]);
            found.extend(table::read_rows(&group.path, builder, |columns, rows| {
                activations_of(columns, rows, &latents)
            })?);
        }
        found.sort_unstable_by_key(place);
        Ok(found)
    }
}

fn place(a: &Activation) -> (u32, u32, u32) {
    (a.latent, a.row, a.position)
}

fn activations_of(columns: &Columns, found: &mut Vec<Activation>, wanted: &RangeInclusive<u32>) -> Result<()> {
    let (rows, positions) = (columns.numbers::<UInt32Type>("row")?, columns.numbers::<UInt32Type>("position")?);
    let (latents, values) = (columns.numbers::<UInt32Type>("latent")?, columns.numbers::<Float32Type>("value")?);
    found.extend((0..columns.len()).filter(|i| wanted.contains(&latents[*i])).map(|i| Activation {
        row: rows[i],
        position: positions[i],
        latent: latents[i],
        value: values[i],
    }));
    Ok(())
}
