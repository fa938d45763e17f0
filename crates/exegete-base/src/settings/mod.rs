//! Settings: each struct is at once the command's flags, a TOML file, and what the manifest records.

mod activations;
mod harvest;
mod probe;
mod self_explain;
mod train;

pub use activations::{ActivationSettings, StoredAs};
use clap::ValueEnum;
pub use harvest::HarvestSettings;
pub use probe::ProbeSettings;
pub use self_explain::{GuidanceFrom, Insertion, ScaleRule, SelfExplainSettings};
pub use train::{Activation, DecoderRows, KthForm, Penalty, Reconstruction, ThresholdForm, TrainSettings};

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

/// Where text comes from and how it is cut.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct TextSettings {
    /// Field of a .jsonl record that holds the text
    #[arg(long, default_value = "text")]
    pub jsonl_field: String,
    /// Column of a .parquet file that holds the text
    #[arg(long, default_value = "text")]
    pub parquet_column: String,
    /// A .txt file is cut into documents at the first blank line after this many bytes; 0 keeps it whole
    #[arg(long, default_value_t = 4096)]
    pub record_bytes: usize,
    /// Tokens in a window; windows never cross a document
    #[arg(long, default_value_t = 128)]
    pub window: usize,
    /// Whether windows begin with the beginning-of-sequence token
    #[arg(long, value_enum, default_value_t = BosPolicy::Auto)]
    pub bos: BosPolicy,
    /// Take spellings of special tokens in the text for these tokens: for text that is trusted; always so for builtin:organism
    #[arg(long)]
    #[serde(default)]
    pub special_tokens: bool,
    /// Windows taken of each document, so that long ones do not stand for all; 0 takes all. Which ones depends on no seed
    #[arg(long, default_value_t = 0)]
    #[serde(default)]
    pub document_windows: usize,
    /// Stop reading text after this many tokens; 0 reads all
    #[arg(long, default_value_t = 400_000)]
    pub max_tokens: u64,
}

impl Default for TextSettings {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            jsonl_field: "text".into(),
            parquet_column: "text".into(),
            record_bytes: 4096,
            window: 128,
            bos: BosPolicy::Auto,
            special_tokens: false,
            document_windows: 0,
            max_tokens: 400_000,
        }
    }
}

/// What a harvest keeps of each latent's firings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct KeepSettings {
    /// Strongest examples kept for each latent
    #[arg(long, default_value_t = 20)]
    pub top_examples: usize,
    /// Random examples kept at each level of activation
    #[arg(long, default_value_t = 4)]
    pub samples_per_level: usize,
    /// Tokens shown on each side of an example
    #[arg(long, default_value_t = 16)]
    pub context: usize,
}

impl KeepSettings {
    /// Checks the numbers.
    ///
    /// # Errors
    /// A sentence naming the flag at fault.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            (self.context <= 1 << 12, "--context must be at most 4096"),
            (self.top_examples <= 1 << 16, "--top-examples must be at most 65536"),
            (self.samples_per_level <= 1 << 12, "--samples-per-level must be at most 4096"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, text)| Err((*text).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        settings: SelfExplainSettings,
        #[command(flatten)]
        train: TrainSettings,
        #[command(flatten)]
        probe: ProbeSettings,
        #[command(flatten)]
        text: TextSettings,
        #[command(flatten)]
        harvest: HarvestSettings,
    }

    #[test]
    fn defaults_are_those_of_the_command_line() {
        let flags = Flags::parse_from(["test"]);
        assert_eq!((flags.settings, flags.train), (SelfExplainSettings::default(), TrainSettings::default()));
        assert_eq!((flags.probe, flags.text), (ProbeSettings::default(), TextSettings::default()));
        assert_eq!(flags.harvest, HarvestSettings::default());
    }
}
