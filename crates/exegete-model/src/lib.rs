//! Language models with their insides open.
//!
//! [`Model::open`] reads a checkpoint (a Hugging Face directory, a `.gguf` file, a llama2.c `.bin`) into a
//! [`ModelSpec`] and weights. [`Model::run`] is the one forward pass: it visits every site of
//! `exegete_base::sites` with the [`Hooks`] given to it, which read and write ([`Edit`]).
//! Families differ in their [`ModelSpec`] alone; their files in [`families`] read keys and fill it in.
#![deny(missing_docs)]

mod batch;
mod block;
mod chat;
mod chat_limits;
pub mod edits;
mod error;
pub mod families;
mod forward;
mod generate;
mod gradients;
mod hooks;
mod kv;
mod load;
pub mod memory;
mod parts;
pub mod rope;
mod spec;
mod tokens;
pub mod weights;

pub use batch::{Batch, Spot};
pub use chat::{ChatTemplate, Message};
pub use error::ModelError;
pub use forward::Logits;
pub use generate::{GenerateOptions, Generation, Sampling, Stop};
pub use gradients::LinearGradient;
pub use hooks::{Edit, Hooks, Positions, Steps, site_named};
pub use kv::{KvCache, Prefix};
pub use load::Model;
pub use parts::{Part, Weight};
pub use spec::{Biases, LayerSpec, Mixture, Mlp, ModelSpec, Norm, NormPlaces, QkNorm};
pub use tokens::{Bos, Tokenizer};
pub use weights::{LoadOptions, Processing, Residence};

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, ModelError>;
