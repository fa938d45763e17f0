//! A latent as other programs know it.

use serde::{Deserialize, Serialize};

/// What formats say of a latent: tokens as text, firings in their texts, numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Feature {
    /// The latent.
    pub index: u32,
    /// Share of the tokens on which it fires.
    pub density: Option<f64>,
    /// Tokens that it promotes most, with their logits.
    pub top_logits: Vec<(String, f32)>,
    /// Tokens that it suppresses most, with their logits.
    pub bottom_logits: Vec<(String, f32)>,
    /// What is said about it, in the order of the file.
    pub explanations: Vec<Said>,
    /// Texts with its activations, in the order of the file.
    pub sequences: Vec<Sequence>,
    /// Histogram of its activations.
    pub firings: Bars,
    /// Histogram of the vocabulary's logits.
    pub logits: Bars,
    /// The largest coordinates of the decoder row.
    pub aligned_neurons: Related,
    /// Coordinates of the site that go with it.
    pub correlated_neurons: Related,
    /// Latents that go with it.
    pub correlated_latents: Related,
    /// Norms of the parts of the decoder row (heads, for a dictionary of attention).
    pub decoder_norms: Vec<f64>,
    /// The decoder row.
    pub vector: Vec<f64>,
    /// What it was counted over.
    pub ground: Ground,
}

/// What somebody said about a latent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    /// The text.
    pub text: String,
    /// The method's name.
    pub method: Option<String>,
    /// The model that said it.
    pub model: Option<String>,
}

/// A text with the activations of a latent on it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Sequence {
    /// The tokens.
    pub tokens: Vec<String>,
    /// As many activations.
    pub values: Vec<f32>,
    /// The token for whose sake the text was kept.
    pub at: Option<u32>,
    /// The group of texts that it stands in.
    pub bin: Bin,
    /// Direct feature attribution, for dictionaries of attention.
    pub dfa: Option<Dfa>,
}

impl Sequence {
    /// The token that the text is about: the one that was said to be, else the strongest of those that the interval holds, else
    /// the strongest; `None` without tokens.
    pub fn own(&self) -> Option<usize> {
        let strongest = |all: &mut dyn Iterator<Item = usize>| {
            all.reduce(|a, b| if self.values[b] > self.values[a] { b } else { a })
        };
        let said = self.at.map(|at| at as usize).filter(|at| *at < self.values.len());
        let inside = || strongest(&mut (0..self.values.len()).filter(|i| self.bin.holds(self.values[*i])));
        said.or_else(inside).or_else(|| strongest(&mut (0..self.values.len())))
    }
}

/// An interval of activations, and how many firings of the latent lie in it. The strongest firings stand in none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Bin {
    /// Lower edge.
    pub min: Option<f64>,
    /// Upper edge.
    pub max: Option<f64>,
    /// Share of the firings that lie in it.
    pub share: Option<f64>,
}

impl Bin {
    /// Whether an activation lies in it, with room for numbers that were rounded apart. All lie in that of the strongest.
    pub fn holds(&self, value: f32) -> bool {
        let (Some(min), Some(max), false) = (self.min, self.max, self.is_top()) else { return true };
        let room = 1e-3 * (1.0 + max.abs());
        (min - room..=max + room).contains(&f64::from(value))
    }

    /// Whether it stands for the strongest firings, which lie in no interval: no edges are said, or -1 for both.
    pub fn is_top(&self) -> bool {
        let said = |number: Option<f64>| number.is_some_and(|x| x != -1.0);
        !said(self.min) && !said(self.share)
    }
}

/// Direct feature attribution of a text: what each source position adds to one activation.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dfa {
    /// One number a token.
    pub values: Vec<f64>,
    /// The largest.
    pub max: Option<f64>,
    /// The token whose activation is told apart.
    pub target: Option<i64>,
}

/// A histogram as it is drawn: the middles of the bars and their heights.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Bars {
    /// Middles of the bars.
    pub values: Vec<f64>,
    /// Heights: counts.
    pub heights: Vec<f64>,
}

/// Others that go with a latent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Related {
    /// Which.
    pub indices: Vec<u32>,
    /// How much: a coordinate, or Pearson's correlation.
    pub values: Vec<f32>,
    /// A second number: the share of the row's L1 norm, or what the format's writer puts there. Empty where it is not known.
    pub l1: Vec<f64>,
}

/// What a latent was counted over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ground {
    /// Texts.
    pub n_prompts: Option<u64>,
    /// Tokens of each.
    pub tokens_in_prompt: Option<u64>,
    /// The corpus's name.
    pub dataset: Option<String>,
}

impl Ground {
    /// Tokens in all, where that is said.
    pub fn n_tokens(&self) -> Option<u64> {
        self.n_prompts.zip(self.tokens_in_prompt).map(|(n, len)| n.saturating_mul(len)).filter(|n| *n > 0)
    }
}
