//! Scorers: how well a text predicts what a latent does. One file each, one line each in [`SCORERS`].

mod detection;
mod embedding;
mod faithfulness;
mod fuzzing;
mod generation;
mod intruder;
mod output;
mod output_surprisal;
pub mod simulation;
mod surprisal;

use exegete_base::stats::Estimate;
use exegete_methods::adapter::AdapterExplainer;
use rayon::prelude::*;
use serde_json::{Value, json};

use crate::completions::Completions;
use crate::examples::{Against, Excerpt};
use crate::judge::Judge;
use crate::statistics::{Judged, auroc, balanced_accuracy, over_examples};
use crate::subject::Subject;
use crate::{ExplainError, Result};

/// Against what scorers score that compare with no other excerpts.
pub const ITSELF: &str = "itself";
/// Fewest examples of either kind of which anything can be said.
const FEWEST: usize = 4;

/// A latent's texts and excerpts, and who judges.
pub struct Task<'a> {
    /// The latent.
    pub latent: u32,
    /// What is said of it.
    pub texts: &'a [String],
    /// Controls, by the name under which they are kept (`exegete_store::CONTROLS`): what is said of another latent, or of a direction
    /// drawn at random.
    pub controls: &'a [(&'static str, String)],
    /// Excerpts on which it fires.
    pub firing: &'a [Excerpt],
    /// Excerpts on which it is silent.
    pub silent: &'a [(Against, Vec<Excerpt>)],
    /// The share of any stretches of text in which it fires, as long as what the scorer `generation` writes.
    pub base_rate: f64,
    /// The model and the dictionary.
    pub subject: &'a Subject<'a>,
    /// Texts written while latents are amplified.
    pub completions: &'a Completions<'a>,
    /// What tells how likely texts are for directions, where there is one.
    pub adapter: Option<&'a AdapterExplainer<'a>>,
    /// The judge.
    pub judge: &'a dyn Judge,
    /// Seed of draws and intervals.
    pub seed: u64,
}

/// What a scorer says of a text.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Number of the text; none for what is said of the latent whatever the text.
    pub text: Option<usize>,
    /// Against what: an [`Against`] or [`ITSELF`], of a control with its name (`exegete_store::control_against`).
    pub against: String,
    /// The score; not a number where nothing could be judged.
    pub value: Estimate,
    /// Examples without a verdict.
    pub failed: u64,
    /// What one who knows nothing reaches.
    pub chance: f64,
    /// Further measures by name.
    pub measures: Value,
}

/// The number of a text, or the name of a control.
type Whose = (Option<usize>, Option<&'static str>);

/// What a score is told apart from, as it is stored.
fn against(control: Option<&str>, sort: &str) -> String {
    control.map_or_else(|| sort.to_owned(), |name| exegete_store::control_against(name, sort))
}

/// A line of the table.
pub struct Scorer {
    /// Its name on the command line and in scores.
    pub name: &'static str,
    /// What it asks.
    pub question: &'static str,
    /// Version of its prompt and its formula.
    pub version: u32,
    /// Whether it scores the latent and not a text.
    pub of_latent: bool,
    /// Does it.
    pub score: fn(&Task) -> Result<Vec<Outcome>>,
}

/// Every scorer.
pub const SCORERS: &[Scorer] = &[
    Scorer {
        name: "detection",
        question: "does the judge know the excerpts on which the latent fires?",
        version: 1,
        of_latent: false,
        score: detection::score,
    },
    Scorer {
        name: "fuzzing",
        question: "does the judge know the tokens on which the latent fires?",
        version: 1,
        of_latent: false,
        score: fuzzing::score,
    },
    Scorer {
        name: "surprisal",
        question: "does the text make the excerpts likelier than excerpts on which the latent is silent?",
        version: 1,
        of_latent: false,
        score: surprisal::score,
    },
    Scorer {
        name: "embedding",
        question: "is the text nearer to the excerpts than to excerpts on which the latent is silent?",
        version: 1,
        of_latent: false,
        score: embedding::score,
    },
    Scorer {
        name: "generation",
        question: "does the latent fire on what the judge writes from the text?",
        version: 1,
        of_latent: false,
        score: generation::score,
    },
    Scorer {
        name: "simulation",
        question: "can the judge say from the text how strongly the latent fires on each token?",
        version: 1,
        of_latent: false,
        score: simulation::score,
    },
    Scorer {
        name: "output",
        question: "does the judge know from the text what the model writes while the latent is amplified?",
        version: 1,
        of_latent: false,
        score: output::score,
    },
    Scorer {
        name: "output-surprisal",
        question: "is the text likeliest behind what the model writes while the latent is amplified?",
        version: 1,
        of_latent: false,
        score: output_surprisal::score,
    },
    Scorer {
        name: "faithfulness",
        question: "is the text likelier from the latent's own direction than from others', through an adapter?",
        version: 1,
        of_latent: false,
        score: faithfulness::score,
    },
    Scorer {
        name: "intruder",
        question: "does the judge find the excerpt that is none of the latent's, with no text at all?",
        version: 2,
        of_latent: true,
        score: intruder::score,
    },
];

/// Tokens of what the scorer `generation` lets the judge write: of stretches of this length the rate of any text is told.
///
/// # Errors
/// The prompt's file.
pub fn generated_tokens() -> Result<usize> {
    generation::tokens()
}

/// The scorer of this name.
///
/// # Errors
/// An unknown name; the text lists the known ones.
pub fn named(name: &str) -> Result<&'static Scorer> {
    SCORERS.iter().find(|scorer| scorer.name == name).ok_or_else(|| {
        let known: Vec<&str> = SCORERS.iter().map(|scorer| scorer.name).collect();
        ExplainError::request(format!("{name:?} is no scorer; there are {}", known.join(", ")))
    })
}

