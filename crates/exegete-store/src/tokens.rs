//! Token windows (`tokens/part-*.parquet`) and the vocabulary that shows them (`tokens/vocab.parquet`).

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::types::{UInt32Type, UInt64Type};
use arrow_array::{ArrayRef, BinaryArray, RecordBatch};
use exegete_base::DocId;

use crate::error::{Result, StoreError};
use crate::table::{self, Columns, Footer};

const WINDOWS: &str = "tokens";
const VOCAB: &str = "vocab";
/// Windows of a row group, the unit of random access.
const GROUP_ROWS: usize = 256;
/// Tokens of the row groups that a reader keeps (128 MiB): the examples of a latent come from all over the corpus.
const CACHED_TOKENS: usize = 32 << 20;

/// A run of tokens of one document, as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The document.
    pub doc: DocId,
    /// Which window of the document it is.
    pub window: u32,
    /// Position, in the document's list of tokens, of the window's first token of text.
    pub start: u64,
    /// The tokens, with the special ones put before them.
    pub token_ids: Vec<u32>,
}

/// Writes windows, which a reader will number in this order.
///
/// # Errors
/// Those of the writer.
pub fn write_windows(writer: &mut (impl Write + Send), windows: &[Window]) -> io::Result<()> {
    table::write_rows(writer, WINDOWS, &[], windows, GROUP_ROWS, |rows| {
        RecordBatch::try_from_iter([
            ("doc", table::numbers::<UInt64Type>(rows.iter().map(|w| w.doc.0))),
            ("window", table::numbers::<UInt32Type>(rows.iter().map(|w| w.window))),
            ("start", table::numbers::<UInt64Type>(rows.iter().map(|w| w.start))),
            ("token_ids", table::lists::<UInt32Type>(rows.iter().map(|w| w.token_ids.as_slice()))),
        ])
    })
}

/// Writes the vocabulary: for each token id the token's own bytes, which need not be whole characters.
///
/// # Errors
/// Those of the writer.
pub fn write_vocab(writer: &mut (impl Write + Send), tokens: &[Vec<u8>]) -> io::Result<()> {
    table::write_rows(writer, VOCAB, &[], tokens, 1 << 16, |rows| {
        let bytes: ArrayRef = Arc::new(BinaryArray::from_iter_values(rows));
        RecordBatch::try_from_iter([("bytes", bytes)])
    })
}

/// Reads the vocabulary: the bytes of each token id.
///
/// # Errors
/// [`StoreError::Damaged`] and its kin.
pub fn read_vocab(path: &Path) -> Result<Vec<Vec<u8>>> {
    table::read_rows(path, table::open_kind(path, VOCAB)?, |columns, tokens| {
        tokens.extend(columns.bytes("bytes")?.into_iter().map(<[u8]>::to_vec));
        Ok(())
    })
}

/// Random access to the windows of a run. May be shared between threads.
pub struct TokenReader {
    files: Vec<Footer>,
    groups: Vec<Group>,
    /// (document, window of it, global index), sorted.
    index: Vec<(DocId, u32, u32)>,
    n_tokens: u64,
    cache: Mutex<Cache>,
}

/// Row groups that were read, the oldest first.
#[derive(Default)]
struct Cache {
    groups: VecDeque<(usize, Arc<Vec<Window>>)>,
    n_tokens: usize,
}

/// A row group of one of the files.
struct Group {
    /// Number of its file.
    file: usize,
    idx_in_file: usize,
    /// Global index of its first window.
    first: usize,
}

