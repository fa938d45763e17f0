//! What pages show and `/api` sends: plain data with every token already as text.

mod training;

use std::collections::BTreeMap;

use exegete_base::stats::Estimate;
use serde::Serialize;

pub use self::training::{
    Density, DensityBin, LoggedStep, Progress, TrainedDictionary, TrainingCurves, TrainingResult, TrainingView,
};

/// A page of the list of latents.
#[derive(Debug, Clone, Serialize)]
pub struct LatentList {
    /// Number of latents that match.
    pub total: usize,
    /// This page, from 1.
    pub page: usize,
    /// Number of pages, at least 1.
    pub pages: usize,
    /// The latents of this page.
    pub latents: Vec<LatentLine>,
}

/// A latent in the list.
#[derive(Debug, Clone, Serialize)]
pub struct LatentLine {
    /// The latent.
    pub latent: u32,
    /// Its best explanation.
    pub explanation: Option<String>,
    /// Number of firings.
    pub count: u64,
    /// Share of the tokens on which it fired.
    pub firing_rate: Estimate,
    /// Largest activation.
    pub max: f32,
    /// Tokens promoted most.
    pub top_tokens: Vec<TokenWeight>,
}

/// A token and its weight.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TokenWeight {
    /// Token id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Its logit.
    pub logit: f32,
}

/// All that is known of a latent.
#[derive(Debug, Clone, Serialize)]
pub struct LatentDetail {
    /// What the list says.
    #[serde(flatten)]
    pub line: LatentLine,
    /// Mean activation over the firings.
    pub mean: f64,
    /// Standard deviation over the firings.
    pub std: f64,
    /// Tokens suppressed most.
    pub bottom_tokens: Vec<TokenWeight>,
    /// Latents with the nearest decoder rows.
    pub neighbours: Vec<Neighbour>,
    /// What methods say about it.
    pub methods: Vec<MethodResult>,
    /// Strongest firings, strongest first.
    pub top_examples: Vec<ExampleText>,
    /// Levels at which it fired, the highest first.
    pub levels: Vec<LevelDetail>,
}

/// A latent with a near decoder row.
#[derive(Debug, Clone, Serialize)]
pub struct Neighbour {
    /// The latent.
    pub latent: u32,
    /// Cosine of the two rows.
    pub cosine: f32,
    /// Its best explanation.
    pub explanation: Option<String>,
}

/// What one method says about a latent.
#[derive(Debug, Clone, Serialize)]
pub struct MethodResult {
    /// The method.
    pub method: String,
    /// Its texts, the best first.
    pub explanations: Vec<ExplanationText>,
    /// Scales of its curves.
    pub scales: Vec<f64>,
    /// Its curves by name; null where there is no number.
    pub curves: BTreeMap<String, Vec<f64>>,
}

/// A text about a latent.
#[derive(Debug, Clone, Serialize)]
pub struct ExplanationText {
    /// The text.
    pub text: String,
    /// Scale at which it was made; null where the method has none.
    pub scale: f64,
    /// The method's own score; null where it has none.
    pub score: f64,
    /// Whether the method holds that it does not know.
    pub abstained: bool,
}

/// A level of activation.
#[derive(Debug, Clone, Serialize)]
pub struct LevelDetail {
    /// The level's number on the grid.
    pub level: usize,
    /// Its lower edge.
    pub low: f32,
    /// Its upper edge.
    pub high: f32,
    /// Firings in it.
    pub count: u64,
    /// Their share of all firings of the latent.
    pub share: f64,
    /// Random firings of this level.
    pub examples: Vec<ExampleText>,
}

/// A firing in its text.
#[derive(Debug, Clone, Serialize)]
pub struct ExampleText {
    /// File of the document, in the sorted list of files.
    pub source: u32,
    /// Record in that file.
    pub record: u64,
    /// Window of the document.
    pub window: u32,
    /// Offset in the window.
    pub position: u32,
    /// The activation.
    pub value: f32,
    /// The tokens around; empty if the tokens are not in the run.
    pub tokens: Vec<ExampleToken>,
}

/// A token of an example.
#[derive(Debug, Clone, Serialize)]
pub struct ExampleToken {
    /// Its text.
    pub text: String,
    /// The latent's activation on it.
    pub value: f32,
    /// Whether it is the token that the example is about.
    pub is_own: bool,
}

/// The logit lens over a text, as its page shows it.
#[derive(Debug, Clone, Serialize)]
pub struct LensView {
    /// Name of the model.
    pub model: String,
    /// The text's tokens.
    pub tokens: Vec<String>,
    /// One row a site, in the order of computation.
    pub rows: Vec<LensRow>,
    /// The token whose logit is attributed.
    pub attributed: String,
    /// What each component adds to that logit; empty where it was not asked for.
    pub shares: Vec<(String, f64)>,
}

/// What one site says at every position.
#[derive(Debug, Clone, Serialize)]
pub struct LensRow {
    /// The site.
    pub site: String,
    /// One cell a position.
    pub cells: Vec<LensCell>,
}

/// What one site says at one position.
#[derive(Debug, Clone, Serialize)]
pub struct LensCell {
    /// The likeliest token.
    pub token: String,
    /// Its probability.
    pub probability: f64,
    /// The next likeliest, for people.
    pub others: String,
    /// KL divergence from the final distribution, in nats.
    pub kl_to_final: f64,
    /// KL divergence from the final distribution of another position.
    pub kl_to_other: Option<f64>,
    /// Whether the likeliest token is the one that comes next in the text.
    pub is_next: bool,
}
