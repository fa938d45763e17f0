//! What can go wrong in a run directory or a corpus. Each message names the file and, where there is one, the cure.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Result of this crate.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why the store refused or failed.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted: "read", "write".
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// No room is left for a file. Nothing is left of it.
    #[error(
        "the disk is full: {} needed more than the {written} bytes that could be written; free some space and run the \
         same command again",
        path.display()
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// How much of it had been written.
        written: u64,
    },
    /// A text specification matches nothing readable.
    #[error("no .txt, .jsonl or .parquet file matches {spec:?}")]
    NoFiles {
        /// The file, glob or directory as given.
        spec: String,
    },
    /// A file was named whose kind is unknown.
    #[error("{} is none of .txt, .jsonl and .parquet", path.display())]
    FileKind {
        /// The file.
        path: PathBuf,
    },
    /// There is no text at all.
    #[error("the {n_files} text file(s) hold no text: every record is empty ({})", first.display())]
    EmptyText {
        /// How many files were looked at.
        n_files: usize,
        /// The first of them.
        first: PathBuf,
    },
    /// Text is not UTF-8.
    #[error("{} is not UTF-8: bad byte at offset {offset}", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Offset of the first bad byte.
        offset: u64,
    },
    /// A line of a `.jsonl` file is no JSON object.
    #[error("{} line {line}: {reason}", path.display())]
    BadJson {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// What the parser said.
        reason: String,
    },
    /// A record lacks the chosen field, or it is no string.
    #[error(
        "{} line {line}: field {field:?} {problem}; the string fields here are: {}",
        path.display(),
        listed(found)
    )]
    Field {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The field asked for.
        field: String,
        /// "is missing" or "is not a string".
        problem: &'static str,
        /// Names of the fields that hold strings.
        found: Vec<String>,
    },
    /// A Parquet file lacks the chosen column, or it holds no text.
    #[error("{}: column {column:?} {problem}; the columns are: {}", path.display(), listed(found))]
    Column {
        /// The file.
        path: PathBuf,
        /// The column asked for.
        column: String,
        /// "is missing" or "is not text".
        problem: String,
        /// Names and types of the columns.
        found: Vec<String>,
    },
    /// A file is truncated, corrupt or of another format.
    #[error("{} is damaged or of another format: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// A file was written by a newer or older format.
    #[error("{} has {what} version {found}, this program reads {expected}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// Which format.
        what: &'static str,
        /// The file's version.
        found: u64,
        /// The version we know.
        expected: u64,
    },
    /// Another process writes to this run.
    #[error("run {} is being written by {writer}; wait for it, or stop it, or choose another --out", path.display())]
    Locked {
        /// The run directory.
        path: PathBuf,
        /// The process, with its id where the lock file has it already.
        writer: String,
    },
    /// The run exists and was made with other settings.
    #[error(
        "run {} was made with other settings ({}); give another directory (--out, --activations), or remove this one to start over",
        path.display(),
        differences.join("; ")
    )]
    OtherSettings {
        /// The run directory.
        path: PathBuf,
        /// One line a differing key, with both values.
        differences: Vec<String>,
    },
    /// The run exists and was made by another command. Both have settings of their own, so that all values would be a list of
    /// everything.
    #[error(
        "run {} was made by \"exegete {there}\" and not by \"exegete {asked}\": {} differ; give another directory as --out, or remove \
         this one to start over",
        path.display(),
        listed(keys)
    )]
    OtherCommand {
        /// The run directory.
        path: PathBuf,
        /// The command that made it.
        there: String,
        /// The command that was given.
        asked: String,
        /// Names of the settings that differ.
        keys: Vec<String>,
    },
    /// A directory is not a run.
    #[error("{} is not a run: it has no manifest.json{hint}", path.display())]
    NotARun {
        /// The directory.
        path: PathBuf,
        /// What to do, where there is something to do.
        hint: &'static str,
    },
    /// A writing call on a run that was opened for reading.
    #[error("run {} was opened for reading only", path.display())]
    ReadOnly {
        /// The run directory.
        path: PathBuf,
    },
    /// A part's name would leave the run directory.
    #[error("part name {name:?} must be a relative path inside the run, without \"..\"")]
    PartName {
        /// The name.
        name: String,
    },
    /// Two accumulators that do not belong together.
    #[error("accumulators differ in {what} and cannot be merged")]
    Merge {
        /// What differs, with both values.
        what: String,
    },
    /// A run lacks what is asked of it.
    #[error("run {} has no {what}; {cure}", path.display())]
    Missing {
        /// The run directory.
        path: PathBuf,
        /// What it lacks.
        what: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// A run has several dictionaries, or none of this name.
    #[error(
        "run {} has {} dictionaries ({}){}; name one with --dictionary",
        path.display(),
        names.len(),
        listed(names),
        asked.as_ref().map_or(String::new(), |name| format!(" and none called {name:?}"))
    )]
    Choice {
        /// The run directory.
        path: PathBuf,
        /// The name that was given.
        asked: Option<String>,
        /// Those that there are.
        names: Vec<String>,
    },
    /// SQLite refused.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// The database.
        path: PathBuf,
        /// Its answer.
        source: rusqlite::Error,
    },
}

impl StoreError {
    /// Wraps an error of the operating system with the file it concerns.
    pub fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = path.to_owned();
        move |source| StoreError::Io { action, path, source }
    }

    /// A file whose content does not fit.
    pub(crate) fn damaged(path: &Path, reason: impl ToString) -> StoreError {
        StoreError::Damaged { path: path.to_owned(), reason: reason.to_string() }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "(none)".into() } else { names.join(", ") }
}
