//! Models that we train ourselves, where the truth is known.
#![deny(missing_docs)]

pub mod bimt;
pub mod builtin;
pub mod corpus;
mod error;
pub mod language;
pub mod organism;
pub mod superposition;
pub mod truth;

pub use error::LabError;

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, LabError>;
