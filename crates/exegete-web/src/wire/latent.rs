//! What the page of a latent shows and `/api/latent` sends.

use std::collections::BTreeMap;

use exegete_store::{Label, Note};
use serde::Serialize;

use super::{LatentLine, TokenWeight};

/// All that is known of a latent.
#[derive(Debug, Clone, Serialize)]
pub struct LatentDetail {
    /// What the list says.
    #[serde(flatten)]
    pub line: LatentLine,
    /// The dictionary's name; empty for a run's only one.
    pub dictionary: String,
    /// Mean activation over the firings.
    pub mean: f64,
    /// Standard deviation over the firings.
    pub std: f64,
    /// Tokens suppressed most.
    pub bottom_tokens: Vec<TokenWeight>,
    /// Latents with the nearest decoder rows; the value is the cosine.
    pub neighbours: Vec<Related>,
    /// What else was measured.
    pub profile: Profile,
    /// What is wrong with parts of the run whose content is therefore missing here.
    pub problems: Vec<String>,
    /// What methods say about it.
    pub methods: Vec<MethodResult>,
    /// How well texts predict what it does: of a text each scorer, the best text first.
    pub scores: Vec<TextScore>,
    /// The text that a person picked as its label.
    pub label: Option<Label>,
    /// What people noted.
    pub notes: Vec<Note>,
    /// Strongest firings, strongest first.
    pub top_examples: Vec<ExampleText>,
    /// Levels at which it fired, the highest first; with examples where these are what is asked for.
    pub levels: Vec<LevelDetail>,
    /// Random firings by intervals or quantiles, where these are what is asked for.
    pub groups: Option<Groups>,
}

/// A latent that is near another by some measure.
#[derive(Debug, Clone, Serialize)]
pub struct Related {
    /// The latent.
    pub latent: u32,
    /// The measure.
    pub value: f32,
    /// What it is called.
    pub explanation: Option<String>,
}

/// What was measured of a latent besides its firings; a list is empty where it was not.
#[derive(Debug, Clone, Serialize)]
pub struct Profile {
    /// Latents that fire on the same tokens; the value is the Jaccard index, an estimate.
    pub cofiring: Vec<Related>,
    /// Latents whose activations are most correlated; the value is Pearson's coefficient.
    pub correlated_latents: Vec<Related>,
    /// Coordinates of the site that are most correlated with the activation; the value is Pearson's coefficient.
    pub correlated_neurons: Vec<Neuron>,
    /// The largest coordinates of the decoder row.
    pub aligned_neurons: Vec<Neuron>,
    /// L1 norm of the decoder row; 0 where it was not measured.
    pub decoder_l1: f32,
    /// L2 norm of the decoder row; 0 where it was not measured.
    pub decoder_norm: f32,
    /// Tokens on which it fires.
    pub fired_tokens: Vec<TokenShare>,
    /// Firings that were sampled for this.
    pub n_sampled: u32,
    /// Different tokens among those that make up the strongest four fifths of these.
    pub distinct_tokens: u32,
    /// Firings by part of the window, from its beginning to its end.
    pub positions: Vec<u64>,
    /// Mutual information of firing and position, in nats.
    pub position_information: f32,
    /// What part of the entropy of firing the position tells.
    pub position_share: f64,
    /// Whether it counts as a latent of positions.
    pub is_positional: bool,
    /// Logits of the whole vocabulary.
    pub logits: Option<LogitHistogram>,
}

/// A coordinate of a site.
#[derive(Debug, Clone, Serialize)]
pub struct Neuron {
    /// Its number.
    pub neuron: u32,
    /// The measure.
    pub value: f32,
}

/// A token on which a latent fires.
#[derive(Debug, Clone, Serialize)]
pub struct TokenShare {
    /// Token id.
    pub id: u32,
    /// Its text.
    pub text: String,
    /// Its share of the sampled firings.
    pub share: f32,
}

/// The vocabulary's logits in bins of equal width.
#[derive(Debug, Clone, Serialize)]
pub struct LogitHistogram {
    /// The smallest logit.
    pub low: f32,
    /// The largest.
    pub high: f32,
    /// Tokens in each bin.
    pub counts: Vec<u32>,
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
    /// Its place among the method's texts, from 0.
    pub rank: u32,
    /// The text.
    pub text: String,
    /// Scale at which it was made; null where the method has none.
    pub scale: f64,
    /// The method's own score; null where it has none.
    pub score: f64,
    /// Whether the method holds that it does not know.
    pub abstained: bool,
}

/// A text's score by one scorer.
#[derive(Debug, Clone, Serialize)]
pub struct TextScore {
    /// The text; empty where the latent is scored, and not a text.
    pub text: String,
    /// The scorer.
    pub scorer: String,
    /// What the latent's excerpts are told apart from; `shuffled (random)` for another latent's text, a control, told apart from the same.
    pub against: String,
    /// Who judged.
    pub judge: String,
    /// The score; null where nothing could be judged.
    pub value: f64,
    /// Lower end of its interval.
    pub low: f64,
    /// Upper end.
    pub high: f64,
    /// Examples.
    pub n: u64,
    /// Examples without a verdict.
    pub failed: u64,
    /// What one who knows nothing reaches; null where that is not known.
    pub chance: f64,
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

/// Random firings in groups that are no levels.
#[derive(Debug, Clone, Serialize)]
pub struct Groups {
    /// `intervals` of equal width up to the largest activation, or `quantiles` of equal numbers of firings.
    pub kind: String,
    /// Sampled firings on which this stands.
    pub n_sampled: usize,
    /// The groups, the highest first.
    pub groups: Vec<Group>,
}

/// A group of random firings.
#[derive(Debug, Clone, Serialize)]
pub struct Group {
    /// Lower edge.
    pub low: f32,
    /// Upper edge.
    pub high: f32,
    /// Share of all firings of the latent that lie in it, estimated from the sample.
    pub share: f64,
    /// Random firings.
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
    /// The tokens of the window that add most to the activation through the heads, those that add most first; empty where that was
    /// not told: it is of the strongest firings of dictionaries that read a layer's heads.
    pub sources: Vec<SourceToken>,
}

/// A token of the window as a source of an activation.
#[derive(Debug, Clone, Serialize)]
pub struct SourceToken {
    /// Offset in the window.
    pub position: u32,
    /// Its text.
    pub text: String,
    /// What it adds, in units of the activation.
    pub value: f32,
}

/// A token of an example.
#[derive(Debug, Clone, Serialize)]
pub struct ExampleToken {
    /// Its text.
    pub text: String,
    /// The latent's activation on it; null where it is not known.
    pub value: Option<f32>,
    /// Whether it is the token that the example is about.
    pub is_own: bool,
}

/// The whole window of an example.
#[derive(Debug, Clone, Serialize)]
pub struct WholeContext {
    /// The latent.
    pub latent: u32,
    /// Its largest activation anywhere.
    pub max: f32,
    /// The firing, with all tokens of its window.
    pub example: ExampleText,
}