impl Task<'_> {
    /// The texts, and behind them the controls.
    fn with_controls(&self) -> Vec<String> {
        self.texts.iter().chain(self.controls.iter().map(|(_, text)| text)).cloned().collect()
    }

    /// Whose the rows of [`Task::with_controls`] are.
    fn rows(&self) -> Vec<Whose> {
        let texts = (0..self.texts.len()).map(|i| (Some(i), None));
        texts.chain(self.controls.iter().map(|(name, _)| (None, Some(*name)))).collect()
    }

    /// The excerpts as texts: those on which the latent fires, then each sort of those on which it is silent.
    fn excerpts(&self) -> Result<Vec<String>> {
        let tokenizer = self.subject.tokenizer()?;
        let silent = self.silent.iter().flat_map(|(_, excerpts)| excerpts);
        self.firing.iter().chain(silent).map(|excerpt| excerpt.text(tokenizer)).collect()
    }

    /// Scores from a value for each text (the controls behind them) and each excerpt, in the order of [`Task::excerpts`].
    fn outcomes(&self, values: &[Vec<Option<f64>>], told: impl Fn(usize, &[Judged]) -> Value + Sync) -> Vec<Outcome> {
        let sorts: Vec<(&str, usize)> = self.silent.iter().map(|(sort, all)| (sort.name(), all.len())).collect();
        outcomes(values, &self.rows(), (self.firing.len(), &sorts), self.seed, told)
    }
}

/// Scores from a value for each text and each example: `n_firing` on which the latent fires, then the sorts of the others. Controls are
/// scored against every sort, as texts are.
fn outcomes(
    values: &[Vec<Option<f64>>],
    rows: &[Whose],
    (n_firing, sorts): (usize, &[(&str, usize)]),
    seed: u64,
    told: impl Fn(usize, &[Judged]) -> Value + Sync,
) -> Vec<Outcome> {
    let mut wanted = Vec::new();
    for row in 0..values.len() {
        let mut from = n_firing;
        for (name, n) in sorts {
            wanted.push((row, *name, from..from + n));
            from += n;
        }
    }
    let outcome = |(row, sort, silent): (usize, &str, std::ops::Range<usize>)| {
        let of = |i: usize, fires: bool| values[row][i].filter(|v| v.is_finite()).map(|value| Judged { value, fires });
        let all = (0..n_firing).map(|i| of(i, true)).chain(silent.clone().map(|i| of(i, false)));
        let judged: Vec<Judged> = all.clone().flatten().collect();
        let failed = all.filter(Option::is_none).count() as u64;
        let fewest = [true, false].map(|fires| judged.iter().filter(|j| j.fires == fires).count());
        let (text, control) = rows[row];
        let against = against(control, sort);
        if let Some(few) = fewest.iter().find(|n| **n < FEWEST) {
            let value = Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN, n: judged.len() as u64 };
            let measures = json!({"why": format!("{few} examples of one kind are too few to tell anything ({FEWEST} are needed)")});
            return Outcome { text, against, value, failed, chance: 0.5, measures };
        }
        let value = over_examples(&judged, seed, auroc);
        Outcome { text, against, value, failed, chance: 0.5, measures: told(row, &judged) }
    };
    wanted.into_par_iter().map(outcome).collect()
}

/// What is told beside the area where values are probabilities.
fn of_probabilities(judged: &[Judged], seed: u64) -> Value {
    let accuracy = over_examples(judged, seed, |judged| balanced_accuracy(judged, 0.5));
    let said_yes = judged.iter().filter(|j| j.value > 0.5).count() as f64 / judged.len() as f64;
    json!({
        "measure": "auroc",
        "balanced_accuracy": [accuracy.value, accuracy.low, accuracy.high],
        "said_yes": said_yes,
    })
}
