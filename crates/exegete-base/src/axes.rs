//! Axis names, once. Names of arrays end in their axes: `resid_BTD`, `acts_NF`, `idx_NK`.

/// An axis of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Axis {
    /// Batch row (one sequence).
    Batch,
    /// Position in the sequence.
    Position,
    /// Width of the residual stream.
    Model,
    /// Attention heads that ask (queries).
    Heads,
    /// Attention heads that answer (keys and values).
    KvHeads,
    /// Width of one head.
    HeadDim,
    /// MLP neurons.
    Neurons,
    /// Vocabulary.
    Vocab,
    /// Latents of a dictionary.
    Latents,
    /// Active latents kept for a token.
    Active,
    /// Tokens, batch and position flattened.
    Tokens,
    /// Positions that are looked at (keys): those of the cache and of the run.
    Keys,
    /// Experts of a mixture.
    Experts,
    /// Experts that a token is sent to.
    ExpertsUsed,
}

impl Axis {
    /// The letter used as a suffix of array names, and the word used in messages.
    pub fn letter_and_word(self) -> (&'static str, &'static str) {
        match self {
            Axis::Batch => ("B", "batch"),
            Axis::Position => ("T", "position"),
            Axis::Model => ("D", "d_model"),
            Axis::Heads => ("H", "n_heads"),
            Axis::KvHeads => ("G", "n_kv_heads"),
            Axis::HeadDim => ("C", "d_head"),
            Axis::Neurons => ("M", "d_mlp"),
            Axis::Vocab => ("V", "d_vocab"),
            Axis::Latents => ("F", "n_latents"),
            Axis::Active => ("K", "k"),
            Axis::Tokens => ("N", "tokens"),
            Axis::Keys => ("S", "keys"),
            Axis::Experts => ("E", "n_experts"),
            Axis::ExpertsUsed => ("U", "n_experts_used"),
        }
    }
}
