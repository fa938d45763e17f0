//! What a latent does to what a model says: it is clamped to a value at which the next token's distribution moves by a given divergence.
//!
//! Latents are comparable when each moves the model equally far: the value is sought at which the mean of
//! `KL(steered || clean)` over the next token behind three neutral prompts is the one asked for. Source: Gur-Arieh et al. 2025
//! (arXiv 2501.08319); Paulo et al. 2024 (arXiv 2410.13928) match divergences too.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use exegete_model::{Batch, Edit, Hooks, Logits, Positions};
use exegete_sae::Clamp;
use exegete_tensor::cpu::loss::log_sum_exp;
use exegete_tensor::{Tape, f32s};
use serde::{Deserialize, Serialize};

use crate::question::read;
use crate::subject::Subject;
use crate::{ExplainError, Result};

/// How far a divergence may lie from the one asked for.
pub const TOLERANCE: f64 = 0.1;
/// The largest value that is tried.
const STRONGEST: f64 = 1000.0;
/// The smallest that are tried: the published one, and where that moves the model too far already, one for dictionaries of short
/// activations.
const WEAKEST: [f64; 2] = [1.0, 0.001];
/// Values that are tried for one divergence.
const TRIES: usize = 40;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Neutral {
    calibration: Vec<String>,
    various: Vec<String>,
    targets: Vec<f64>,
    words: usize,
}

/// What a search for a divergence came to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reached {
    /// The divergence asked for; a negative one is that of a negative value.
    pub target: f64,
    /// The value whose divergence is nearest.
    pub value: f32,
    /// Its divergence, in nats.
    pub kl: f64,
}

impl Reached {
    /// Whether it is the one asked for, within [`TOLERANCE`].
    pub fn is_hit(&self) -> bool {
        (self.kl - self.target.abs()).abs() <= TOLERANCE
    }
}

/// Tokens whose probability a latent moves most, with the mean change over neutral prompts.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Those that become likelier, the most first.
    pub promoted: Vec<(u32, f32)>,
    /// Those that become less likely, the most first.
    pub suppressed: Vec<(u32, f32)>,
    /// What the latent was clamped to.
    pub at: Reached,
}

/// Amplifies latents of a subject.
pub struct Amplifier<'a> {
    subject: &'a Subject<'a>,
    clean: OnceCell<Clean>,
}

/// What is the same for all latents.
struct Clean {
    neutral: Neutral,
    /// The prompts of the calibration, then the various ones.
    rows: Vec<Vec<u32>>,
    /// Log-probabilities of the next token of each.
    logs: Vec<Vec<f32>>,
    /// The largest activation of each latent that fires on the prompts of the calibration.
    fires: HashMap<u32, f32>,
}

impl<'a> Amplifier<'a> {
    /// Of a subject; nothing is computed before something is asked.
    pub fn new(subject: &'a Subject<'a>) -> Self {
        Self { subject, clean: OnceCell::new() }
    }

    /// The subject.
    pub fn subject(&self) -> &'a Subject<'a> {
        self.subject
    }

    /// Tokens of the neutral prompts behind which the divergence is measured.
    ///
    /// # Errors
    /// The model's.
    pub fn prompts(&self) -> Result<&[Vec<u32>]> {
        let clean = self.clean()?;
        Ok(&clean.rows[..clean.neutral.calibration.len()])
    }

    /// Clamps a latent in some rows of a batch, or in all, at every position but the first: what stands there is unlike any other
    /// token, and no dictionary reads it.
    ///
    /// # Errors
    /// A dictionary whose latents cannot be clamped at its site.
    pub fn edit(&self, latent: u32, value: f32, rows: Option<Vec<usize>>) -> Result<Edit> {
        let width = self.subject.model.spec.site_width(self.subject.site, 0);
        let clamp = Clamp::new(self.subject.dictionary.clone(), vec![(latent as usize, value)], width)
            .map_err(|e| ExplainError::request(format!("latent {latent} cannot be amplified: {e}")))?;
        let behind_the_first = Positions::Where(Arc::new(|spot| spot.position > 0));
        Ok(Edit { rows, ..Edit::everywhere(self.subject.site, Arc::new(clamp)).at(behind_the_first) })
    }

