//! The three readers of text files. Each streams: memory holds a record (or a batch of rows), never a corpus.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use arrow_array::RecordBatch;
use arrow_array::cast::AsArray;
use arrow_schema::DataType;
use parquet::arrow::ProjectionMask;
use serde_json::Value;

use crate::error::{Result, StoreError};
use crate::table::{self, guarded};

/// The records of a file, blank ones included.
pub(crate) type Records<'a> = Box<dyn Iterator<Item = Result<String>> + 'a>;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A text file, cut at the first blank line after `record_bytes` bytes (never, if 0).
pub(crate) fn read_txt(path: &Path, record_bytes: usize) -> Result<Records<'_>> {
    let mut lines = Lines::open(path)?;
    let mut ended = false;
    Ok(Box::new(std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let (start, mut record) = (lines.offset, Vec::new());
        loop {
            let line_start = record.len();
            match lines.append_to(&mut record) {
                Err(error) => {
                    ended = true;
                    return Some(Err(error));
                }
                Ok(0) => {
                    ended = true;
                    return (!record.is_empty()).then(|| utf8(path, start, record));
                }
                Ok(_) => {
                    let is_blank = record[line_start..].iter().all(u8::is_ascii_whitespace);
                    if record_bytes > 0 && is_blank && record.len() >= record_bytes {
                        return Some(utf8(path, start, record));
                    }
                }
            }
        }
    })))
}

/// A file of JSON objects, one a line; `field` must be a string in each. Blank lines are blank records.
pub(crate) fn read_jsonl<'a>(path: &'a Path, field: &'a str) -> Result<Records<'a>> {
    let mut lines = Lines::open(path)?;
    let mut line = 0;
    Ok(Box::new(std::iter::from_fn(move || {
        let (start, mut bytes) = (lines.offset, Vec::new());
        match lines.append_to(&mut bytes) {
            Ok(0) => return None,
            Err(error) => return Some(Err(error)),
            Ok(_) => line += 1,
        }
        Some(utf8(path, start, bytes).and_then(|text| text_of_line(path, line, field, &text)))
    })))
}

/// A Parquet file; `column` must hold strings. A null is a blank record.
pub(crate) fn read_parquet<'a>(path: &'a Path, column: &'a str) -> Result<Records<'a>> {
    let builder = table::open(path)?;
    let schema = builder.schema().clone();
    let refuse = |problem: String| StoreError::Column {
        path: path.to_owned(),
        column: column.into(),
        problem,
        found: schema.fields().iter().map(|f| format!("{} ({})", f.name(), f.data_type())).collect(),
    };
    let root = schema.index_of(column).map_err(|_| refuse("is missing".into()))?;
    let kind = schema.field(root).data_type();
    if !matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View) {
        return Err(refuse(format!("is {kind}, not text")));
    }
    let mask = ProjectionMask::roots(builder.parquet_schema(), [root]);
    let mut batches = guarded(path, || builder.with_projection(mask).with_batch_size(256).build())?;
    let mut failed = false;
    let next_batch = move || {
        if failed {
            return None;
        }
        let item = guarded(path, || batches.next().transpose()).transpose();
        failed = matches!(item, Some(Err(_)));
        item
    };
    Ok(Box::new(std::iter::from_fn(next_batch).flat_map(|batch| match batch {
        Ok(batch) => texts_of_batch(&batch).into_iter().map(Ok).collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    })))
}

fn texts_of_batch(batch: &RecordBatch) -> Vec<String> {
    let column = batch.column(0);
    let own = |text: Option<&str>| text.unwrap_or_default().to_owned();
    match column.data_type() {
        DataType::LargeUtf8 => column.as_string::<i64>().iter().map(own).collect(),
        DataType::Utf8View => column.as_string_view().iter().map(own).collect(),
        _ => column.as_string::<i32>().iter().map(own).collect(),
    }
}

fn text_of_line(path: &Path, line: u64, field: &str, text: &str) -> Result<String> {
    if text.trim().is_empty() {
        return Ok(String::new());
    }
    let bad = |reason: String| StoreError::BadJson { path: path.to_owned(), line, reason };
    let mut record = match serde_json::from_str(text).map_err(|e| bad(format!("malformed JSON: {e}")))? {
        Value::Object(record) => record,
        _ => return Err(bad("not a JSON object".into())),
    };
    let problem = match record.remove(field) {
        Some(Value::String(text)) => return Ok(text),
        Some(_) => "is not a string",
        None => "is missing",
    };
    let found = record.iter().filter(|(_, value)| value.is_string()).map(|(name, _)| name.clone()).collect();
    Err(StoreError::Field { path: path.to_owned(), line, field: field.into(), problem, found })
}

fn utf8(path: &Path, start: u64, bytes: Vec<u8>) -> Result<String> {
    String::from_utf8(bytes).map_err(|e| {
        let offset = start + e.utf8_error().valid_up_to() as u64;
        StoreError::NotUtf8 { path: path.to_owned(), offset }
    })
}

/// Raw lines of a file, with the offset of the next one. A byte order mark is passed over.
struct Lines<'a> {
    path: &'a Path,
    reader: BufReader<File>,
    offset: u64,
}

impl<'a> Lines<'a> {
    fn open(path: &'a Path) -> Result<Self> {
        let file = File::open(path).map_err(StoreError::io("open", path))?;
        let mut reader = BufReader::with_capacity(1 << 16, file);
        let mut offset = 0;
        if reader.fill_buf().map_err(StoreError::io("read", path))?.starts_with(BYTE_ORDER_MARK) {
            reader.consume(BYTE_ORDER_MARK.len());
            offset = BYTE_ORDER_MARK.len() as u64;
        }
        Ok(Self { path, reader, offset })
    }

    /// Appends the next line with its end, and gives its length: 0 at the end of the file.
    fn append_to(&mut self, bytes: &mut Vec<u8>) -> Result<usize> {
        let n = self.reader.read_until(b'\n', bytes).map_err(StoreError::io("read", self.path))?;
        self.offset += n as u64;
        Ok(n)
    }
}
