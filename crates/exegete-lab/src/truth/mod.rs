//! Which concepts a dictionary found, where it is known which concept is where.
//!
//! For each concept the latent (and the level from which it counts as firing) is chosen on some documents and its scores
//! are read on others, for a dictionary and for every control alike.

mod curve;
mod matching;
mod report;
mod sources;
mod splitting;
mod tokens;

pub use self::matching::{Match, Matched, match_concepts};
pub use self::report::{ConceptReport, Count, Missing, Truth, report};
pub use self::sources::{Neurons, RandomDirections, Source, SparseLatents, activations};
pub use self::splitting::Absorbed;
pub use self::tokens::{Half, LabelledTokens};

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::{LabError, Result};

/// F1 from which a concept counts as recovered.
pub const RECOVERED: f64 = 0.8;

/// How a dictionary is compared with the truth.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
pub struct TruthSettings {
    /// Tokens on which latents are chosen, and as many more on which they are scored
    #[arg(long, default_value_t = 100_000)]
    pub truth_tokens: usize,
    /// Tokens with a concept, in each half, below which it is not measured
    #[arg(long, default_value_t = 20)]
    pub least_tokens: usize,
    /// Resamplings of documents for intervals
    #[arg(long, default_value_t = 500)]
    pub resamplings: usize,
}

impl Default for TruthSettings {
    /// The defaults of the command line.
    fn default() -> Self {
        Self { truth_tokens: 100_000, least_tokens: 20, resamplings: 500 }
    }
}

impl TruthSettings {
    /// Checks the numbers.
    ///
    /// # Errors
    /// A sentence that names the flag at fault.
    pub fn check(&self) -> Result<()> {
        let rules = [
            ((1000..=2_000_000).contains(&self.truth_tokens), "--truth-tokens must be between 1000 and 2000000"),
            (self.least_tokens >= 1, "--least-tokens must be at least 1"),
            ((10..=10_000).contains(&self.resamplings), "--resamplings must be between 10 and 10000"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, text)) => Err(LabError::Settings((*text).into())),
        }
    }
}
