//! Errors of array operations.

use thiserror::Error;

/// Why an array operation was refused.
#[derive(Debug, Error)]
pub enum TensorError {
    /// Operands do not fit together.
    #[error("{op}: {detail}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// What was expected and what came.
        detail: String,
    },
    /// An index lies outside its table.
    #[error("{op}: index {index} is outside 0..{len}")]
    Index {
        /// The operation.
        op: &'static str,
        /// The index.
        index: u64,
        /// Length of the table.
        len: usize,
    },
    /// The operation has no kernel for this device or element type.
    #[error("{op}: no kernel for {what}; run with --device cpu --dtype f32")]
    Unsupported {
        /// The operation.
        op: &'static str,
        /// The device or element type.
        what: String,
    },
    /// A device that cannot be used.
    #[error("device {name:?}: {what}")]
    Device {
        /// Its name.
        name: String,
        /// Why, and what to do.
        what: String,
    },
    /// A gradient was asked for a value that the tape does not know.
    #[error("no gradient: {0}")]
    NoGradient(&'static str),
    /// The engine underneath failed.
    #[error(transparent)]
    Engine(#[from] candle_core::Error),
}

impl TensorError {
    /// A shape error.
    pub fn shape(op: &'static str, detail: impl Into<String>) -> Self {
        Self::Shape { op, detail: detail.into() }
    }
}
