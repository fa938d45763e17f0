//! Errors of judges and scorers.

use exegete_methods::MethodError;
use exegete_model::ModelError;
use exegete_sae::SaeError;
use exegete_store::StoreError;
use exegete_tensor::TensorError;
use thiserror::Error;

/// Why nothing could be explained or scored. What a single example or text met is no error: it is counted in the score.
#[derive(Debug, Error)]
pub enum ExplainError {
    /// Settings or input that make no sense.
    #[error("{0}")]
    Request(String),
    /// The machine failed: a disk that is full.
    #[error("{0}")]
    Failed(String),
    /// The judge cannot do what a scorer needs.
    #[error("{judge} {lacks}")]
    Unable {
        /// Who.
        judge: String,
        /// What it lacks, and what to do.
        lacks: String,
    },
    /// The server refused for good: a wrong key, an unknown model.
    #[error("{url}: {reason}")]
    Refused {
        /// Address.
        url: String,
        /// What it said, and what to do.
        reason: String,
    },
    /// A budget was reached; what was answered until then is kept.
    #[error("{0}")]
    Budget(String),
    /// The run's files.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The method failed.
    #[error(transparent)]
    Method(#[from] MethodError),
    /// The dictionary failed.
    #[error(transparent)]
    Sae(#[from] SaeError),
    /// An array operation failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}

impl ExplainError {
    /// A request that makes no sense.
    pub(crate) fn request(text: impl Into<String>) -> Self {
        Self::Request(text.into())
    }
}
