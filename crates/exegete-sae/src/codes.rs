//! Sparse codes.

use exegete_tensor::cpu::sparse::Rows;

/// Sparse codes of N tokens: the active latents of each with their activations.
#[derive(Debug, Clone, PartialEq)]
pub struct Codes {
    /// Entries of token n are `starts[n]..starts[n + 1]`.
    starts_N1: Vec<usize>,
    values: Vec<f32>,
    idx: Vec<u32>,
}

impl Default for Codes {
    /// Of no tokens.
    fn default() -> Self {
        Self { starts_N1: vec![0], values: Vec::new(), idx: Vec::new() }
    }
}

impl Codes {
    /// Adds a token with its active latents and their activations, in the order of the latents.
    pub fn push(&mut self, active: impl IntoIterator<Item = (u32, f32)>) {
        for (latent, value) in active {
            self.idx.push(latent);
            self.values.push(value);
        }
        self.starts_N1.push(self.idx.len());
    }

    /// Tokens.
    pub fn n_tokens(&self) -> usize {
        self.starts_N1.len() - 1
    }

    /// Active latents of all tokens together.
    pub fn n_active(&self) -> usize {
        self.idx.len()
    }

    /// Active latents of one token with their activations, in the order of the latents.
    pub fn of(&self, token: usize) -> impl Iterator<Item = (u32, f32)> + Clone + '_ {
        let range = self.starts_N1[token]..self.starts_N1[token + 1];
        self.idx[range.clone()].iter().copied().zip(self.values[range].iter().copied())
    }

    /// The codes of some tokens.
    pub fn part(&self, tokens: std::ops::Range<usize>) -> Self {
        let mut part = Self::default();
        tokens.for_each(|token| part.push(self.of(token)));
        part
    }

    /// The latents of all tokens, behind each other.
    pub fn latents(&self) -> &[u32] {
        &self.idx
    }

    /// The activations of all tokens, behind each other.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Where the entries of each token are.
    pub(crate) fn rows(&self) -> Rows<'_> {
        Rows::Starts(&self.starts_N1)
    }

    /// Keeps the entries that `keep(latent, activation)` wants.
    pub(crate) fn retain(&mut self, keep: impl Fn(u32, f32) -> bool) {
        let mut kept = Self::default();
        for token in 0..self.n_tokens() {
            kept.push(self.of(token).filter(|(latent, value)| keep(*latent, *value)));
        }
        *self = kept;
    }
}
