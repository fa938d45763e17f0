//! What the page of blind ratings shows and `/api/rating` sends.

use serde::Serialize;

use super::ExampleText;

/// A text to be rated. It does not say whose it is, nor what anyone thinks of it.
#[derive(Debug, Clone, Serialize)]
pub struct RatingTask {
    /// Number of the text.
    pub candidate: i64,
    /// Seed of the order and the examples.
    pub seed: u64,
    /// The text.
    pub text: String,
    /// Random firings of random levels, in random order.
    pub examples: Vec<ExampleText>,
    /// The latent's largest activation.
    pub max: f32,
    /// Texts that were rated.
    pub rated: usize,
    /// Texts that there are.
    pub total: usize,
}

/// What was stored.
#[derive(Debug, Clone, Serialize)]
pub struct Rated {
    /// Texts that were rated.
    pub rated: usize,
    /// Texts that there are.
    pub total: usize,
}
