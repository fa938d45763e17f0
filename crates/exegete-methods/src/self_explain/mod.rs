//! Self-explanation: the model is asked what a word means, and a direction stands in the word's place.
//!
//! The template's placeholder token is found, and at each of its positions the residual entering an early layer is
//! replaced by `scale * direction` (or the direction is added to it), one batch row a scale. Read at the last prompt token, where
//! the answer starts, are the self-similarity `cos(resid, d)` after every layer, of which the one near the end of the model counts,
//! and the entropy `H` of the answer's first token, both less their value at scale 0, and the cross-entropy of that token's
//! distribution to the one under neutral insertions: the mean token embedding, and random directions, at unit length. From these
//! [`choice`] ranks the scales; answers are generated greedily at all of them, in one batch, and all different ones are kept. Beside
//! them stands what is said where the direction is added once at the residual's own length, for which nothing is searched.
//!
//! Sources: Kharlapenko, neverix, Nanda and Conmy 2024 ("Self-explaining SAE features"), whose code this follows
//! (placeholder, layer 2, replacement, both composites, the threshold of abstention, guidance); Chen et al. 2024 (SelfIE,
//! arXiv 2403.10949); Ghandeharioun et al. 2024 (Patchscopes, arXiv 2401.06102); Karvonen et al. 2025 (addition at the
//! residual's length).

pub(crate) mod asker;
pub mod choice;
pub mod peaks;
pub mod plateaus;
mod prompt;
pub mod study;

use std::cell::OnceCell;

use exegete_base::settings::{GuidanceFrom, Insertion, ScaleRule, SelfExplainSettings};
use exegete_model::{Model, Sampling};
use exegete_tensor::cpu::loss::{log_sum_exp, softmax_scaled};
use exegete_tensor::cpu::simd::dot;
use serde::{Deserialize, Serialize};

pub use self::asker::Inserted;
use self::asker::{Asker, Reading, Writing};
use self::choice::{Choice, Said};
use self::plateaus::Background;
pub use self::prompt::TEMPLATES;
use crate::{MethodError, Result, direction};

/// Name of the method.
pub const NAME: &str = "self";
/// What is said where the direction is added once at the residual's own length.
pub const AT_NORM: &str = "self-at-norm";
/// Random directions whose mean is a neutral insertion.
const N_RANDOM: u64 = 4;
/// Their seed: the same ones for every latent and every run.
const RANDOM_SEED: u64 = 0x5e1f;

/// Random directions that tell which words are said of anything, and scales at which they are asked.
const BACKGROUND: u64 = 32;
const BACKGROUND_SCALES: usize = 8;

/// The curves over scales.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// Scales, ascending from 0.
    pub scales: Vec<f64>,
    /// Cosine of the last position's residual with the direction, less that at scale 0, near the end of the model.
    pub self_similarity: Vec<f64>,
    /// Entropy of the answer's first token in nats, less that at scale 0.
    pub entropy: Vec<f64>,
    /// Cross-entropy of the answer's first token to its distribution under the mean token embedding, in nats.
    pub cross_entropy: Vec<f64>,
    /// The same to its distributions under random directions, the mean over them.
    #[serde(default)]
    pub cross_entropy_random: Vec<f64>,
    /// Self-similarity after each layer from that of the insertion on.
    #[serde(default)]
    pub by_layer: Vec<LayerCurve>,
}

/// Self-similarity after one layer, over scales.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LayerCurve {
    /// The layer.
    pub layer: usize,
    /// The cosine less that at scale 0.
    pub self_similarity: Vec<f64>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The scale.
    pub scale: f64,
    /// What the rule says of it; not a number where the rule passes over the scale.
    pub merit: f64,
    /// What the model said.
    pub text: String,
}

/// What a direction had to say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelfExplanation {
    /// The curves.
    pub curves: Curves,
    /// The different answers at all scales, best first by the rule; empty after abstention.
    pub answers: Vec<Answer>,
    /// For each scale the number of its answer, where anything is said.
    pub said: Vec<Option<usize>>,
    /// What is said where the direction is added once at the residual's own length. It may be empty, and knows no abstention.
    pub at_norm: String,
    /// Whether no scale was worth reading.
    pub abstained: bool,
    /// The highest self-similarity over the scales.
    pub best_similarity: f64,
}

