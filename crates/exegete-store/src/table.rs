//! Parquet, once: how our tables are written (the same rows give the same bytes) and how any is read (a bad file is
//! an error, whatever it holds).

use std::fmt::Display;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow_array::builder::{ListBuilder, PrimitiveBuilder};
use arrow_array::cast::AsArray;
use arrow_array::types::{ArrowPrimitiveType, Float32Type, UInt32Type};
use arrow_array::{ArrayRef, PrimitiveArray, RecordBatch};
use arrow_schema::ArrowError;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ParquetRecordBatchReaderBuilder};
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::{KeyValue, ParquetMetaData, RowGroupMetaData};
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::Statistics;

use crate::error::{Result, StoreError};

/// Key of the file's metadata that holds kind and version, for example `examples 1`.
const FORMAT_KEY: &str = "exegete.format";
/// Version of every table kind so far.
const TABLE_VERSION: u64 = 1;

/// Writes rows as a table of `kind`, a row group for every `group_rows` rows.
pub(crate) fn write_rows<R>(
    writer: &mut (impl Write + Send),
    kind: &str,
    metadata: &[(&str, String)],
    rows: &[R],
    group_rows: usize,
    batch_of: impl Fn(&[R]) -> Result<RecordBatch, ArrowError>,
) -> io::Result<()> {
    let format = KeyValue::new(FORMAT_KEY.into(), format!("{kind} {TABLE_VERSION}"));
    let own = metadata.iter().map(|(key, value)| KeyValue::new((*key).into(), value.clone()));
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(group_rows))
        .set_key_value_metadata(Some(std::iter::once(format).chain(own).collect()))
        .build();
    let schema = batch_of(&[]).map_err(io::Error::other)?.schema();
    let mut table = ArrowWriter::try_new(writer, schema, Some(properties)).map_err(io::Error::other)?;
    for group in rows.chunks(group_rows) {
        table.write(&batch_of(group).map_err(io::Error::other)?).map_err(io::Error::other)?;
    }
    table.close().map_err(io::Error::other)?;
    Ok(())
}

/// Opens any Parquet file.
pub(crate) fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    guarded(path, || ParquetRecordBatchReaderBuilder::try_new(file))
}

/// The footer of one of our tables, read once: of a table with many row groups it is long, and a reader of single groups would
/// spend its time on nothing else.
pub(crate) struct Footer {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
}

impl Footer {
    /// Reads it, and checks the table's kind and version.
    pub(crate) fn read(path: &Path, kind: &str) -> Result<Self> {
        let builder = open_kind(path, kind)?;
        let metadata = guarded(path, || ArrowReaderMetadata::try_new(builder.metadata().clone(), Default::default()))?;
        Ok(Self { path: path.to_owned(), metadata })
    }

    /// The table's file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What it says.
    pub(crate) fn metadata(&self) -> &ParquetMetaData {
        self.metadata.metadata()
    }

    /// Opens the file again, for one row group.
    pub(crate) fn group(&self, idx: usize) -> Result<ParquetRecordBatchReaderBuilder<File>> {
        let file = File::open(&self.path).map_err(StoreError::io("open", &self.path))?;
        Ok(ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone()).with_row_groups(vec![idx]))
    }
}

/// Opens one of our tables after checking its kind and version.
pub(crate) fn open_kind(path: &Path, kind: &str) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let builder = open(path)?;
    let format = metadata_of(&builder, FORMAT_KEY).unwrap_or_default();
    let (found_kind, version) = format.split_once(' ').unwrap_or((&format, ""));
    if found_kind != kind {
        let found = if found_kind.is_empty() { "of another program" } else { found_kind };
        return Err(StoreError::damaged(path, format!("expected a table of {kind}, found one {found}")));
    }
    match version.parse() {
        Ok(TABLE_VERSION) => Ok(builder),
        other => {
            let found = other.unwrap_or(0);
            Err(StoreError::Version { path: path.to_owned(), what: "table", found, expected: TABLE_VERSION })
        }
    }
}

