//! Self-explanation: the model is asked what a word means, and a direction stands in the word's place.
//!
//! The template's placeholder token is found, and at each of its positions the residual entering an early layer is
//! replaced by `scale * direction`, one batch row a scale. Read at the last prompt token, where the answer starts,
//! are the self-similarity `cos(resid, d)` near the end of the model and the entropy `H` of the answer's first
//! token, both less their value at scale 0, and the cross-entropy of that token's distribution to the one under a
//! neutral insertion (the mean token embedding, at unit length). From these [`choice`] ranks the scales; answers are
//! generated greedily at all of them, in one batch, and the three best different ones are kept.
//!
//! Sources: Kharlapenko, neverix, Nanda and Conmy 2024 ("Self-explaining SAE features"), whose code this follows
//! (placeholder, layer 2, replacement, both composites, the threshold of abstention); Chen et al. 2024 (SelfIE,
//! arXiv 2403.10949); Ghandeharioun et al. 2024 (Patchscopes, arXiv 2401.06102).

pub mod choice;
pub mod peaks;
mod prompt;

use std::sync::Arc;

use exegete_base::sampling::pair_hash;
use exegete_base::settings::SelfExplainSettings;
use exegete_base::{Site, SiteKind};
use exegete_model::edits::{Replace, Vectors};
use exegete_model::{Batch, Edit, GenerateOptions, Hooks, KvCache, Logits, Model, Positions, Prefix, Steps};
use exegete_tensor::cpu::loss::{log_sum_exp, softmax_scaled};
use exegete_tensor::cpu::simd::dot;
use exegete_tensor::{Tape, f32s};
use serde::{Deserialize, Serialize};

use self::choice::Choice;
use self::prompt::Prompt;
use crate::{MethodError, Result};

/// Name of the method.
pub const NAME: &str = "self";
/// Texts that are kept.
const N_TEXTS: usize = 3;

/// The curves over scales.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curves {
    /// Scales, ascending from 0.
    pub scales: Vec<f64>,
    /// Cosine of the last position's residual with the direction, less that at scale 0.
    pub self_similarity: Vec<f64>,
    /// Entropy of the answer's first token in nats, less that at scale 0.
    pub entropy: Vec<f64>,
    /// Cross-entropy of the answer's first token to its distribution under the neutral insertion, in nats.
    pub cross_entropy: Vec<f64>,
}

/// One answer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// The scale.
    pub scale: f64,
    /// The composite there.
    pub merit: f64,
    /// What the model said.
    pub text: String,
}

/// What a direction had to say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SelfExplanation {
    /// The curves.
    pub curves: Curves,
    /// The best answers, best first; empty after abstention.
    pub answers: Vec<Answer>,
    /// Whether no scale was worth reading.
    pub abstained: bool,
    /// The highest self-similarity over the scales.
    pub best_similarity: f64,
}

/// Explains directions with one model and one template; the prompt's prefix is run once.
pub struct SelfExplainer<'m> {
    model: &'m Model,
    settings: SelfExplainSettings,
    prompt: Prompt,
    prefix: Prefix,
    probe: Site,
    /// Log-probabilities of the first token under the neutral insertion.
    neutral_logp: Vec<f32>,
}

impl<'m> SelfExplainer<'m> {
    /// Prepares the template and runs its prefix and the neutral insertion.
    ///
    /// # Errors
    /// A layer or a number of scales out of range, a template without its placeholder.
    pub fn new(model: &'m Model, settings: &SelfExplainSettings) -> Result<Self> {
        check(settings, model)?;
        let prompt = Prompt::new(model, settings.template)?;
        let first = prompt.placeholders[0];
        let mut prefix = KvCache::new(&model.spec, 1, first.max(1))?;
        if first > 0 {
            let batch = Batch::one(&prompt.ids[..first]);
            model.run(&Tape::new(), &batch, Some(&mut prefix), &mut Hooks::none(), Logits::None)?;
        }
        let probe = Site::at(SiteKind::ResidPost, probe_layer(model));
        let prefix = prefix.freeze();
        let mut this = Self { model, settings: settings.clone(), prompt, prefix, probe, neutral_logp: Vec::new() };
        let mean = mean_embedding(model);
        let (logits, _) = this.run_prompt(vec![mean])?;
        let lse = log_sum_exp(&logits);
        this.neutral_logp = logits.iter().map(|x| x - lse).collect();
        Ok(this)
    }

