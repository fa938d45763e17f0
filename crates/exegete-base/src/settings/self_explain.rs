//! How a model is asked what a direction means.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

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
    /// Words that stay over many scales and are said of few random directions, less the entropy there by (1 - alpha) / alpha
    Plateaus,
}

/// What is done with a direction at the placeholder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Insertion {
    /// It takes the residual's place
    #[default]
    Replace,
    /// It is added to the residual
    Add,
    /// It is added at the residual's own length: scales are multiples of that, so give --max-scale 4 or so
    AddAtNorm,
}

/// What answers are led away from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum GuidanceFrom {
    /// Scale 0: the placeholder's residual replaced by zeros, or left as it is where directions are added
    #[default]
    Nothing,
    /// The prompt with the mean token embedding inserted, at unit length
    MeanEmbedding,
}

/// How latents explain themselves.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
#[serde(default)]
pub struct SelfExplainSettings {
    /// What the model is asked: meaning, repeat, few-shot, selfie, or a .toml file with a question, the answer's beginning and a placeholder
    #[arg(long, default_value = "meaning", value_name = "NAME|FILE")]
    pub template: String,
    /// Layer before which the direction is inserted; 0 is behind the embedding
    #[arg(long, default_value_t = 2)]
    pub insert_layer: usize,
    /// What is done with the direction at the placeholder
    #[arg(long, value_enum, default_value_t = Insertion::Replace)]
    pub insertion: Insertion,
    /// Insert directions at the length they have, times the scale, and not at unit length
    #[arg(long)]
    pub as_stored: bool,
    /// Scales tried, spread evenly from 0
    #[arg(long, default_value_t = 32)]
    pub scales: usize,
    /// Largest scale
    #[arg(long, default_value_t = 400.0)]
    pub max_scale: f64,
    /// How scales are ranked
    #[arg(long, value_enum, default_value_t = ScaleRule::Entropy)]
    pub rule: ScaleRule,
    /// Weight under --rule cross-entropy (of self-similarity), peaks and plateaus; the rest is for cross-entropy to the baseline, or
    /// entropy
    #[arg(long, default_value_t = 0.4)]
    pub alpha: f64,
    /// Abstain when self-similarity never rises above this; under --rule plateaus, when the best word is worth no more than this above
    /// that of a random direction
    #[arg(long, default_value_t = 0.01, allow_negative_numbers = true)]
    pub abstain_below: f64,
    /// Most tokens of an explanation
    #[arg(long, default_value_t = 16)]
    pub explanation_tokens: usize,
    /// Classifier-free guidance on logits: how far answers are led away from a baseline; 1 leads nowhere
    #[arg(long, default_value_t = 1.0, value_name = "FACTOR")]
    pub guidance: f64,
    /// What guidance leads away from
    #[arg(long, value_enum, default_value_t = GuidanceFrom::Nothing)]
    pub guidance_from: GuidanceFrom,
}

impl Default for SelfExplainSettings {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            template: "meaning".into(),
            insert_layer: 2,
            insertion: Insertion::Replace,
            as_stored: false,
            scales: 32,
            max_scale: 400.0,
            rule: ScaleRule::Entropy,
            alpha: 0.4,
            abstain_below: 0.01,
            explanation_tokens: 16,
            guidance: 1.0,
            guidance_from: GuidanceFrom::Nothing,
        }
    }
}
