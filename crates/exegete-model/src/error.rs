//! Errors of loading and running models.

use std::path::{Path, PathBuf};

use exegete_base::SiteError;
use exegete_tensor::TensorError;
use thiserror::Error;

/// Why a model could not be loaded or run.
#[derive(Debug, Error)]
pub enum ModelError {
    /// A file could not be read.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// A file's content is not what its format promises.
    #[error("{path}: {detail}")]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        detail: String,
    },
    /// A checkpoint says something that this program does not handle.
    #[error("{path}: {detail}")]
    Config {
        /// The file.
        path: PathBuf,
        /// The key, its value, and what is handled.
        detail: String,
    },
    /// Tensors are missing, unused or of the wrong shape.
    #[error("{path}: {detail}")]
    Weights {
        /// The checkpoint.
        path: PathBuf,
        /// The tensors.
        detail: String,
    },
    /// The tokenizer is missing or does not fit the model.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template is missing or failed.
    #[error("chat template: {0}")]
    Chat(String),
    /// A request that the model cannot serve.
    #[error("{0}")]
    Request(String),
    /// A site that does not exist.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// An array operation failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl ModelError {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }

    pub(crate) fn format(path: &Path, detail: impl Into<String>) -> Self {
        Self::Format { path: path.into(), detail: detail.into() }
    }

    pub(crate) fn config(path: &Path, detail: impl Into<String>) -> Self {
        Self::Config { path: path.into(), detail: detail.into() }
    }

    pub(crate) fn weights(path: &Path, detail: impl Into<String>) -> Self {
        Self::Weights { path: path.into(), detail: detail.into() }
    }
}