    /// Explains a direction of any length; its unit vector is inserted.
    ///
    /// # Errors
    /// A direction of another width than the residual stream, or one without a direction.
    pub fn explain(&self, direction: &[f32]) -> Result<SelfExplanation> {
        let unit = self.unit(direction)?;
        let curves = self.curves(&unit)?;
        let best_similarity = curves.self_similarity.iter().copied().fold(f64::MIN, f64::max);
        let answers = match choice::rank(&curves, &self.settings) {
            Choice::Abstain => Vec::new(),
            Choice::Scales(ranked) => self.answers(&unit, &curves, &ranked)?,
        };
        // No text at any scale is as good as an abstention.
        Ok(SelfExplanation { curves, abstained: answers.is_empty(), answers, best_similarity })
    }

    /// The control: a direction drawn at random (by hash, from the seed and a number).
    pub fn random_direction(&self, seed: u64, number: u64) -> Vec<f32> {
        let uniform = |i: usize| pair_hash(seed, number, i as u64) as f64 / u64::MAX as f64;
        // The sum of twelve uniform numbers is near enough to normal for a direction.
        let normal = |i: usize| (0..12).map(|j| uniform(i * 12 + j)).sum::<f64>() - 6.0;
        (0..self.model.spec.d_model).map(|i| normal(i) as f32).collect()
    }

    /// A direction at unit length.
    ///
    /// # Errors
    /// A direction of another width than the residual stream, or one without a direction.
    pub fn unit(&self, direction: &[f32]) -> Result<Vec<f32>> {
        let (d, norm) = (self.model.spec.d_model, dot(direction, direction).sqrt());
        if direction.len() != d {
            let detail = format!("a direction of {} values for a residual stream of width {d}", direction.len());
            return Err(MethodError::Request(format!("self-explanation needs a residual direction: {detail}")));
        }
        if !(norm > 0.0 && norm.is_finite()) {
            return Err(MethodError::Request("the direction is zero or not finite, so it points nowhere".into()));
        }
        Ok(direction.iter().map(|x| x / norm).collect())
    }

    /// All curves, from one batch with a row a scale.
    ///
    /// # Errors
    /// The model's.
    pub fn curves(&self, unit: &[f32]) -> Result<Curves> {
        let n = self.settings.scales;
        let scales: Vec<f64> = (0..n).map(|i| self.settings.max_scale * i as f64 / (n - 1) as f64).collect();
        let scaled = |s: &f64| unit.iter().map(|x| x * *s as f32).collect();
        let (logits, resid) = self.run_prompt(scales.iter().map(scaled).collect())?;
        let (v, d) = (self.model.spec.vocab_size, self.model.spec.d_model);
        let (mut entropy, mut cross_entropy, mut p) = (Vec::new(), Vec::new(), vec![0f32; v]);
        for row in logits.chunks_exact(v) {
            let lse = log_sum_exp(row);
            softmax_scaled(row, lse, 1.0, &mut p);
            let expected =
                |f: &dyn Fn(usize) -> f32| -> f64 { (0..v).map(|i| f64::from(p[i]) * f64::from(f(i))).sum() };
            entropy.push(expected(&|i| lse - row[i]));
            cross_entropy.push(expected(&|i| -self.neutral_logp[i]));
        }
        let cosine = |row: &[f32]| f64::from(dot(row, unit) / dot(row, row).sqrt().max(f32::MIN_POSITIVE));
        let self_similarity: Vec<f64> = resid.chunks_exact(d).map(cosine).collect();
        let from_first = |curve: Vec<f64>| curve.iter().map(|x| x - curve[0]).collect();
        Ok(Curves { scales, self_similarity: from_first(self_similarity), entropy: from_first(entropy), cross_entropy })
    }