/// Explains directions with one model and one template; the prompt's prefix is run once.
pub struct SelfExplainer<'m> {
    asker: Asker<'m>,
    settings: SelfExplainSettings,
    mean_embedding: Vec<f32>,
    /// Log-probabilities of the first token under the mean embedding, and the mean of those under random directions.
    neutral_logp: [Vec<f32>; 2],
    background: OnceCell<Background>,
}

impl<'m> SelfExplainer<'m> {
    /// Prepares the template and runs its prefix and the neutral insertions.
    ///
    /// # Errors
    /// A layer or a number of scales out of range, a template without its placeholder.
    pub fn new(model: &'m Model, settings: &SelfExplainSettings) -> Result<Self> {
        check(settings, model)?;
        let asker = Asker::new(model, &settings.template, settings.insert_layer)?;
        let mean_embedding = mean_embedding(model);
        let (neutral_logp, background) = (Default::default(), OnceCell::new());
        let mut this = Self { asker, settings: settings.clone(), mean_embedding, neutral_logp, background };
        let replaced = |vector: Vec<f32>| Inserted { vector, how: Insertion::Replace, factor: 1.0 };
        let mut rows = vec![replaced(this.mean_embedding.clone())];
        for number in 0..N_RANDOM {
            rows.push(replaced(unit(&this.random_direction(RANDOM_SEED, number))?));
        }
        let v = model.spec.vocab_size;
        let mut logits = this.asker.read(&rows)?.logits_BV;
        for row in logits.chunks_exact_mut(v) {
            let lse = log_sum_exp(row);
            row.iter_mut().for_each(|x| *x -= lse);
        }
        let (mean, random) = logits.split_at(v);
        let average = |i: usize| random.iter().skip(i).step_by(v).sum::<f32>() / N_RANDOM as f32;
        this.neutral_logp = [mean.to_vec(), (0..v).map(average).collect()];
        Ok(this)
    }

    /// Explains a direction of any length; its unit vector is inserted, unless the settings want it as it is.
    ///
    /// # Errors
    /// A direction of another width than the residual stream, or one without a direction.
    pub fn explain(&self, direction: &[f32]) -> Result<SelfExplanation> {
        let base = self.base(direction)?;
        let curves = self.curves(&base)?;
        let best_similarity = curves.self_similarity.iter().copied().fold(f64::MIN, f64::max);
        // A rule that looks at texts needs them before it can abstain; the others save them.
        let looks = self.settings.rule == ScaleRule::Plateaus;
        let early = if looks { None } else { Some(choice::rank(&curves, None, &self.settings)) };
        let scales = if early == Some(Choice::Abstain) { &[] } else { curves.scales.as_slice() };
        let mut rows = self.inserted(&base, scales);
        rows.push(Inserted { vector: base, how: Insertion::AddAtNorm, factor: 1.0 });
        let mut all = self.asker.write(&rows, &self.writing())?;
        let at_norm = all.pop().unwrap_or_default();
        let choice = match early {
            Some(choice) => choice,
            None => {
                let said = Said { texts: &all, background: self.background()? };
                choice::rank(&curves, Some(said), &self.settings)
            }
        };
        let ranked = match choice {
            Choice::Abstain => Vec::new(),
            Choice::Scales(ranked) => ranked,
        };
        // Scales that the rule passed over come last: another rule, or a person, may choose one.
        let mut order: Vec<(usize, f64)> = ranked;
        if !order.is_empty() {
            let passed: Vec<usize> = (1..all.len()).filter(|i| order.iter().all(|(ranked, _)| ranked != i)).collect();
            order.extend(passed.into_iter().map(|i| (i, f64::NAN)));
        }
        let texts: Vec<String> = order.iter().map(|(i, _)| all[*i].clone()).collect();
        let answer =
            |at: usize| Answer { scale: curves.scales[order[at].0], merit: order[at].1, text: texts[at].clone() };
        let answers: Vec<Answer> = choice::different(&texts, texts.len()).into_iter().map(answer).collect();
        let mut said = vec![None; curves.scales.len()];
        for ((i, _), text) in order.iter().zip(&texts) {
            said[*i] = answers.iter().position(|answer| choice::is_same(&answer.text, text));
        }
        // No text at any scale is as good as an abstention.
        Ok(SelfExplanation { curves, abstained: answers.is_empty(), answers, said, at_norm, best_similarity })
    }

