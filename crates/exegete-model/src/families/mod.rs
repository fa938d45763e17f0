//! Families of checkpoints: one file each, one line in [`FAMILIES`].
//!
//! A family reads `config.json` or GGUF metadata into a [`ModelSpec`] and names the tensors. It runs nothing.

pub mod config;
mod llama;

use std::path::Path;

use crate::spec::ModelSpec;
use crate::weights::gguf::Metadata;
use crate::{ModelError, Result};

/// How the tensors of a checkpoint are named; `{}` stands for the layer.
#[derive(Debug, Clone, Copy)]
pub struct Names {
    /// `[vocab, d_model]`
    pub embed: &'static str,
    /// `[d_model]`
    pub norm1: &'static str,
    /// `[n_heads * d_head, d_model]`
    pub q: &'static str,
    /// `[n_kv_heads * d_head, d_model]`
    pub k: &'static str,
    /// `[n_kv_heads * d_head, d_model]`
    pub v: &'static str,
    /// `[d_model, n_heads * d_head]`
    pub o: &'static str,
    /// `[d_model]`
    pub norm2: &'static str,
    /// `[d_mlp, d_model]`
    pub gate: &'static str,
    /// `[d_mlp, d_model]`
    pub up: &'static str,
    /// `[d_model, d_mlp]`
    pub down: &'static str,
    /// `[d_model]`
    pub norm_final: &'static str,
    /// `[vocab, d_model]`
    pub unembed: &'static str,
    /// Tensors that carry nothing the forward pass needs, by a part of their name.
    pub ignored: &'static [&'static str],
    /// Whether rows of q and k are stored in pairs (2i, 2i + 1) rather than halves (i, i + d_head / 2).
    pub qk_rows_in_pairs: bool,
}

/// A checkpoint as a family understood it.
#[derive(Debug, Clone)]
pub struct Understood {
    /// What the model is.
    pub spec: ModelSpec,
    /// How its tensors are named.
    pub names: Names,
}

/// One line of the table of families.
pub struct Family {
    /// `model_type` in `config.json`.
    pub model_type: &'static str,
    /// `general.architecture` in GGUF.
    pub gguf_architecture: &'static str,
    /// Reads a `config.json`.
    pub from_config: fn(&Path, &serde_json::Value) -> Result<Understood>,
    /// Reads GGUF metadata.
    pub from_gguf: fn(&Path, &Metadata) -> Result<Understood>,
}

/// Every family that is understood.
pub const FAMILIES: &[Family] = &[llama::FAMILY];

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
pub fn understand_gguf(path: &Path, metadata: &Metadata) -> Result<Understood> {
    let found = metadata.text("general.architecture");
    let family = FAMILIES.iter().find(|f| Some(f.gguf_architecture) == found).ok_or_else(|| {
        let known: Vec<_> = FAMILIES.iter().map(|f| f.gguf_architecture).collect();
        let detail = format!("general.architecture {found:?} is not handled; handled are {}", known.join(", "));
        ModelError::config(path, detail)
    })?;
    checked(path, (family.from_gguf)(path, metadata)?)
}

/// A llama2.c checkpoint, whose header is all there is.
///
/// # Errors
/// Sizes that make no model.
pub fn understand_llama2c(path: &Path, spec: ModelSpec) -> Result<Understood> {
    checked(path, Understood { spec, names: llama::HF_NAMES })
}

fn checked(path: &Path, understood: Understood) -> Result<Understood> {
    understood.spec.check().map_err(|detail| ModelError::config(path, detail))?;
    Ok(understood)
}
