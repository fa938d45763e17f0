//! What pages show and `/api` sends: plain data with every token already as text.

mod jobs;
mod latent;
mod rating;
mod session;
mod training;

use exegete_base::stats::Estimate;
use serde::Serialize;

pub use self::jobs::{Job, JobList, JobState};
pub use self::latent::{ExampleText, ExampleToken, ExplanationText, WholeContext};
pub use self::latent::{
    Group, Groups, LatentDetail, LevelDetail, LogitHistogram, MethodResult, Neuron, Profile, Related, SourceToken,
    TextScore, TokenShare,
};
pub use self::rating::{Rated, RatingTask};
pub use self::session::{FiringLatent, FiringOrder, TriedLatents, TriedText, TriedToken};
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
    /// The column by which they are sorted.
    pub sort: String,
    /// Whether large values come first.
    pub is_descending: bool,
    /// The latents of this page.
    pub latents: Vec<LatentLine>,
}

/// A latent in the list.
#[derive(Debug, Clone, Serialize)]
pub struct LatentLine {
    /// The latent.
    pub latent: u32,
    /// What it is called: the label that a person picked, or its best explanation.
    pub explanation: Option<String>,
    /// Whether it has a bookmark.
    pub is_bookmarked: bool,
    /// Its value in the column by which the list is sorted; null where that is no number.
    pub value: Option<f64>,
    /// Number of firings.
    pub count: u64,
    /// Share of the tokens on which it fired.
    pub firing_rate: Estimate,
    /// Largest activation.
    pub max: f32,
    /// Tokens promoted most.
    pub top_tokens: Vec<TokenWeight>,
}

/// What a run holds, as its first page tells it.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Name of the run's directory.
    pub run: String,
    /// The model's name.
    pub model: Option<String>,
    /// The program that made the run.
    pub program: String,
    /// Dictionaries of the run with latents, in the order of the run.
    pub dictionaries: Vec<DictionaryName>,
    /// The one that is shown.
    pub dictionary: String,
    /// Number of latents.
    pub latents: usize,
    /// Latents that fired.
    pub alive: usize,
    /// Tokens that were read.
    pub tokens: u64,
    /// Mean number of latents active at a token.
    pub l0: f64,
    /// Latents that fired at each level of the grid.
    pub latents_by_level: Vec<u64>,
}

/// A dictionary of a run.
#[derive(Debug, Clone, Serialize)]
pub struct DictionaryName {
    /// Its name; empty for the only one.
    pub name: String,
    /// The site that it reads.
    pub site: Option<String>,
}

/// Decoder directions on a plane, with a column that colours them.
#[derive(Debug, Clone, Serialize)]
pub struct MapView {
    /// The column.
    pub column: String,
    /// What the column is, for people.
    pub title: String,
    /// Whether its values are better told apart by their logarithms.
    pub is_logarithmic: bool,
    /// Which share of the variance of the rows' directions each axis holds; empty where the run does not tell.
    pub variance: Vec<f64>,
    /// The latents.
    pub latents: Vec<u32>,
    /// First principal component of each.
    pub x: Vec<f32>,
    /// Second principal component of each.
    pub y: Vec<f32>,
    /// Value of the column of each; null where there is none.
    pub values: Vec<f32>,
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
