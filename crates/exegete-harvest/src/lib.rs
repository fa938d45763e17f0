//! Where model, dictionary and store meet.
//!
//! The road of a run, one file a stage: [`windows`] cuts text into token windows, [`cache`] runs the model to sites and
//! keeps their activations, [`training`] fits dictionaries on them, [`firings`] encodes them again and gathers what makes
//! each latent fire. Each stage writes parts through the run's manifest, passes over what is already there, and gives the
//! same result however often it was stopped.
//!
//! Between the model and the training: `capture` runs windows through the model, [`rows`] numbers their tokens,
//! [`verify`] holds what a run goes on from to its checksums, [`Activations`] gives rows from the cache or from the model, `mixer` is the order in which they are trained on.
//! [`mod@measure`] says what a dictionary does on a text, [`proof`] compares that with what its publisher says, [`probing`]
//! asks labelled text what its latents know.
#![deny(missing_docs)]

mod activations;
pub mod attribution;
pub mod cache;
mod capture;
mod error;
pub mod firings;
pub mod grid;
pub mod measure;
pub mod merge;
mod mixer;
pub mod presets;
pub mod probing;
mod progress;
pub mod proof;
pub mod rows;
pub mod training;
pub mod verify;
pub mod vocabulary;
pub mod windows;

pub use activations::Activations;
pub use error::HarvestError;
pub use progress::{Progress, Silent};

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, HarvestError>;
