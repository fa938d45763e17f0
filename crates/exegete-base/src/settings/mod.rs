//! Settings: each struct is at once the command's flags, a TOML file, and what the manifest records.

mod activations;
mod harvest;
mod probe;
mod train;

pub use activations::{ActivationSettings, StoredAs};
use clap::ValueEnum;
pub use harvest::HarvestSettings;
pub use probe::ProbeSettings;
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

/// What the model is asked about the placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Template {
    /// "What is the meaning of the word?"
    #[default]
    Meaning,
    /// "Repeat the word four times", with three repetitions given
    Repeat,
}

/// How scales are ranked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ScaleRule {
    /// Self-similarity less a tenth of the entropy; the smallest scales are passed over
    #[default]
    Entropy,
    /// Self-similarity and cross-entropy to the baseline, each brought to 0..1, weighted by alpha
    CrossEntropy,
    /// Self-similarity alone
    SelfSimilarity,
    /// The lowest entropy of the answer's first token
    MinEntropy,
    /// Peaks of self-similarity by prominence, less the entropy there by (1 - alpha) / alpha
    Peaks,
}

/// How latents explain themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct SelfExplainSettings {
    /// What the model is asked
    #[arg(long, value_enum, default_value_t = Template::Meaning)]
    pub template: Template,
    /// Layer before which the direction replaces the placeholder's residual
    #[arg(long, default_value_t = 2)]
    pub insert_layer: usize,
    /// Scales tried, spread evenly from 0
    #[arg(long, default_value_t = 32)]
    pub scales: usize,
    /// Largest scale
    #[arg(long, default_value_t = 400.0)]
    pub max_scale: f64,
    /// How scales are ranked
    #[arg(long, value_enum, default_value_t = ScaleRule::Entropy)]
    pub rule: ScaleRule,
    /// Weight of self-similarity under --rule cross-entropy and peaks; the rest is for cross-entropy to the baseline, or entropy
    #[arg(long, default_value_t = 0.4)]
    pub alpha: f64,
    /// Abstain when self-similarity never rises above this
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    pub abstain_below: f64,
    /// Most tokens of an explanation
    #[arg(long, default_value_t = 16)]
    pub explanation_tokens: usize,
}

impl Default for SelfExplainSettings {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            template: Template::Meaning,
            insert_layer: 2,
            scales: 32,
            max_scale: 400.0,
            rule: ScaleRule::Entropy,
            alpha: 0.4,
            abstain_below: 0.01,
            explanation_tokens: 16,
        }
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