impl TokenReader {
    /// Opens the parts of a run, in their order (`run.parts_under("tokens/part-")`), and reads their index.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] and its kin.
    pub fn open(parts: &[PathBuf]) -> Result<Self> {
        let (mut files, mut groups, mut index, mut n_tokens) = (Vec::new(), Vec::new(), Vec::new(), 0);
        for (file, path) in parts.iter().enumerate() {
            files.push(Footer::read(path, WINDOWS)?);
            let builder = table::open_kind(path, WINDOWS)?;
            let mut first = index.len();
            for (idx_in_file, group) in builder.metadata().row_groups().iter().enumerate() {
                groups.push(Group { file, idx_in_file, first });
                first = first.saturating_add(usize::try_from(group.num_rows()).unwrap_or(0));
            }
            let keys = table::read_rows(path, builder, |columns, keys| {
                let (docs, windows) = (columns.numbers::<UInt64Type>("doc")?, columns.numbers::<UInt32Type>("window")?);
                let tokens = columns.lists::<UInt32Type>("token_ids")?;
                for row in 0..columns.len() {
                    keys.push((DocId(docs[row]), windows[row]));
                    n_tokens += tokens.row(row).len() as u64;
                }
                Ok(())
            })?;
            if first != index.len() + keys.len() {
                return Err(StoreError::damaged(path, "its row groups do not add up to its rows"));
            }
            let base = index.len();
            index.extend(keys.into_iter().enumerate().map(|(i, (doc, window))| (doc, window, (base + i) as u32)));
        }
        index.sort_unstable();
        Ok(Self { files, groups, index, n_tokens, cache: Mutex::default() })
    }

    /// Number of windows.
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// Whether there is no window.
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }

    /// Number of tokens in all windows, the special ones included.
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }

    /// A window by its global index; `None` past the end.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] and its kin.
    pub fn window(&self, global_idx: usize) -> Result<Option<Window>> {
        if global_idx >= self.len() {
            return Ok(None);
        }
        let group_idx = self.groups.partition_point(|group| group.first <= global_idx) - 1;
        let windows = self.group(group_idx)?;
        Ok(windows.get(global_idx - self.groups[group_idx].first).cloned())
    }

    /// A window by its document and number; `None` if there is none such.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] and its kin.
    pub fn window_of(&self, doc: DocId, window: u32) -> Result<Option<Window>> {
        let at = self.index.partition_point(|&(d, w, _)| (d, w) < (doc, window));
        match self.index.get(at) {
            Some(&(d, w, global_idx)) if (d, w) == (doc, window) => self.window(global_idx as usize),
            _ => Ok(None),
        }
    }

    fn group(&self, group_idx: usize) -> Result<Arc<Vec<Window>>> {
        // The cache holds whole values only, so one left by a panicking thread is sound.
        let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, windows)) = cache.groups.iter().find(|(idx, _)| *idx == group_idx) {
            return Ok(windows.clone());
        }
        let group = &self.groups[group_idx];
        let file = &self.files[group.file];
        let windows = Arc::new(table::read_rows(file.path(), file.group(group.idx_in_file)?, windows_of)?);
        let tokens_in = |windows: &[Window]| windows.iter().map(|window| window.token_ids.len()).sum::<usize>();
        cache.n_tokens += tokens_in(&windows);
        cache.groups.push_back((group_idx, windows.clone()));
        while cache.n_tokens > CACHED_TOKENS && cache.groups.len() > 1 {
            let Some((_, oldest)) = cache.groups.pop_front() else { break };
            cache.n_tokens -= tokens_in(&oldest);
        }
        Ok(windows)
    }
}

/// Reads all windows of one part in order, for a pass over the corpus.
///
/// # Errors
/// [`StoreError::Damaged`] and its kin.
pub fn read_windows(path: &Path) -> Result<Vec<Window>> {
    table::read_rows(path, table::open_kind(path, WINDOWS)?, windows_of)
}

fn windows_of(columns: &Columns, windows: &mut Vec<Window>) -> Result<()> {
    let (docs, numbers) = (columns.numbers::<UInt64Type>("doc")?, columns.numbers::<UInt32Type>("window")?);
    let (starts, tokens) = (columns.numbers::<UInt64Type>("start")?, columns.lists::<UInt32Type>("token_ids")?);
    windows.extend((0..columns.len()).map(|row| Window {
        doc: DocId(docs[row]),
        window: numbers[row],
        start: starts[row],
        token_ids: tokens.row(row).to_vec(),
    }));
    Ok(())
}
