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

/// How a dictionary is trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct TrainSettings {
    /// Number of latents
    #[arg(long, default_value_t = 4096)]
    pub latents: usize,
    /// Latents kept for each token (TopK)
    #[arg(long, default_value_t = 32)]
    pub k: usize,
    /// Passes over the activation cache
    #[arg(long, default_value_t = 6)]
    pub epochs: usize,
    /// Tokens in a training step
    #[arg(long, default_value_t = 512)]
    pub batch: usize,
    /// Learning rate at its highest; 0 picks 2e-4 / sqrt(latents / 2^14)
    #[arg(long, default_value_t = 0.0)]
    pub lr: f64,
    /// Share of the steps over which the learning rate rises from 0
    #[arg(long, default_value_t = 0.05)]
    pub warmup: f64,
    /// Share of the steps, at the end, over which the learning rate falls to 0
    #[arg(long, default_value_t = 0.2)]
    pub decay: f64,
    /// Weight of the auxiliary loss that revives dead latents (AuxK); 0 turns it off
    #[arg(long, default_value_t = 1.0 / 32.0)]
    pub aux_weight: f64,
    /// Dead latents that explain a token's error; 0 picks half the input's width, at most 256
    #[arg(long, default_value_t = 0)]
    pub aux_k: usize,
    /// Tokens without a firing after which a latent counts as dead
    #[arg(long, default_value_t = 250_000)]
    pub dead_after_tokens: u64,
}

impl TrainSettings {
    /// The learning rate, with 0 resolved.
    pub fn peak_lr(&self) -> f64 {
        if self.lr > 0.0 { self.lr } else { 2e-4 / (self.latents as f64 / 16_384.0).sqrt() }
    }

    /// Latents of the auxiliary loss, with 0 resolved for inputs of width `d_in`.
    pub fn resolved_aux_k(&self, d_in: usize) -> usize {
        if self.aux_k > 0 { self.aux_k } else { (d_in / 2).clamp(1, 256) }
    }

    /// Factor of the learning rate at a step: linear warm-up, constant, linear decay to 0.
    pub fn lr_factor(&self, step: u64, n_steps: u64) -> f64 {
        let warm = (self.warmup * n_steps as f64).floor().max(1.0);
        let decay = (self.decay * n_steps as f64).floor().max(1.0);
        ((step + 1) as f64 / warm).min((n_steps - step) as f64 / decay).min(1.0)
    }

    /// Checks the numbers.
    ///
    /// # Errors
    /// A sentence naming the flag at fault.
    pub fn check(&self) -> Result<(), String> {
        let rules = [
            (self.latents >= 1 && self.latents <= 1 << 24, "--latents must be between 1 and 16777216"),
            (self.k >= 1 && self.k <= self.latents, "--k must be between 1 and --latents"),
            (self.batch >= 1 && self.epochs >= 1, "--batch and --epochs must be at least 1"),
            (self.lr >= 0.0 && self.lr.is_finite(), "--lr must be a number, 0 or more"),
            (
                (0.0..=1.0).contains(&self.warmup) && (0.0..=1.0).contains(&self.decay),
                "--warmup and --decay are shares",
            ),
            (self.aux_weight >= 0.0 && self.aux_weight.is_finite(), "--aux-weight must be a number, 0 or more"),
        ];
        rules.iter().find(|(holds, _)| !holds).map_or(Ok(()), |(_, text)| Err((*text).into()))
    }
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
    /// Take spellings of special tokens in the text for these tokens: for text that is trusted
    #[arg(long)]
    #[serde(default)]
    pub special_tokens: bool,
    /// Stop reading text after this many tokens; 0 reads all
    #[arg(long, default_value_t = 400_000)]
    pub max_tokens: u64,
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
    /// Weight of self-similarity under --rule cross-entropy; the rest is for cross-entropy to the baseline
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
    }

    #[test]
    fn defaults_are_those_of_the_command_line() {
        assert_eq!(Flags::parse_from(["test"]).settings, SelfExplainSettings::default());
    }
}