    /// Mean divergence, in nats, of the next token's distribution behind the neutral prompts while a latent is clamped to a value.
    ///
    /// # Errors
    /// As for [`Amplifier::edit`]; the model's.
    pub fn kl(&self, latent: u32, value: f32) -> Result<f64> {
        let rows = self.prompts()?;
        let steered = self.next(rows, Hooks::none().edit(self.edit(latent, value, None)?))?;
        let total: f64 = steered.iter().zip(&self.clean()?.logs).map(|(s, c)| divergence(s, c)).sum();
        Ok(total / rows.len() as f64)
    }

    /// Values at which the divergence is one of those asked for, or as near as can be.
    ///
    /// # Errors
    /// As for [`Amplifier::kl`].
    pub fn reach(&self, latent: u32, targets: &[f64]) -> Result<Vec<Reached>> {
        let mut tried: [Vec<(f64, f64)>; 2] = Default::default();
        targets.iter().map(|target| self.search(latent, *target, &mut tried[usize::from(*target < 0.0)])).collect()
    }

    /// Bisection between logarithms of values. What was tried for another divergence of the same sign is not tried again.
    fn search(&self, latent: u32, target: f64, tried: &mut Vec<(f64, f64)>) -> Result<Reached> {
        let (wanted, sign) = (target.abs(), target.signum());
        // Below what the prompts themselves make it, a latent would be weakened.
        let own = match target > 0.0 {
            true => self.clean()?.fires.get(&latent).map_or(0.0, |value| f64::from(*value)).min(STRONGEST / 2.0),
            false => 0.0,
        };
        for _ in 0..TRIES {
            if tried.iter().any(|(_, kl)| (kl - wanted).abs() <= TOLERANCE) {
                break;
            }
            // A divergence that is no number is one of logits that grew out of bounds.
            let above = tried
                .iter()
                .filter(|(_, kl)| kl.is_nan() || *kl >= wanted)
                .map(|(value, _)| *value)
                .min_by(f64::total_cmp);
            let below = tried.iter().filter(|(value, kl)| *kl < wanted && above.is_none_or(|above| *value < above));
            let below = below.map(|(value, _)| *value).max_by(f64::total_cmp);
            let next = match (below, above) {
                (_, None) => Some(STRONGEST),
                (None, Some(_)) => WEAKEST.map(|weakest| weakest.max(own)).into_iter().find(|v| !has(tried, *v)),
                // No wider than the values' last digits.
                (Some(below), Some(above)) if above / below < 1.0 + 1e-6 => None,
                (Some(below), Some(above)) => Some((below * above).sqrt()),
            };
            let Some(next) = next.filter(|next| !has(tried, *next)) else { break };
            tried.push((next, self.kl(latent, (sign * next) as f32)?));
        }
        let off = |(_, kl): &(f64, f64)| if kl.is_finite() { (kl - wanted).abs() } else { f64::INFINITY };
        let nearest = tried.iter().min_by(|a, b| off(a).total_cmp(&off(b))).copied().unwrap_or((f64::NAN, f64::NAN));
        Ok(Reached { target, value: (sign * nearest.0) as f32, kl: nearest.1 })
    }

