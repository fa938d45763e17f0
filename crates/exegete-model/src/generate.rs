//! Generation for a batch, with a key-value cache: greedy or sampled.

use exegete_base::sampling::pair_hash;
use exegete_tensor::{Tape, f32s};

use crate::{Batch, Hooks, KvCache, Logits, Model, ModelError, Result};

/// How a token is drawn from its distribution. The steps apply in this order, as in transformers: repetition penalty,
/// temperature, top-k, top-p, min-p.
#[derive(Debug, Clone, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token always.
    pub temperature: f32,
    /// Only the k likeliest; 0 for all.
    pub top_k: usize,
    /// Only the likeliest that together reach this probability; 1 for all.
    pub top_p: f32,
    /// Only those at least this fraction as likely as the likeliest; 0 for all.
    pub min_p: f32,
    /// Logits of tokens that the row has (prompt included) are divided by this where positive, multiplied where
    /// negative (Keskar et al. 2019); 1 changes nothing.
    pub repetition_penalty: f32,
    /// Seed; a token depends on the seed, its row and its step only.
    pub seed: u64,
}

impl Sampling {
    /// The likeliest token, always.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, repetition_penalty: 1.0, seed: 0 }
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: &str| Err(ModelError::Request(format!("sampling: {what}")));
        match self {
            s if !(s.temperature >= 0.0 && s.temperature.is_finite()) => wrong("the temperature must be 0 or more"),
            s if !(s.top_p > 0.0 && s.top_p <= 1.0) => wrong("top-p must lie in 0..=1 and not be 0"),
            s if !(s.min_p >= 0.0 && s.min_p <= 1.0) => wrong("min-p must lie in 0..=1"),
            s if !(s.repetition_penalty > 0.0 && s.repetition_penalty.is_finite()) => {
                wrong("the repetition penalty must be more than 0")
            }
            _ => Ok(()),
        }
    }

    /// Draws a token. `had` are the tokens that the row has.
    fn draw(&self, logits: &[f32], had: &[u32], row: usize, step: usize) -> u32 {
        let mut logits = logits.to_vec();
        if self.repetition_penalty != 1.0 {
            let mut had = had.to_vec();
            had.sort_unstable();
            had.dedup();
            for id in had {
                if let Some(x) = logits.get_mut(id as usize) {
                    *x = if *x > 0.0 { *x / self.repetition_penalty } else { *x * self.repetition_penalty };
                }
            }
        }
        if self.temperature == 0.0 {
            return argmax(&logits);
        }
        let mut ranked: Vec<(f64, u32)> =
            (0u32..).zip(&logits).map(|(id, x)| (f64::from(*x) / f64::from(self.temperature), id)).collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        if self.top_k > 0 {
            ranked.truncate(self.top_k);
        }
        let best = ranked.first().map_or(0.0, |r| r.0);
        let weights = |ranked: &[(f64, u32)]| ranked.iter().map(|(x, _)| (x - best).exp()).collect::<Vec<f64>>();
        if self.top_p < 1.0 {
            let w = weights(&ranked);
            let (total, mut sum) = (w.iter().sum::<f64>(), 0.0);
            // The token that crosses the line is kept.
            let kept = w.iter().take_while(|x| {
                let before = sum;
                sum += **x / total;
                before < f64::from(self.top_p)
            });
            let kept = kept.count().max(1);
            ranked.truncate(kept);
        }
        if self.min_p > 0.0 {
            let kept = weights(&ranked).iter().take_while(|w| **w >= f64::from(self.min_p)).count();
            ranked.truncate(kept.max(1));
        }
        let w = weights(&ranked);
        let uniform = pair_hash(self.seed, row as u64, step as u64) as f64 / (u64::MAX as f64 + 1.0);
        let mut left = uniform * w.iter().sum::<f64>();
        for ((_, id), w) in ranked.iter().zip(&w) {
            left -= w;
            if left < 0.0 {
                return *id;
            }
        }
        ranked.last().map_or(0, |r| r.1)
    }
}

