//! What can go wrong in the lab.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// An error of the lab.
#[derive(Debug, Error)]
pub enum LabError {
    /// Settings that ask for something impossible; the text names the flag.
    #[error("{0}")]
    Settings(String),
    /// Work that could not be done; the text says what and why.
    #[error("{0}")]
    Failed(String),
    /// A file that cannot be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that is not what it should be.
    #[error("{path}: {detail}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        detail: String,
    },
    /// The work was stopped.
    #[error("interrupted; run the same command again, which goes on where that is possible")]
    Interrupted,
    /// The run directory's or a text's.
    #[error(transparent)]
    Store(#[from] exegete_store::StoreError),
    /// The array engine's.
    #[error(transparent)]
    Tensor(#[from] exegete_tensor::TensorError),
    /// The model's.
    #[error(transparent)]
    Model(#[from] exegete_model::ModelError),
}

impl LabError {
    /// An input or output error at a path.
    pub fn io(path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// A file that is not what it should be.
    pub fn format(path: &Path, detail: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), detail: detail.into() }
    }
}
