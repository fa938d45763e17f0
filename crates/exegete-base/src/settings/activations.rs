//! Where activations that are trained on come from.

use std::path::PathBuf;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// How activations are kept on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum StoredAs {
    /// As they are
    #[default]
    F32,
    /// Half the bytes, three digits
    Bf16,
    /// A quarter of the bytes, with a scale for each token
    Int8,
}

impl StoredAs {
    /// Bytes of a value.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::Int8 => 1,
        }
    }
}

/// Where activations that are trained on come from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, clap::Args)]
pub struct ActivationSettings {
    /// Directory in which activations are kept, for other trainings too [default: in the run, and removed at its end]
    #[arg(long, value_name = "DIR")]
    pub activations: Option<PathBuf>,
    /// How activations are kept
    #[arg(long, value_enum, default_value_t = StoredAs::F32)]
    pub activations_dtype: StoredAs,
    /// Keep no activations: the model is run while dictionaries are trained, over each text once an epoch
    #[arg(long, conflicts_with_all = ["activations", "activations_dtype"])]
    pub stream: bool,
    /// Tokens that are mixed with each other; 0 mixes all, or 131072 of them with --stream
    #[arg(long, default_value_t = 0)]
    pub buffer_tokens: usize,
}

impl ActivationSettings {
    /// Tokens that are mixed, with 0 resolved; 0 for all.
    pub fn resolved_buffer_tokens(&self) -> usize {
        if self.stream && self.buffer_tokens == 0 { 1 << 17 } else { self.buffer_tokens }
    }
}