/// How to generate.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Most new tokens a row.
    pub max_new_tokens: usize,
    /// Tokens that end a row; they are not part of its text.
    pub stop_ids: Vec<u32>,
    /// Texts that end a row as soon as they stand in it; they stay part of its ids.
    pub stop_texts: Vec<String>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// Classifier-free guidance (Sanchez et al. 2023, arXiv 2306.17806): the second half of the batch's rows are baselines of the
    /// first, in order. Tokens are drawn from `baseline + factor * (logits - baseline)`, both rows go on with them, and the
    /// generation has the first half alone.
    pub guidance: Option<f32>,
}

impl GenerateOptions {
    /// Greedy, ended by these tokens.
    pub fn greedy(max_new_tokens: usize, stop_ids: Vec<u32>) -> Self {
        Self { max_new_tokens, stop_ids, stop_texts: Vec::new(), sampling: Sampling::greedy(), guidance: None }
    }
}

/// Why a row ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It reached the most tokens.
    Length,
    /// This token came.
    Token(u32),
    /// This text came.
    Text(String),
}

/// New tokens of each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// New ids, without the stop token.
    pub ids: Vec<Vec<u32>>,
    /// Why each row ended.
    pub stops: Vec<Stop>,
}

impl Model {
    /// Continues each prompt; prompts may differ in length, and nothing is padded. `hooks` apply in every step, at the
    /// positions that the step runs.
    ///
    /// # Errors
    /// Those of [`Model::run`]; sampling settings out of range.
    pub fn generate(&self, prompts: &[Vec<u32>], options: &GenerateOptions, hooks: &mut Hooks) -> Result<Generation> {
        let batch = Batch::rows(prompts);
        let longest = batch.lens_B.iter().copied().max().unwrap_or(0);
        self.check_room(longest, options.max_new_tokens)?;
        let mut cache = KvCache::new(&self.spec, batch.n_rows(), longest.saturating_add(options.max_new_tokens))?;
        self.generate_behind(&mut cache, batch, options, hooks)
    }

    /// Continues a batch behind what `cache` already holds.
    ///
    /// # Errors
    /// As for [`Model::generate`].
    pub fn generate_behind(
        &self,
        cache: &mut KvCache,
        batch: Batch,
        options: &GenerateOptions,
        hooks: &mut Hooks,
    ) -> Result<Generation> {
        options.sampling.check()?;
        if hooks.stop_after_layer.is_some() {
            return Err(ModelError::Request("generation needs every layer, but the hooks stop the run at one".into()));
        }
        if !batch.starts_B.is_empty() {
            return Err(ModelError::Request("generation goes on where the cache ends, not at positions given".into()));
        }
        let n_rows = batch.n_rows();
        if options.guidance.is_some() && !n_rows.is_multiple_of(2) {
            return Err(ModelError::Request(format!(
                "guidance wants a baseline for each row, and there are {n_rows} rows"
            )));
        }
        // Rows whose tokens are drawn; the others follow them.
        let n_drawn = if options.guidance.is_some() { n_rows / 2 } else { n_rows };
        let longest = batch.lens_B.iter().enumerate().map(|(row, n)| cache.len(row) + n).max().unwrap_or(0);
        self.check_room(longest, options.max_new_tokens)?;
        let mut had: Vec<Vec<u32>> = Vec::new();
        let mut from = 0;
        for (row, len) in batch.lens_B.iter().enumerate() {
            let mut ids = batch.before_B.get(row).cloned().unwrap_or_default();
            ids.extend_from_slice(&batch.ids[from..from + len]);
            had.push(ids);
            from += len;
        }
        let prompts_B: Vec<usize> = match batch.prompts_B.as_slice() {
            [] => batch.lens_B.iter().enumerate().map(|(row, len)| cache.len(row) + len).collect(),
            given => given.to_vec(),
        };
        let mut ids: Vec<Vec<u32>> = vec![Vec::new(); n_drawn];
        let mut stops: Vec<Option<Stop>> = vec![None; n_drawn];
        let vocab = self.spec.vocab_size;
        let mut guided = vec![0f32; if options.guidance.is_some() { n_drawn * vocab } else { 0 }];
        let mut step = Batch { prompts_B: prompts_B.clone(), ..batch };
        for i in 0..options.max_new_tokens {
            let Some(logits) = self.run(&Tape::new(), &step, Some(cache), hooks, Logits::Last)? else { break };
            let values = f32s(logits.tensor())?;
            let logits: &[f32] = match options.guidance {
                None => &values,
                Some(factor) => {
                    let (rows, baselines) = values.split_at(n_drawn * vocab);
                    let pairs = rows.iter().zip(baselines);
                    guided.iter_mut().zip(pairs).for_each(|(out, (x, base))| *out = base + factor * (x - base));
                    &guided
                }
            };
            let mut next = Vec::with_capacity(n_rows);
            for (row, logits) in logits.chunks_exact(vocab).enumerate() {
                if logits.iter().any(|x| x.is_nan()) || !logits.iter().any(|x| x.is_finite()) {
                    return Err(ModelError::Request(format!(
                        "the logits of row {row} at step {i} are not numbers; an edit may be too strong"
                    )));
                }
                let id = options.sampling.draw(logits, &had[row], row, i);
                next.push(id);
                had[row].push(id);
                if stops[row].is_some() {
                    continue;
                }
                if options.stop_ids.contains(&id) {
                    stops[row] = Some(Stop::Token(id));
                    continue;
                }
                ids[row].push(id);
                stops[row] = self.stop_text(&ids[row], &options.stop_texts)?.map(Stop::Text);
            }
            if stops.iter().all(Option::is_some) || i + 1 == options.max_new_tokens {
                break;
            }
            if options.guidance.is_some() {
                next.extend_from_within(..);
            }
            step = Batch { prompts_B: prompts_B.clone(), context: step.context, ..Batch::uniform(next, n_rows) };
        }
        Ok(Generation { ids, stops: stops.into_iter().map(|s| s.unwrap_or(Stop::Length)).collect() })
    }