    /// The control: a direction drawn at random (by hash, from the seed and a number).
    pub fn random_direction(&self, seed: u64, number: u64) -> Vec<f32> {
        direction::random(self.asker.model.spec.d_model, seed, number)
    }

    /// What is said of random directions, at some of the scales. It takes as long as a few explanations, once.
    ///
    /// # Errors
    /// The model's.
    pub fn background(&self) -> Result<&Background> {
        if let Some(background) = self.background.get() {
            return Ok(background);
        }
        let n = self.settings.scales.min(BACKGROUND_SCALES);
        let scales: Vec<f64> = (1..=n).map(|i| self.settings.max_scale * i as f64 / n as f64).collect();
        let mut said = Vec::new();
        for number in 0..BACKGROUND {
            said.push(self.texts(&unit(&self.random_direction(RANDOM_SEED, N_RANDOM + number))?, &scales)?);
        }
        Ok(self.background.get_or_init(|| Background::of(&said)))
    }

    /// What scales multiply: the direction at unit length, or as it is where the settings say so.
    ///
    /// # Errors
    /// A direction of another width than the residual stream, or one without a direction.
    pub fn base(&self, direction: &[f32]) -> Result<Vec<f32>> {
        let d = self.asker.model.spec.d_model;
        if direction.len() != d {
            let detail = format!("a direction of {} values for a residual stream of width {d}", direction.len());
            return Err(MethodError::Request(format!("self-explanation needs a residual direction: {detail}")));
        }
        let unit = unit(direction)?;
        Ok(if self.settings.as_stored { direction.to_vec() } else { unit })
    }

    /// All curves, from one batch with a row a scale.
    ///
    /// # Errors
    /// The model's.
    pub fn curves(&self, base: &[f32]) -> Result<Curves> {
        let n = self.settings.scales;
        let scales: Vec<f64> = (0..n).map(|i| self.settings.max_scale * i as f64 / (n - 1) as f64).collect();
        let Reading { logits_BV, resid_LBD } = self.asker.read(&self.inserted(base, &scales))?;
        let (v, d) = (self.asker.model.spec.vocab_size, self.asker.model.spec.d_model);
        let [mut entropy, mut cross_entropy, mut cross_entropy_random] = [const { Vec::new() }; 3];
        let mut p = vec![0f32; v];
        for row in logits_BV.chunks_exact(v) {
            let lse = log_sum_exp(row);
            softmax_scaled(row, lse, 1.0, &mut p);
            let expected =
                |f: &dyn Fn(usize) -> f32| -> f64 { (0..v).map(|i| f64::from(p[i]) * f64::from(f(i))).sum() };
            entropy.push(expected(&|i| lse - row[i]));
            cross_entropy.push(expected(&|i| -self.neutral_logp[0][i]));
            cross_entropy_random.push(expected(&|i| -self.neutral_logp[1][i]));
        }
        let unit = unit(base)?;
        let cosine = |row: &[f32]| f64::from(dot(row, &unit) / dot(row, row).sqrt().max(f32::MIN_POSITIVE));
        let from_first = |curve: Vec<f64>| curve.iter().map(|x| x - curve[0]).collect::<Vec<f64>>();
        let of_layer = |(layer, resid): (usize, Vec<f32>)| LayerCurve {
            layer,
            self_similarity: from_first(resid.chunks_exact(d).map(cosine).collect()),
        };
        let by_layer: Vec<LayerCurve> = (self.asker.layer..).zip(resid_LBD).map(of_layer).collect();
        let probe = probe_layer(self.asker.model) - self.asker.layer;
        let self_similarity = by_layer[probe].self_similarity.clone();
        Ok(Curves {
            scales,
            self_similarity,
            entropy: from_first(entropy),
            cross_entropy,
            cross_entropy_random,
            by_layer,
        })
    }

