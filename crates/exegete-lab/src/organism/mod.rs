//! The organism: a small model trained on the [language](crate::language), of which everything is known.

pub mod settings;
mod state;
mod train;
pub mod vocabulary;

use std::io::Write;
use std::path::Path;

use exegete_store::write_atomic;

pub use self::settings::OrganismSettings;
pub use self::state::TrainState;
pub use self::train::{Trainer, train};
use crate::Result;

/// Writes a whole file, or nothing.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic(path, |sink| sink.write_all(bytes))?;
    Ok(())
}
