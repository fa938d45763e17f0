//! Errors of methods.

use exegete_model::ModelError;
use exegete_sae::SaeError;
use exegete_tensor::TensorError;
use thiserror::Error;

/// Why a method could not run.
#[derive(Debug, Error)]
pub enum MethodError {
    /// Settings or input that make no sense.
    #[error("{0}")]
    Request(String),
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// The dictionary failed.
    #[error(transparent)]
    Sae(#[from] SaeError),
    /// An array operation failed.
    #[error(transparent)]
    Tensor(#[from] TensorError),
}
