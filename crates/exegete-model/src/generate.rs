//! Greedy generation for a batch, with a key-value cache.

use exegete_tensor::{Tape, f32s};

use crate::{Batch, Hooks, KvCache, Logits, Model, ModelError, Result};

/// How to generate.
#[derive(Debug, Clone)]
pub struct GenerateOptions {
    /// Most new tokens a row.
    pub max_new_tokens: usize,
    /// Tokens that end a row; they are not part of its text.
    pub stop_ids: Vec<u32>,
}

/// New tokens of each row.
#[derive(Debug, Clone, PartialEq)]
pub struct Generation {
    /// New ids, without the stop token.
    pub ids: Vec<Vec<u32>>,
}

impl Model {
    /// Continues each prompt greedily; prompts may differ in length. `hooks` apply in every step, at the positions
    /// that the step runs.
    ///
    /// # Errors
    /// Those of [`Model::run`].
    pub fn generate(&self, prompts: &[Vec<u32>], options: &GenerateOptions, hooks: &mut Hooks) -> Result<Generation> {
        let batch = Batch::padded(prompts)?;
        let (wanted, most) = (batch.len + options.max_new_tokens.saturating_sub(1), self.rope.n_positions());
        if wanted > most {
            let detail = format!("{} prompt tokens and {} new ones", batch.len, options.max_new_tokens);
            return Err(ModelError::Request(format!("{detail} are more than the model's context of {most}")));
        }
        let mut cache = KvCache::new(&self.spec, batch.n_rows, batch.len + options.max_new_tokens)?;
        self.generate_behind(&mut cache, batch, options, hooks)
    }

    /// Continues a batch behind what `cache` already holds: its rows share that prefix.
    ///
    /// # Errors
    /// Those of [`Model::run`].
    pub fn generate_behind(
        &self,
        cache: &mut KvCache,
        batch: Batch,
        options: &GenerateOptions,
        hooks: &mut Hooks,
    ) -> Result<Generation> {
        let tape = Tape::new();
        let mut ids: Vec<Vec<u32>> = vec![Vec::new(); batch.n_rows];
        let mut open = vec![true; batch.n_rows];
        let mut step = batch;
        for i in 0..options.max_new_tokens {
            let Some(logits) = self.run(&tape, &step, Some(cache), hooks, Logits::Last)? else { break };
            let next = argmax_rows(&f32s(logits.tensor())?, self.spec.vocab_size);
            for (row, id) in next.iter().enumerate() {
                open[row] &= !options.stop_ids.contains(id);
                if open[row] {
                    ids[row].push(*id);
                }
            }
            if !open.iter().any(|o| *o) || i + 1 == options.max_new_tokens {
                break;
            }
            step = Batch { ids: next, n_rows: step.n_rows, len: 1, starts_B: step.starts_B };
        }
        Ok(Generation { ids })
    }
}

/// The index of each row's largest value; the first of equals.
fn argmax_rows(logits: &[f32], vocab_size: usize) -> Vec<u32> {
    let best = |row: &[f32]| row.iter().enumerate().fold(0, |best, (i, v)| if *v > row[best] { i } else { best });
    logits.chunks_exact(vocab_size).map(|row| best(row) as u32).collect()
}