    /// Runs the prompt behind its prefix with one inserted vector a row: the last position's logits `[B, V]` and
    /// probe residuals `[B, D]`.
    fn run_prompt(&self, vectors: Vec<Vec<f32>>) -> Result<(Vec<f32>, Vec<f32>)> {
        let (n_rows, d) = (vectors.len(), self.model.spec.d_model);
        let batch = self.suffix(n_rows);
        let mut cache = self.prefix.fork(&vec![0; n_rows], batch.ids.len() / n_rows)?;
        let mut hooks = self.insertion(vectors).tap(self.probe);
        let len = batch.ids.len() / n_rows;
        let logits = self.model.run(&Tape::new(), &batch, Some(&mut cache), &mut hooks, Logits::Last)?;
        let (Some(logits), Some(resid)) = (logits, hooks.value(self.probe)) else {
            return Err(MethodError::Request(format!("{} was not reached", self.probe)));
        };
        let resid = f32s(resid.tensor())?;
        let last = resid.chunks_exact(len * d).flat_map(|row| row[(len - 1) * d..].iter().copied()).collect();
        Ok((f32s(logits.tensor())?.to_vec(), last))
    }

    fn suffix(&self, n_rows: usize) -> Batch {
        let ids = &self.prompt.ids[self.prompt.placeholders[0]..];
        Batch::uniform(ids.repeat(n_rows), n_rows)
    }

    fn insertion(&self, vectors: Vec<Vec<f32>>) -> Hooks {
        Hooks::none().edit(Edit {
            site: Site::at(SiteKind::ResidPre, self.settings.insert_layer),
            rows: None,
            positions: Positions::At(self.prompt.placeholders.clone()),
            steps: Steps::All,
            f: Arc::new(Replace(Vectors::PerRow(vectors))),
        })
    }

    /// Greedy answers at the scales given, best first, until [`N_TEXTS`] different ones are found.
    fn answers(&self, unit: &[f32], curves: &Curves, picked: &[(usize, f64)]) -> Result<Vec<Answer>> {
        let scales: Vec<f64> = picked.iter().map(|(i, _)| curves.scales[*i]).collect();
        let texts = self.texts(unit, &scales)?;
        let found = choice::different(&texts, N_TEXTS);
        let answer = |at: usize| Answer { scale: scales[at], merit: picked[at].1, text: texts[at].clone() };
        Ok(found.into_iter().map(answer).collect())
    }

    /// Greedy answers for a unit direction at each of some scales, in one batch.
    ///
    /// # Errors
    /// The model's.
    pub fn texts(&self, unit: &[f32], scales: &[f64]) -> Result<Vec<String>> {
        let vectors = scales.iter().map(|scale| unit.iter().map(|x| x * *scale as f32).collect()).collect();
        let suffix = self.suffix(scales.len());
        let room = suffix.ids.len() / scales.len().max(1) + self.settings.explanation_tokens;
        let mut cache = self.prefix.fork(&vec![0; scales.len()], room)?;
        let options = GenerateOptions::greedy(self.settings.explanation_tokens, self.model.spec.eos_ids.clone());
        let mut hooks = self.insertion(vectors);
        let new = self.model.generate_behind(&mut cache, suffix, &options, &mut hooks)?;
        let tokenizer = self.model.tokenizer()?;
        let text = |ids: &Vec<u32>| -> Result<String> {
            let text = tokenizer.decode(ids)?;
            // The template opened a quotation; what follows its end is talk about the answer.
            let part = text.split(['"', '\n']).find(|part| !part.trim().is_empty());
            Ok(part.unwrap_or_default().trim().to_owned())
        };
        new.ids.iter().map(text).collect()
    }
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
    ];
    match rules.iter().find(|(holds, _)| !holds) {
        Some((_, text)) => Err(MethodError::Request((*text).into())),
        None => Prompt::new(model, s.template).map(|_| ()),
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
