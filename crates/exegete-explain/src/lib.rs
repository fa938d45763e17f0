//! Explanations by a judge, and scores of explanations.
//!
//! Excerpts of a run ([`examples`]) and a question ([`question`]) make prompts for a [`judge`]: a local model of which what prompts share
//! is computed once, or a server. Of its verdicts a scorer ([`scorers`], one file each) makes a score with an interval, beside a
//! control. What explains and what scores never share a document.
#![deny(missing_docs)]

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