/// A value of the file's own metadata.
pub(crate) fn metadata_of(builder: &ParquetRecordBatchReaderBuilder<File>, key: &str) -> Option<String> {
    let pairs = builder.metadata().file_metadata().key_value_metadata()?;
    pairs.iter().find(|pair| pair.key == key)?.value.clone()
}

/// Reads all (or the chosen) rows of an opened table.
pub(crate) fn read_rows<R>(
    path: &Path,
    builder: ParquetRecordBatchReaderBuilder<File>,
    mut rows_of: impl FnMut(&Columns, &mut Vec<R>) -> Result<()>,
) -> Result<Vec<R>> {
    let mut batches = guarded(path, || builder.with_batch_size(4096).build())?;
    let mut rows = Vec::new();
    while let Some(batch) = guarded(path, || batches.next().transpose())? {
        rows_of(&Columns { path, batch }, &mut rows)?;
    }
    Ok(rows)
}

/// Runs a decoder and turns its errors into ours.
///
/// The Parquet reader panics on some damaged files (an index past an end, a length that does not fit); such a panic
/// is a statement about the file and ends here.
pub(crate) fn guarded<T, E: Display>(path: &Path, decode: impl FnOnce() -> Result<T, E>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(outcome) => outcome.map_err(|e| StoreError::damaged(path, e)),
        Err(_) => Err(StoreError::damaged(path, "the decoder gave up")),
    }
}

/// First and last value of the first column of a row group, a column of u32 by which rows are sorted; all values where the file
/// does not say.
pub(crate) fn ends_of(group: &RowGroupMetaData) -> (u32, u32) {
    match group.columns().first().and_then(|column| column.statistics()) {
        Some(Statistics::Int32(s)) => match (s.min_opt(), s.max_opt()) {
            (Some(&min), Some(&max)) => (min as u32, max as u32),
            _ => (0, u32::MAX),
        },
        _ => (0, u32::MAX),
    }
}

/// The row groups in which values of the first column may lie in a range.
pub(crate) fn groups_with(builder: &ParquetRecordBatchReaderBuilder<File>, range: &Range<u32>) -> Vec<usize> {
    let groups = builder.metadata().row_groups().iter().enumerate();
    let overlaps = |group: &RowGroupMetaData| {
        let (first, last) = ends_of(group);
        first < range.end && last >= range.start
    };
    groups.filter(|(_, group)| overlaps(group)).map(|(i, _)| i).collect()
}

/// Tables whose first column is the latent, by which they are sorted, of which the rows of one latent are read at a time.
pub(crate) struct ByLatent {
    files: Vec<Footer>,
    groups: Vec<LatentGroup>,
}

/// A row group and the latents in it.
struct LatentGroup {
    /// Number of its file.
    file: usize,
    idx_in_file: usize,
    first: u32,
    last: u32,
}

impl ByLatent {
    /// Opens parts of a kind, reading their footers only.
    pub(crate) fn open(parts: &[PathBuf], kind: &str) -> Result<Self> {
        let (mut files, mut groups) = (Vec::new(), Vec::new());
        for (file, path) in parts.iter().enumerate() {
            let footer = Footer::read(path, kind)?;
            for (idx_in_file, group) in footer.metadata().row_groups().iter().enumerate() {
                let (first, last) = ends_of(group);
                groups.push(LatentGroup { file, idx_in_file, first, last });
            }
            files.push(footer);
        }
        Ok(Self { files, groups })
    }

    /// Reads the row groups that may hold a latent, in the order of the files; `rows_of` takes what is wanted of them.
    pub(crate) fn read<R>(
        &self,
        latent: u32,
        mut rows_of: impl FnMut(&Columns, &mut Vec<R>) -> Result<()>,
    ) -> Result<Vec<R>> {
        let mut found = Vec::new();
        for group in self.groups.iter().filter(|g| (g.first..=g.last).contains(&latent)) {
            let file = &self.files[group.file];
            found.extend(read_rows(file.path(), file.group(group.idx_in_file)?, &mut rows_of)?);
        }
        Ok(found)
    }
}

