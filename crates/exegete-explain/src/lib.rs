//! Explanations by a judge, and scores of explanations.
//!
//! Excerpts of a run ([`examples`]) and a question ([`question`]) make prompts for a [`judge`]: a local model of which what prompts share
//! is computed once, or a server. Of its verdicts a scorer ([`scorers`], one file each) makes a score with an interval, beside a
//! control. What a latent does to the model's own texts ([`amplify`], [`completions`]) is explained and scored too. What explains and
//! what scores never share a document.
#![deny(missing_docs)]

pub mod amplify;
pub mod completions;
mod error;
pub mod examples;
pub mod explainers;
pub mod judge;
pub mod pool;
pub mod question;
pub mod scorers;
pub mod statistics;
pub mod subject;

pub use error::ExplainError;
pub use judge::{Cost, Judge};

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, ExplainError>;
