//! Settings: each struct is at once the command's flags, a TOML file, and what the manifest records.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// Whether a text's tokens begin with the beginning-of-sequence token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum BosPolicy {
    /// As the model's tokenizer does by itself.
    #[default]
    Auto,
    /// Before every window.
    Always,
    /// Never.
    Never,
}