/// The columns of a batch by name, each checked for its type.
pub(crate) struct Columns<'a> {
    path: &'a Path,
    batch: RecordBatch,
}

impl Columns<'_> {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// The values of a column of numbers.
    pub(crate) fn numbers<T: ArrowPrimitiveType>(&self, name: &str) -> Result<&[T::Native]> {
        let array = self.column(name)?.as_primitive_opt::<T>().ok_or_else(|| self.wrong(name))?;
        Ok(array.values())
    }

    /// The rows of a column of lists of numbers.
    pub(crate) fn lists<T: ArrowPrimitiveType>(&self, name: &str) -> Result<Lists<'_, T::Native>> {
        let list = self.column(name)?.as_list_opt::<i32>().ok_or_else(|| self.wrong(name))?;
        let values = list.values().as_primitive_opt::<T>().ok_or_else(|| self.wrong(name))?.values();
        Ok(Lists { offsets: list.value_offsets(), values })
    }

    /// The rows of a column of bytes.
    pub(crate) fn bytes(&self, name: &str) -> Result<Vec<&[u8]>> {
        let array = self.column(name)?.as_binary_opt::<i32>().ok_or_else(|| self.wrong(name))?;
        Ok(array.iter().map(Option::unwrap_or_default).collect())
    }

    /// The rows of a column of text.
    pub(crate) fn texts(&self, name: &str) -> Result<Vec<&str>> {
        let array = self.column(name)?.as_string_opt::<i32>().ok_or_else(|| self.wrong(name))?;
        Ok(array.iter().map(Option::unwrap_or_default).collect())
    }

    /// Whether there is a column of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.batch.column_by_name(name).is_some()
    }

    /// A row of two columns of lists, taken together.
    pub(crate) fn pairs(&self, row: usize, ids: &str, weights: &str) -> Result<Vec<(u32, f32)>> {
        let (id_lists, weight_lists) = (self.lists::<UInt32Type>(ids)?, self.lists::<Float32Type>(weights)?);
        let (id_row, weight_row) = (id_lists.row(row), weight_lists.row(row));
        if id_row.len() != weight_row.len() {
            return Err(self.damaged(format!("columns {ids:?} and {weights:?} differ in length")));
        }
        Ok(id_row.iter().copied().zip(weight_row.iter().copied()).collect())
    }

    /// A complaint about this file.
    pub(crate) fn damaged(&self, reason: impl ToString) -> StoreError {
        StoreError::damaged(self.path, reason)
    }

    fn column(&self, name: &str) -> Result<&ArrayRef> {
        self.batch.column_by_name(name).ok_or_else(|| self.damaged(format!("column {name:?} is missing")))
    }

    fn wrong(&self, name: &str) -> StoreError {
        self.damaged(format!("column {name:?} has another type"))
    }
}

/// A column of lists: the rows share one array of values.
pub(crate) struct Lists<'a, N> {
    offsets: &'a [i32],
    values: &'a [N],
}

impl<N> Lists<'_, N> {
    /// One row; empty where the offsets make no sense.
    pub(crate) fn row(&self, idx: usize) -> &[N] {
        match self.offsets.get(idx..idx + 2) {
            Some(&[from, to]) => self.values.get(from.max(0) as usize..to.max(0) as usize).unwrap_or_default(),
            _ => &[],
        }
    }
}

/// A column of numbers.
pub(crate) fn numbers<T: ArrowPrimitiveType>(values: impl Iterator<Item = T::Native>) -> ArrayRef {
    Arc::new(PrimitiveArray::<T>::from_iter_values(values))
}

/// A column of lists of numbers.
pub(crate) fn lists<'a, T: ArrowPrimitiveType>(rows: impl Iterator<Item = &'a [T::Native]>) -> ArrayRef {
    let mut builder = ListBuilder::new(PrimitiveBuilder::<T>::new());
    for row in rows {
        builder.values().append_slice(row);
        builder.append(true);
    }
    Arc::new(builder.finish())
}