    /// Greedy answers at each of some scales, in one batch; `base` is what [`SelfExplainer::base`] gives.
    ///
    /// # Errors
    /// The model's.
    pub fn texts(&self, base: &[f32], scales: &[f64]) -> Result<Vec<String>> {
        self.asker.write(&self.inserted(base, scales), &self.writing())
    }

    fn inserted(&self, base: &[f32], scales: &[f64]) -> Vec<Inserted> {
        let one = |scale: &f64| self.one(base.iter().map(|x| x * *scale as f32).collect(), *scale as f32);
        scales.iter().map(one).collect()
    }

    fn one(&self, vector: Vec<f32>, factor: f32) -> Inserted {
        Inserted { vector, how: self.settings.insertion, factor }
    }

    fn writing(&self) -> Writing {
        let baseline = match self.settings.guidance_from {
            GuidanceFrom::Nothing => self.one(vec![0.0; self.asker.model.spec.d_model], 0.0),
            GuidanceFrom::MeanEmbedding => self.one(self.mean_embedding.clone(), 1.0),
        };
        let guidance = (self.settings.guidance != 1.0).then_some((self.settings.guidance as f32, baseline));
        Writing { tokens: self.settings.explanation_tokens, sampling: Sampling::greedy(), guidance }
    }
}

fn unit(direction: &[f32]) -> Result<Vec<f32>> {
    let norm = dot(direction, direction).sqrt();
    if !(norm > 0.0 && norm.is_finite()) {
        return Err(MethodError::Request("the direction is zero or not finite, so it points nowhere".into()));
    }
    Ok(direction.iter().map(|x| x / norm).collect())
}

/// The layer after which self-similarity is read: what enters the last layer but one, as the method's authors do.
fn probe_layer(model: &Model) -> usize {
    model.spec.n_layers.saturating_sub(3)
}

/// Checks settings and template against a model, without running it.
///
/// # Errors
/// A sentence naming the flag at fault, or that the template does not fit the vocabulary.
pub fn check(s: &SelfExplainSettings, model: &Model) -> Result<()> {
    let last = probe_layer(model);
    if s.insert_layer > last {
        let detail = format!(
            "--insert-layer {} is not at or before layer {last}, where self-similarity is read",
            s.insert_layer
        );
        return Err(MethodError::Request(detail));
    }
    let rules = [
        (s.scales >= 2 && s.scales <= 4096, "--scales must be between 2 and 4096"),
        (s.max_scale > 0.0 && s.max_scale.is_finite(), "--max-scale must be a positive number"),
        ((0.0..=1.0).contains(&s.alpha), "--alpha must be between 0 and 1"),
        (s.explanation_tokens >= 1, "--explanation-tokens must be at least 1"),
        (s.guidance.is_finite(), "--guidance must be a number"),
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, text)) => Err(MethodError::Request((*text).into())),
        None => prompt::Prompt::new(model, &s.template).map(|_| ()),
    }
}

/// The mean token embedding at unit length: an insertion that says nothing in particular.
fn mean_embedding(model: &Model) -> Vec<f32> {
    let table = &model.weights.embed;
    let (mut mean, mut row) = (vec![0f32; model.spec.d_model], vec![0f32; model.spec.d_model]);
    let share = 1.0 / model.spec.vocab_size as f32;
    for id in 0..model.spec.vocab_size {
        table.row(id, &mut row);
        mean.iter_mut().zip(&row).for_each(|(m, x)| *m += x * share);
    }
    let norm = dot(&mean, &mean).sqrt().max(f32::MIN_POSITIVE);
    mean.iter().map(|x| x / norm).collect()
}
