//! Texts that a model writes while a latent is amplified, beside those of other latents: what output-side scorers show.
//!
//! A latent's texts are written once, whatever is said of it and whoever judges. The other latents are drawn once by hash among those
//! that fire in the run, so that their texts serve for every latent that is scored. All texts draw their tokens by the same numbers.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;

use exegete_base::sampling::pair_hash;
use exegete_model::{GenerateOptions, Hooks, Sampling};
use serde::Deserialize;

use crate::amplify::{Amplifier, Reached, missed};
use crate::question::read;
use crate::subject::Subject;
use crate::{ExplainError, Result};

/// Groups of texts that are shown in a round: the latent's own and those of two others.
pub const SHOWN: usize = 3;
/// What sets the draws of other latents apart from others of the same seed.
const DRAW: u64 = 0x0a7e;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    targets: Vec<f64>,
    tokens: usize,
    temperature: f32,
    top_p: f32,
    others: usize,
    rounds: usize,
}

/// Texts of a latent at each divergence.
#[derive(Debug, Clone, PartialEq)]
pub struct Steered {
    /// The latent.
    pub latent: u32,
    /// What it was clamped to for each divergence.
    pub reached: Vec<Reached>,
    /// The texts, one behind each neutral prompt; none where the divergence was not reached.
    pub texts: Vec<Vec<String>>,
}

/// A round: whose texts are shown, and at which place the latent's own are.
#[derive(Debug, Clone, PartialEq)]
pub struct Round {
    /// Number of the divergence.
    pub target: usize,
    /// The other latents.
    pub others: [Rc<Steered>; SHOWN - 1],
    /// Place of the latent's own texts.
    pub place: usize,
}

/// Texts of a subject's latents, each written when it is first asked for.
pub struct Completions<'a> {
    amplifier: Amplifier<'a>,
    firing: Vec<u32>,
    seed: u64,
    settings: OnceCell<Settings>,
    made: RefCell<HashMap<u32, Rc<Steered>>>,
    others: OnceCell<Vec<Rc<Steered>>>,
    clean: OnceCell<Vec<String>>,
}

impl<'a> Completions<'a> {
    /// Of a subject; `firing` are the latents among which the others are drawn.
    pub fn new(subject: &'a Subject<'a>, firing: impl IntoIterator<Item = u32>, seed: u64) -> Self {
        Self {
            amplifier: Amplifier::new(subject),
            firing: firing.into_iter().collect(),
            seed,
            settings: OnceCell::new(),
            made: RefCell::default(),
            others: OnceCell::new(),
            clean: OnceCell::new(),
        }
    }

    /// A latent's texts.
    ///
    /// # Errors
    /// A dictionary whose latents cannot be clamped, the model's.
    pub fn of(&self, latent: u32) -> Result<Rc<Steered>> {
        if let Some(made) = self.made.borrow().get(&latent) {
            return Ok(made.clone());
        }
        let reached = self.amplifier.reach(latent, &self.settings()?.targets)?;
        let values: Vec<(u32, f32)> = reached.iter().filter(|r| r.is_hit()).map(|r| (latent, r.value)).collect();
        let mut written = self.write(&values)?.into_iter();
        let texts = reached.iter().map(|r| if r.is_hit() { written.next().unwrap_or_default() } else { Vec::new() });
        let steered = Rc::new(Steered { latent, texts: texts.collect(), reached });
        self.made.borrow_mut().insert(latent, steered.clone());
        Ok(steered)
    }

    /// What the model writes when nothing is amplified.
    ///
    /// # Errors
    /// The model's.
    pub fn clean(&self) -> Result<&[String]> {
        if self.clean.get().is_none() {
            let written = self.write(&[])?.pop().unwrap_or_default();
            self.clean.get_or_init(|| written);
        }
        Ok(self.clean.get().map_or(&[], Vec::as_slice))
    }

