//! What the organism is, and how it is trained.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::vocabulary::{END, LEAST_VOCABULARY, START, STOP};
use crate::language::{Language, Mix, Split};
use crate::{LabError, Result};

/// Positions that the organism has.
pub const CONTEXT: usize = 512;

/// The organism's shape and its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct OrganismSettings {
    /// Layers
    #[arg(long, default_value_t = 6)]
    pub layers: usize,
    /// Width of the residual stream
    #[arg(long, default_value_t = 192)]
    pub width: usize,
    /// Attention heads
    #[arg(long, default_value_t = 6)]
    pub heads: usize,
    /// Neurons of an MLP
    #[arg(long, default_value_t = 512)]
    pub neurons: usize,
    /// Tokens of the vocabulary
    #[arg(long, default_value_t = 512)]
    pub vocabulary: usize,
    /// Tokens to train on
    #[arg(long, default_value_t = 50_000_000)]
    pub tokens: u64,
    /// Tokens in a step, at least; a step takes whole documents
    #[arg(long, default_value_t = 8192)]
    pub batch_tokens: usize,
    /// Document from which on what is learnt slowly comes more often
    #[arg(long, default_value_t = 370_000)]
    pub late_from: u64,
    /// Learning rate at its highest
    #[arg(long, default_value_t = 3e-3)]
    pub lr: f64,
    /// Share of the tokens over which the learning rate rises from 0; then it falls by a cosine
    #[arg(long, default_value_t = 0.02)]
    pub warmup: f64,
    /// Share of the highest learning rate at which it ends
    #[arg(long, default_value_t = 0.02)]
    pub final_lr: f64,
    /// Decay of matrices at each step, as a multiple of the learning rate (AdamW)
    #[arg(long, default_value_t = 0.1)]
    pub weight_decay: f64,
    /// Largest norm of a step's gradient; longer ones are shortened
    #[arg(long, default_value_t = 1.0)]
    pub clip: f64,
}

impl OrganismSettings {
    /// Checks the numbers.
    ///
    /// # Errors
    /// A sentence that names the flag at fault.
    pub fn check(&self) -> Result<()> {
        let head = self.width.checked_div(self.heads).unwrap_or(0);
        let rules = [
            ((1..=64).contains(&self.layers), "--layers must be between 1 and 64"),
            ((1..=4096).contains(&self.width), "--width must be between 1 and 4096"),
            (
                self.heads >= 1 && self.width.is_multiple_of(self.heads) && head.is_multiple_of(2),
                "--heads must divide --width into heads of even width",
            ),
            ((1..=65_536).contains(&self.neurons), "--neurons must be between 1 and 65536"),
            (
                (LEAST_VOCABULARY..=65_536).contains(&self.vocabulary),
                "--vocabulary must be between 300 (all bytes and some words) and 65536",
            ),
            (self.tokens >= 1, "--tokens must be at least 1"),
            ((1..=1 << 20).contains(&self.batch_tokens), "--batch-tokens must be between 1 and 1048576"),
            (self.lr > 0.0 && self.lr.is_finite(), "--lr must be a number above 0"),
            ((0.0..=1.0).contains(&self.warmup), "--warmup is a share, from 0 to 1"),
            ((0.0..=1.0).contains(&self.final_lr), "--final-lr is a share, from 0 to 1"),
            (self.weight_decay >= 0.0 && self.weight_decay.is_finite(), "--weight-decay must be a number, 0 or more"),
            (self.clip > 0.0 && self.clip.is_finite(), "--clip must be a number above 0"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            None => Ok(()),
            Some((_, text)) => Err(LabError::Settings((*text).into())),
        }
    }

    /// The text of a training document.
    pub fn document(&self, language: &Language, seed: u64, index: u64) -> String {
        let mix = if index < self.late_from { Mix::Usual } else { Mix::Late };
        language.document_in(mix, seed, index, Split::Train).text
    }

    /// The learning rate behind `tokens` tokens: a linear rise, then a cosine (Loshchilov and Hutter 2017).
    pub fn lr_at(&self, tokens: u64) -> f64 {
        let done = tokens as f64 / self.tokens as f64;
        if done < self.warmup {
            return self.lr * done / self.warmup;
        }
        let left = ((done - self.warmup) / (1.0 - self.warmup).max(1e-9)).min(1.0);
        self.lr * (self.final_lr + (1.0 - self.final_lr) * 0.5 * (1.0 + (PI * left).cos()))
    }

    /// `config.json` of the model.
    pub fn config(&self) -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16",
            "hidden_size": self.width, "intermediate_size": self.neurons, "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads, "num_key_value_heads": self.heads,
            "vocab_size": self.vocabulary, "max_position_embeddings": CONTEXT, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": false,
            "attention_bias": false, "mlp_bias": false, "attention_dropout": 0.0, "initializer_range": 0.02,
            "bos_token_id": START, "eos_token_id": [STOP, END], "use_cache": true,
        })
    }
}

impl Default for OrganismSettings {
    /// The defaults of the command line.
    fn default() -> Self {
        Self {
            layers: 6,
            width: 192,
            heads: 6,
            neurons: 512,
            vocabulary: 512,
            tokens: 50_000_000,
            batch_tokens: 8192,
            late_from: 370_000,
            lr: 3e-3,
            warmup: 0.02,
            final_lr: 0.02,
            weight_decay: 0.1,
            clip: 1.0,
        }
    }
}
