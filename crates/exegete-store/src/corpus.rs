//! Text: files, globs and directories of `.txt`, `.jsonl` and `.parquet`, as one numbered stream of documents.
//!
//! A document's id is (place of its file in the sorted list, record in the file). Empty records give no document but
//! keep their number, so that an id can be found again in the file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use exegete_base::DocId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::atomic::hex;
use crate::corpus_read::{Records, read_jsonl, read_parquet, read_txt};
use crate::error::{Result, StoreError};

/// How text files are cut into records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextOptions {
    /// Field of a `.jsonl` line that holds the text.
    pub jsonl_field: String,
    /// Column of a `.parquet` file that holds the text.
    pub parquet_column: String,
    /// A `.txt` file is cut at the first blank line after this many bytes; 0 keeps the file whole.
    pub record_bytes: usize,
}

impl Default for TextOptions {
    fn default() -> Self {
        Self { jsonl_field: "text".into(), parquet_column: "text".into(), record_bytes: 4096 }
    }
}

/// A text file that was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The file, as found.
    pub path: PathBuf,
    /// SHA-256 of its content, in hexadecimal.
    pub sha256: String,
    /// Its length.
    pub bytes: u64,
}

/// A piece of text that a token window never leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Which file and record it is.
    pub id: DocId,
    /// The text, never blank.
    pub text: String,
}

/// An opened corpus: its files in their final order.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// The files, sorted by path; a document's id counts in this list.
    pub sources: Vec<Source>,
    options: TextOptions,
}

#[derive(Clone, Copy, PartialEq)]
enum FileKind {
    Txt,
    Jsonl,
    Parquet,
}

/// Finds and checksums the files named by `specs`: paths, globs, or directories (searched through).
///
/// Directories and globs pass over other kinds of file, hidden files and links to directories.
///
/// # Errors
/// [`StoreError::NoFiles`] names the spec that matches nothing; [`StoreError::EmptyText`] if no record holds text; and
/// whatever is wrong with the first document.
pub fn open_corpus(specs: &[String], options: &TextOptions) -> Result<Corpus> {
    // Keyed by the real path, so that a file named twice counts once.
    let mut files: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for spec in specs {
        let found = expand(spec)?;
        if found.is_empty() {
            return Err(StoreError::NoFiles { spec: spec.clone() });
        }
        for path in found {
            let real = fs::canonicalize(&path).map_err(StoreError::io("open", &path))?;
            files.entry(real).or_insert(path);
        }
    }
    let mut paths: Vec<PathBuf> = files.into_values().collect();
    paths.sort();
    let sources = paths.into_iter().map(checksum).collect::<Result<Vec<_>>>()?;
    let corpus = Corpus { sources, options: options.clone() };
    let first_document = corpus.documents().next();
    match first_document {
        Some(Ok(_)) => Ok(corpus),
        Some(Err(error)) => Err(error),
        None => {
            let first = corpus.sources.first().map(|s| s.path.clone()).unwrap_or_default();
            Err(StoreError::EmptyText { n_files: corpus.sources.len(), first })
        }
    }
}

impl Corpus {
    /// All documents in the order of their ids, read as they are asked for. The stream ends at the first error.
    pub fn documents(&self) -> impl Iterator<Item = Result<Document>> + '_ {
        let mut failed = false;
        let all = (0..self.sources.len()).flat_map(|source_idx| self.documents_of(source_idx));
        all.take_while(move |item| !std::mem::replace(&mut failed, item.is_err()))
    }

    /// The documents of one file.
    pub fn documents_of(&self, source_idx: usize) -> Box<dyn Iterator<Item = Result<Document>> + '_> {
        match self.records(&self.sources[source_idx].path) {
            Err(error) => Box::new(std::iter::once(Err(error))),
            Ok(records) => Box::new(records.enumerate().filter_map(move |(record_idx, text)| match text {
                Ok(text) if text.trim().is_empty() => None,
                Ok(text) => Some(Ok(Document { id: DocId::new(source_idx as u32, record_idx as u64), text })),
                Err(error) => Some(Err(error)),
            })),
        }
    }

    fn records<'a>(&'a self, path: &'a Path) -> Result<Records<'a>> {
        match kind_of(path) {
            Some(FileKind::Txt) => read_txt(path, self.options.record_bytes),
            Some(FileKind::Jsonl) => read_jsonl(path, &self.options.jsonl_field),
            Some(FileKind::Parquet) => read_parquet(path, &self.options.parquet_column),
            None => Err(StoreError::FileKind { path: path.to_owned() }),
        }
    }
}

fn kind_of(path: &Path) -> Option<FileKind> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "txt" => Some(FileKind::Txt),
        "jsonl" => Some(FileKind::Jsonl),
        "parquet" => Some(FileKind::Parquet),
        _ => None,
    }
}

pub(crate) fn expand(spec: &str) -> Result<Vec<PathBuf>> {
    let path = Path::new(spec);
    let mut found = Vec::new();
    if path.is_dir() {
        walk(path, &mut found)?;
    } else if path.is_file() {
        // A file named outright is meant: an unknown kind is an error, not something to pass over.
        kind_of(path).ok_or_else(|| StoreError::FileKind { path: path.to_owned() })?;
        found.push(path.to_owned());
    } else if let Ok(matches) = glob::glob(spec) {
        for entry in matches {
            let entry = entry.map_err(|e| StoreError::io("read", e.path())(e.into()))?;
            if entry.is_dir() {
                walk(&entry, &mut found)?;
            } else if kind_of(&entry).is_some() {
                found.push(entry);
            }
        }
    }
    Ok(found)
}

fn walk(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(StoreError::io("inspect", &entry.path()))?);
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // Links to directories are not followed: they could lead in a circle.
        if kind.is_dir() {
            walk(&path, found)?;
        } else if kind_of(&path).is_some() && path.is_file() {
            found.push(path);
        }
    }
    Ok(())
}

impl Source {
    /// Reads a file once for its checksum.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn of(path: PathBuf) -> Result<Source> {
        checksum(path)
    }
}

fn checksum(path: PathBuf) -> Result<Source> {
    let mut file = File::open(&path).map_err(StoreError::io("open", &path))?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0u64, vec![0u8; 1 << 18]);
    loop {
        let n = file.read(&mut buffer).map_err(StoreError::io("read", &path))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        bytes += n as u64;
    }
    Ok(Source { sha256: hex(&hash.finalize()), path, bytes })
}