    /// The tokens whose probability a latent moves most.
    ///
    /// # Errors
    /// A latent that no value moves the model by; as for [`Amplifier::kl`].
    pub fn change(&self, latent: u32) -> Result<Change> {
        let Clean { neutral, rows, logs, .. } = self.clean()?;
        let reached = self.reach(latent, &neutral.targets)?;
        let at = reached.iter().find(|r| r.is_hit()).copied().ok_or_else(|| missed(latent, &reached))?;
        let n = neutral.calibration.len();
        let steered = self.next(&rows[n..], Hooks::none().edit(self.edit(latent, at.value, None)?))?;
        let mut moved = vec![0f32; self.subject.model.spec.vocab_size];
        let share = 1.0 / steered.len() as f32;
        for (steered, clean) in steered.iter().zip(&logs[n..]) {
            let by = steered.iter().zip(clean).map(|(s, c)| (s.exp() - c.exp()) * share);
            moved.iter_mut().zip(by).for_each(|(moved, by)| *moved += by);
        }
        let mut ranked: Vec<(u32, f32)> = (0..).zip(moved).filter(|(_, by)| *by != 0.0).collect();
        ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        let promoted = ranked.iter().take_while(|(_, by)| *by > 0.0).take(neutral.words).copied().collect();
        let suppressed = ranked.iter().rev().take_while(|(_, by)| *by < 0.0).take(neutral.words).copied().collect();
        Ok(Change { promoted, suppressed, at })
    }

    fn clean(&self) -> Result<&Clean> {
        if let Some(clean) = self.clean.get() {
            return Ok(clean);
        }
        let neutral: Neutral = read("neutral.toml", include_str!("../prompts/neutral.toml"))?;
        // Models without a token that begins texts get a line's end in its place, so that the first word is not the first token.
        let tokenizer = self.subject.tokenizer()?;
        let first = self.subject.bos.map_or_else(|| tokenizer.encode_text("\n"), |bos| Ok(vec![bos]))?;
        let prompts = neutral.calibration.iter().chain(&neutral.various);
        let row = |text: &String| Ok([first.as_slice(), &tokenizer.encode_text(text)?].concat());
        let rows: Vec<Vec<u32>> = prompts.map(row).collect::<Result<_>>()?;
        let logs = self.next(&rows, Hooks::none())?;
        let mut fires: HashMap<u32, f32> = HashMap::new();
        for codes in self.subject.codes(&rows[..neutral.calibration.len()])? {
            for (latent, value) in (0..codes.n_tokens()).flat_map(|at| codes.of(at)) {
                fires.entry(latent).and_modify(|most| *most = most.max(value)).or_insert(value);
            }
        }
        Ok(self.clean.get_or_init(|| Clean { neutral, rows, logs, fires }))
    }

    /// Log-probabilities of the next token of each row.
    fn next(&self, rows: &[Vec<u32>], mut hooks: Hooks) -> Result<Vec<Vec<f32>>> {
        let logits = self.subject.model.run(&Tape::new(), &Batch::rows(rows), None, &mut hooks, Logits::Last)?;
        let logits = logits.ok_or_else(|| ExplainError::request("the model was run without logits"))?;
        let of = |row: &[f32]| {
            let total = log_sum_exp(row);
            row.iter().map(|x| x - total).collect()
        };
        Ok(f32s(logits.tensor())?.chunks_exact(self.subject.model.spec.vocab_size).map(of).collect())
    }
}

fn has(tried: &[(f64, f64)], value: f64) -> bool {
    tried.iter().any(|(v, _)| *v == value)
}

/// `KL(a || b)` of log-probabilities.
fn divergence(a: &[f32], b: &[f32]) -> f64 {
    let terms = a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    terms.map(|(a, b)| if a == f64::NEG_INFINITY { 0.0 } else { a.exp() * (a - b) }).sum()
}

/// Why a latent is not amplified.
pub(crate) fn missed(latent: u32, reached: &[Reached]) -> ExplainError {
    let told: Vec<String> =
        reached.iter().map(|r| format!("{:.3} at {} where {} is asked for", r.kl, r.value, r.target)).collect();
    ExplainError::request(format!(
        "latent {latent}: no value that it is clamped to moves the model as far as asked: the divergence is {}",
        told.join(", ")
    ))
}
