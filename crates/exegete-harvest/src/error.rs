//! Errors of the stages of a run.

use exegete_model::ModelError;
use exegete_sae::SaeError;
use exegete_store::StoreError;
use exegete_tensor::TensorError;
use thiserror::Error;

/// Why a stage ended early.
#[derive(Debug, Error)]
pub enum HarvestError {
    /// The user stopped it; what is finished stays.
    #[error("stopped; run the same command again to go on from here")]
    Interrupted,
    /// Settings or input that make no sense.
    #[error("{0}")]
    Request(String),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The dictionary failed.
    #[error(transparent)]
    Sae(#[from] SaeError),
    /// The run directory or a text failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An array operation failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
