//! Errors of dictionaries.

use std::path::{Path, PathBuf};

use exegete_tensor::TensorError;
use thiserror::Error;

/// Why a dictionary could not be read, written or run.
#[derive(Debug, Error)]
pub enum SaeError {
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file's content is not what its format promises, or says something that is not handled.
    #[error("{path}: {detail}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// A name that stands in no table, with the nearest that do.
    #[error("{0}")]
    Unknown(String),
    /// Arrays or settings that do not fit together.
    #[error("{0}")]
    Shape(String),
    /// An array operation failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl SaeError {
    pub(crate) fn format(path: &Path, detail: impl Into<String>) -> Self {
        Self::Format { path: path.into(), detail: detail.into() }
    }
}