    /// The rounds of a latent. The places of its own texts come equally often.
    ///
    /// # Errors
    /// [`ExplainError::Request`] where there is nothing to show: no divergence was reached, too few other latents; as for
    /// [`Completions::of`].
    pub fn rounds(&self, latent: u32) -> Result<Vec<Round>> {
        let own = self.of(latent)?;
        let targets: Vec<usize> = (0..own.reached.len()).filter(|t| own.reached[*t].is_hit()).collect();
        if targets.is_empty() {
            return Err(missed(latent, &own.reached));
        }
        let others: Vec<&Rc<Steered>> = self.others()?.iter().filter(|other| other.latent != latent).collect();
        let mut pairs: Vec<(usize, usize)> =
            (0..others.len()).flat_map(|a| (0..others.len()).filter(move |b| *b != a).map(move |b| (a, b))).collect();
        // Of the two orders of a pair, one.
        let salt = |a: usize, b: usize| pair_hash(self.seed ^ u64::from(latent), a as u64, b as u64);
        pairs.retain(|(a, b)| (salt(*a, *b), a) < (salt(*b, *a), b));
        pairs.sort_by_key(|(a, b)| salt(*a, *b));
        if pairs.is_empty() {
            return Err(ExplainError::request(format!(
                "latent {latent}: fewer than two other latents that fire in the run move the model as far as asked"
            )));
        }
        // Every place at every divergence, with new others as long as there are any.
        let around = SHOWN * targets.len();
        let rounds = self.settings()?.rounds.min(pairs.len() * around);
        let pair = |round: usize| pairs[if pairs.len() >= rounds { round } else { round / around }];
        let round = |round: usize| {
            let (a, b) = pair(round);
            Round {
                target: targets[round / SHOWN % targets.len()],
                others: [others[a].clone(), others[b].clone()],
                place: round % SHOWN,
            }
        };
        Ok((0..rounds).map(round).collect())
    }

    /// The other latents: of those that fire, the first by hash that reach every divergence.
    fn others(&self) -> Result<&[Rc<Steered>]> {
        if self.others.get().is_none() {
            let wanted = self.settings()?.others;
            let mut drawn = self.firing.clone();
            drawn.sort_by_cached_key(|latent| pair_hash(self.seed ^ DRAW, u64::from(*latent), 0));
            let mut others = Vec::new();
            // One more than is shown, in place of the latent that is scored; where hardly any reaches, not all are tried.
            for latent in drawn.into_iter().take(4 * (wanted + 1)) {
                let steered = self.of(latent)?;
                if steered.reached.iter().all(Reached::is_hit) {
                    others.push(steered);
                }
                if others.len() > wanted {
                    break;
                }
            }
            self.others.get_or_init(|| others);
        }
        Ok(self.others.get().map_or(&[], Vec::as_slice))
    }

    fn settings(&self) -> Result<&Settings> {
        if let Some(settings) = self.settings.get() {
            return Ok(settings);
        }
        let settings = read("completions.toml", include_str!("../prompts/completions.toml"))?;
        Ok(self.settings.get_or_init(|| settings))
    }

    /// Continues every neutral prompt under every value at once; under none where there are none.
    fn write(&self, values: &[(u32, f32)]) -> Result<Vec<Vec<String>>> {
        let (settings, subject, prompts) = (self.settings()?, self.amplifier.subject(), self.amplifier.prompts()?);
        let mut rows = Vec::new();
        let mut hooks = Hooks::none();
        for (i, (latent, value)) in values.iter().enumerate() {
            let mine = i * prompts.len()..(i + 1) * prompts.len();
            hooks = hooks.edit(self.amplifier.edit(*latent, *value, Some(mine.collect()))?);
        }
        (0..values.len().max(1)).for_each(|_| rows.extend_from_slice(prompts));
        let Settings { tokens, temperature, top_p, .. } = settings;
        let sampling = Sampling { temperature: *temperature, top_p: *top_p, seed: self.seed, ..Sampling::greedy() };
        let stop_ids = subject.model.spec.eos_ids.clone();
        let options = GenerateOptions { sampling, ..GenerateOptions::greedy(*tokens, stop_ids) };
        let made = subject.model.generate(&rows, &options, &mut hooks)?;
        let tokenizer = subject.tokenizer()?;
        let text = |(row, made): (&Vec<u32>, &Vec<u32>)| -> Result<String> {
            let begun = row.iter().skip(usize::from(subject.bos.is_some())).chain(made).copied().collect::<Vec<u32>>();
            Ok(tokenizer.decode(&begun)?.split_whitespace().collect::<Vec<&str>>().join(" "))
        };
        let texts: Vec<String> = rows.iter().zip(&made.ids).map(text).collect::<Result<_>>()?;
        Ok(texts.chunks(prompts.len().max(1)).map(<[String]>::to_vec).collect())
    }
}
