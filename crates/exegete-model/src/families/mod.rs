//! Families of checkpoints: one file each, one line in [`FAMILIES`].
//!
//! A family reads `config.json` or GGUF metadata into a [`ModelSpec`] and says where its weights are stored. It runs
//! nothing.

pub mod config;
mod gemma;
mod gemma2;
mod gemma3;
mod gguf_keys;
mod gpt2;
mod gpt_neox;
mod llama;
mod mistral;
mod olmo2;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod rope_keys;
mod scratch;
mod smollm3;
pub mod stored;

use std::path::Path;

use self::stored::Stored;
use crate::parts::Weight;
use crate::spec::ModelSpec;
use crate::weights::gguf::Gguf;
use crate::{ModelError, Result};

pub(crate) use scratch::config_of_metadata;

/// A checkpoint as a family understood it.
#[derive(Debug, Clone)]
pub struct Understood {
    /// What the model is.
    pub spec: ModelSpec,
    /// Where each of its weights is stored.
    pub locate: fn(&ModelSpec, Weight) -> Stored,
    /// Beginnings that tensor names may lack or have more of; the first under which the embedding is found counts.
    pub roots: &'static [(&'static str, &'static str)],
    /// Tensors that carry nothing the forward pass needs, by a part of their name.
    pub ignored: &'static [&'static str],
}

impl Understood {
    /// With names as they are, and no tensor ignored.
    pub fn new(spec: ModelSpec, locate: fn(&ModelSpec, Weight) -> Stored) -> Self {
        Self { spec, locate, roots: &[], ignored: &[] }
    }
}

/// Reads a `config.json`.
type FromConfig = fn(&Path, &serde_json::Value) -> Result<Understood>;
/// Reads GGUF metadata.
type FromGguf = fn(&Path, &Gguf) -> Result<Understood>;

/// One line of the table of families.
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// Reads a `config.json`.
    pub from_config: FromConfig,
    /// `general.architecture` in GGUF, and how to read it, where llama.cpp writes the family under a name of its own.
    pub gguf: Option<(&'static str, FromGguf)>,
}

/// Every family that is understood.
pub const FAMILIES: &[Family] = &[
    gpt2::FAMILY,
    gpt_neox::FAMILY,
    llama::FAMILY,
    mistral::FAMILY,
    qwen2::FAMILY,
    qwen3::FAMILY,
    qwen3_moe::FAMILY,
    gemma::FAMILY,
    gemma2::FAMILY,
    gemma3::FAMILY,
    phi3::FAMILY,
    olmo2::FAMILY,
    smollm3::FAMILY,
    scratch::FAMILY,
];

/// Finds the family of a `config.json` and lets it read the rest.
///
/// # Errors
/// No family has this `model_type`, or the family refuses a key.
pub fn understand_config(path: &Path, config: &serde_json::Value) -> Result<Understood> {
    let found = config.get("model_type").and_then(|v| v.as_str());
    let family = FAMILIES.iter().find(|f| Some(f.model_type) == found).ok_or_else(|| {
        let known: Vec<_> = FAMILIES.iter().map(|f| f.model_type).collect();
        ModelError::config(path, format!("model_type {found:?} is not handled; handled are {}", known.join(", ")))
    })?;
    checked(path, (family.from_config)(path, config)?)
}

/// Finds the family of a GGUF file and lets it read the rest.
///
/// # Errors
/// No family has this architecture, or the family refuses a key.
pub fn understand_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let found = file.metadata.text("general.architecture");
    let lines = || FAMILIES.iter().filter_map(|f| f.gguf);
    let (_, from_gguf) = lines().find(|(name, _)| Some(*name) == found).ok_or_else(|| {
        let known: Vec<_> = lines().map(|(name, _)| name).collect();
        let detail = format!("general.architecture {found:?} is not handled; handled are {}", known.join(", "));
        ModelError::config(path, detail)
    })?;
    checked(path, from_gguf(path, file)?)
}

/// A llama2.c checkpoint, whose header is all there is.
///
/// # Errors
/// Sizes that make no model.
pub fn understand_llama2c(path: &Path, spec: ModelSpec) -> Result<Understood> {
    checked(path, Understood::new(spec, llama::in_pairs))
}

fn checked(path: &Path, understood: Understood) -> Result<Understood> {
    understood.spec.check().map_err(|detail| ModelError::config(path, detail))?;
    Ok(understood)
}
