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
    /// Work that keeps nothing before its end was stopped.
    #[error("stopped; nothing was written, and the same command begins anew")]
    Interrupted,
    /// A training was stopped, all of which is kept.
    #[error("stopped; all that was trained is in {path}, and the same command goes on from there", path = path.display())]
    Saved {
        /// The training's directory.
        path: PathBuf,
    },
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
