//! How long work tells of its progress and is told to stop.

use crate::{HarvestError, Result};

/// Hears of progress.
pub trait Progress {
    /// A stage begins: its name, how much there is to do, of what unit, and how much was done by an earlier run.
    fn begin(&self, stage: &str, total: u64, unit: &str, done: u64);

    /// So much is done now, in all; `note` is a short live figure.
    fn at(&self, done: u64, note: &str);

    /// The stage ended, with a sentence about it.
    fn end(&self, summary: &str);

    /// Whether the user wants to stop.
    fn is_cancelled(&self) -> bool {
        false
    }

    /// An error if the user wants to stop.
    ///
    /// # Errors
    /// [`HarvestError::Interrupted`].
    fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(HarvestError::Interrupted) } else { Ok(()) }
    }
}

/// Hears nothing and never stops.
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _: &str, _: u64, _: &str, _: u64) {}
    fn at(&self, _: u64, _: &str) {}
    fn end(&self, _: &str) {}
}
