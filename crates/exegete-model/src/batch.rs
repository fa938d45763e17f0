//! What a run is given: token ids, row by row, and where each token stands.

use exegete_tensor::cpu::attention::AttentionRow;

use crate::{KvCache, ModelError, ModelSpec, Result};

/// Token ids of sequences of any lengths, one behind the other: nothing is padded.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// All tokens, row after row.
    pub ids: Vec<u32>,
    /// Tokens of each row.
    pub lens_B: Vec<usize>,
    /// Positions of each row that are its prompt, for edits that ask; empty where everything in this run is.
    pub prompts_B: Vec<usize>,
    /// Tokens that stand before each row in a cache, for what looks back at a text's tokens (the repetition penalty);
    /// empty for none.
    pub before_B: Vec<Vec<u32>>,
    /// Position of each row's first token, where that is not behind all that the cache holds of the row: what a cache
    /// lays together (see [`crate::Prefix::beside`]) may leave a gap. Empty for the positions behind the cache.
    pub starts_B: Vec<usize>,
    /// The context for which rotations that depend on its length are chosen; by default the longest row, or the room
    /// in the cache.
    pub context: Option<usize>,
}

impl Batch {
    /// One sequence.
    pub fn one(ids: &[u32]) -> Self {
        Self { ids: ids.to_vec(), lens_B: vec![ids.len()], ..Self::default() }
    }

    /// Sequences of any lengths.
    pub fn rows(rows: &[Vec<u32>]) -> Self {
        Self { ids: rows.concat(), lens_B: rows.iter().map(Vec::len).collect(), ..Self::default() }
    }

    /// Sequences of one length; the ids divide evenly among the rows.
    pub fn uniform(ids: Vec<u32>, n_rows: usize) -> Self {
        let len = ids.len().checked_div(n_rows).unwrap_or(0);
        Self { ids, lens_B: vec![len; n_rows], ..Self::default() }
    }

    /// Rows.
    pub fn n_rows(&self) -> usize {
        self.lens_B.len()
    }

    /// The length of all rows, if they have the same.
    pub fn len(&self) -> Option<usize> {
        let first = *self.lens_B.first()?;
        self.lens_B.iter().all(|len| *len == first).then_some(first)
    }

    /// Whether there is nothing to run.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The last token of each row, by number among all tokens.
    pub fn last_tokens(&self) -> Vec<u32> {
        self.lens_B
            .iter()
            .scan(0, |at, len| {
                *at += len;
                Some((*at as u32).saturating_sub(1))
            })
            .collect()
    }
}

/// A token and where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spot {
    /// Row of the batch.
    pub row: usize,
    /// Position in its sequence; 0 is the row's first token.
    pub position: usize,
    /// The token.
    pub id: u32,
    /// Positions of the row's prompt.
    pub prompt: usize,
}

impl Spot {
    /// The generation step that runs this token: 0 for the prompt, i for the i-th new token.
    pub fn step(&self) -> usize {
        (self.position + 1).saturating_sub(self.prompt)
    }
}

/// The tokens of a run in the shape in which values pass through it.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) spots: Vec<Spot>,
    pub(crate) rows: Vec<AttentionRow>,
    /// Positions of each row, where all have the same number.
    pub(crate) len: Option<usize>,
    /// The context by which rotations are chosen.
    pub(crate) context: usize,
}

impl Layout {
    /// Checks a batch against a model and a cache, and lays it out.
    pub(crate) fn new(spec: &ModelSpec, batch: &Batch, cache: Option<&KvCache>) -> Result<Self> {
        let total: usize = batch.lens_B.iter().sum();
        if batch.is_empty() || total != batch.ids.len() || batch.lens_B.contains(&0) {
            let detail = format!("{} ids for rows of {:?} tokens", batch.ids.len(), batch.lens_B);
            return Err(ModelError::Request(format!(
                "an empty sequence cannot be run; give each row a token: {detail}"
            )));
        }
        if !batch.prompts_B.is_empty() && batch.prompts_B.len() != batch.n_rows() {
            let detail = format!("{} prompt lengths for {} rows", batch.prompts_B.len(), batch.n_rows());
            return Err(ModelError::Request(detail));
        }
        if !batch.starts_B.is_empty() && batch.starts_B.len() != batch.n_rows() {
            let detail = format!("{} first positions for {} rows", batch.starts_B.len(), batch.n_rows());
            return Err(ModelError::Request(detail));
        }
        if let Some(cache) = cache {
            cache.check(&batch.lens_B)?;
        }
        let (mut spots, mut rows) = (Vec::with_capacity(total), Vec::with_capacity(batch.n_rows()));
        let mut longest = 0;
        for (row, n) in batch.lens_B.iter().enumerate() {
            let (first, past) = (spots.len(), cache.map_or(0, |c| c.len(row)));
            let start = batch.starts_B.get(row).copied().unwrap_or(past);
            let end = start + n;
            let prompt = batch.prompts_B.get(row).copied().unwrap_or(end);
            rows.push(AttentionRow { first, n: *n, past });
            spots.extend((start..end).map(|position| Spot {
                row,
                position,
                id: batch.ids[first + position - start],
                prompt,
            }));
            longest = longest.max(end);
        }
        if longest > spec.max_positions {
            let most = spec.max_positions;
            let detail = format!("a context of {longest} tokens, but the model was made for {most}; shorten the text");
            return Err(ModelError::Request(detail));
        }
        let usual = cache.map_or(longest, KvCache::context);
        let context = batch.context.unwrap_or(usual).max(longest).min(spec.max_positions);
        Ok(Self { spots, rows, len: batch.len(), context })
    }

    /// The same tokens' last steps: only `tokens` of them, `per_row` to a row if that is one number.
    pub(crate) fn only(&self, tokens: &[u32], len: Option<usize>) -> Self {
        let spots = tokens.iter().map(|t| self.spots[*t as usize]).collect();
        Self { spots, rows: Vec::new(), len, context: self.context }
    }

    /// Axes of the tokens: batch and position, or all tokens where rows differ in length.
    pub(crate) fn dims(&self) -> Vec<usize> {
        match self.len {
            Some(len) => vec![self.spots.len() / len.max(1), len],
            None => vec![self.spots.len()],
        }
    }

    pub(crate) fn n_keys(&self) -> usize {
        self.rows.iter().map(|r| r.past + r.n).max().unwrap_or(0)
    }
}
