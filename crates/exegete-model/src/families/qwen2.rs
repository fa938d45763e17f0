//! Qwen2 and Qwen2.5: Llama with biases on queries, keys and values, and a window in the upper layers if asked for.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, DECODER, LLAMA, Rule, Rules, decoder, set_windows};
use super::gguf_keys::GgufKeys;
use super::stored::in_gguf;
use super::{Family, Understood, llama};
use crate::Result;
use crate::spec::ModelSpec;
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family { model_type: "qwen2", from_config, gguf: Some(("qwen2", from_gguf)) };

/// Keys of Qwen's windows.
pub(super) const WINDOW_KEYS: Rules = &[
    ("use_sliding_window", Rule::Handled),
    ("sliding_window", Rule::Handled),
    ("max_window_layers", Rule::Handled),
    ("layer_types", Rule::Handled),
    ("use_mrope", Rule::Only("false")),
];

/// Windows as Qwen's configurations describe them: none unless `use_sliding_window`, then from `max_window_layers` on.
pub(super) fn set_qwen_windows(path: &Path, c: &Config, spec: &mut ModelSpec) -> Result<()> {
    let window = match c.flag_or("use_sliding_window", false)? {
        true => Some(c.size_or("sliding_window", 4096)?),
        false => None,
    };
    let first = c.size_or("max_window_layers", 28)?;
    set_windows(path, c, spec, window, |layer| layer >= first)
}

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[WINDOW_KEYS, DECODER])?;
    let mut spec = decoder(path, &c, "qwen2", &LLAMA)?;
    spec.biases.qkv = true;
    set_qwen_windows(path, &c, &mut spec)?;
    Ok(Understood { ignored: llama::IGNORED, ..Understood::new(spec, llama::in_hf) })
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &[])?;
    let mut spec = keys.decoder("qwen2", &LLAMA)?;
    spec.biases.qkv = true;
    Ok(Understood::new(spec, in_gguf))
}