    /// Refuses a text that would outgrow the model, before any of it is made.
    fn check_room(&self, longest: usize, new: usize) -> Result<()> {
        let most = self.spec.max_positions;
        match longest.saturating_add(new.saturating_sub(1)) > most {
            true => Err(ModelError::Request(format!(
                "{longest} prompt tokens and {new} new ones are more than the model's context of {most}; ask for fewer"
            ))),
            false => Ok(()),
        }
    }

    fn stop_text(&self, ids: &[u32], texts: &[String]) -> Result<Option<String>> {
        if texts.is_empty() {
            return Ok(None);
        }
        let text = self.tokenizer()?.decode(ids)?;
        Ok(texts.iter().find(|stop| !stop.is_empty() && text.contains(stop.as_str())).cloned())
    }
}

/// The index of the largest value; the first of equals.
fn argmax(logits: &[f32]) -> u32 {
    logits.iter().enumerate().fold(0, |best, (i, v)| if *v > logits[best] { i } else { best }) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samplers_keep_what_they_say() {
        let logits = [2.0, 1.0, 0.0, -1.0, f32::NEG_INFINITY];
        let drawn = |s: &Sampling| {
            let mut counts = [0usize; 5];
            (0..4000).for_each(|step| counts[s.draw(&logits, &[0], 0, step) as usize] += 1);
            counts
        };
        let all = Sampling { temperature: 1.0, ..Sampling::greedy() };
        let counts = drawn(&all);
        let total: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum();
        for (n, x) in counts.iter().zip(logits) {
            let (p, got) = (f64::from(x).exp() / total, *n as f64 / 4000.0);
            assert!((p - got).abs() < 0.03, "{got} for {p}");
        }
        let zero_from = |s: Sampling| drawn(&s).iter().position(|n| *n == 0).unwrap();
        assert_eq!(zero_from(Sampling { top_k: 2, ..all.clone() }), 2);
        // 0.64 + 0.24 pass 0.7 with the second token.
        assert_eq!(zero_from(Sampling { top_p: 0.7, ..all.clone() }), 2);
        assert_eq!(zero_from(Sampling { min_p: 0.2, ..all.clone() }), 2);
        assert_eq!(zero_from(Sampling { temperature: 0.05, ..all.clone() }), 1);
        let penalised = Sampling { repetition_penalty: 4.0, ..Sampling::greedy() };
        assert_eq!(penalised.draw(&logits, &[0], 0, 0), 1);
        assert!(Sampling { top_p: 0.0, ..all }.check().is_err());
    }
}
