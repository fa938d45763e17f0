//! What a model that is at hand answers about a text.

use serde::{Deserialize, Serialize};

/// A text with one latent's activations.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TriedText {
    /// The latent.
    pub latent: u32,
    /// The text's tokens, those that the model puts before it included.
    pub tokens: Vec<TriedToken>,
}

/// A token with a latent's activation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TriedToken {
    /// Its text.
    pub text: String,
    /// The activation; null where none is computed, as on the first position.
    pub value: Option<f32>,
}

/// The latents that fire on a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TriedLatents {
    /// The text's tokens.
    pub tokens: Vec<String>,
    /// The latents, first in the order asked for.
    pub latents: Vec<FiringLatent>,
    /// Number of latents that fire at all.
    pub total: usize,
}

/// A latent that fires on a text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FiringLatent {
    /// The latent.
    pub latent: u32,
    /// Position of its strongest firing.
    pub position: usize,
    /// The activation there.
    pub value: f32,
    /// Share of the latent's firings in the run that are weaker; null where the run has none of it.
    pub quantile: Option<f32>,
    /// What its part of the site adds to the logit of the token that follows there, by its decoder row alone; null where no
    /// token follows.
    pub effect: Option<f32>,
    /// What it is called.
    pub explanation: Option<String>,
}

/// What latents that fire are sorted by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FiringOrder {
    /// Their activation.
    #[default]
    Activation,
    /// How rare so strong an activation is for the latent.
    Quantile,
    /// What they add to the logit of the next token.
    Effect,
}
