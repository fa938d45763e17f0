//! SmolLM3 (Hugging Face 2025): Llama in which some layers do not rotate their queries and keys (NoPE).

use std::path::Path;

use serde_json::Value;

use super::config::{Config, DECODER, Defaults, LLAMA, Rule, Rules, decoder, set_windows};
use super::gguf_keys::GgufKeys;
use super::{Family, Understood, llama};
use crate::Result;
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family { model_type: "smollm3", from_config, gguf: Some(("smollm3", from_gguf)) };

const KEYS: Rules = &[
    ("attention_bias", Rule::Handled),
    ("mlp_bias", Rule::Handled),
    ("no_rope_layers", Rule::Handled),
    ("no_rope_layer_interval", Rule::Handled),
    ("use_sliding_window", Rule::Handled),
    ("sliding_window", Rule::Handled),
    ("layer_types", Rule::Handled),
    // Written by the checkpoint; transformers does not read it.
    ("max_window_layers", Rule::Ignored),
    ("pretraining_tp", Rule::Ignored),
];
const DEFAULTS: Defaults = Defaults { tied: true, theta: 2_000_000.0, ..LLAMA };

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS, DECODER])?;
    let mut spec = decoder(path, &c, "smollm3", &DEFAULTS)?;
    spec.n_kv_heads = c.size_or("num_key_value_heads", 4)?;
    let bias = c.flag_or("attention_bias", false)?;
    (spec.biases.qkv, spec.biases.o, spec.biases.mlp) = (bias, bias, c.flag_or("mlp_bias", false)?);
    let interval = c.size_or("no_rope_layer_interval", 4)?.max(1);
    // In spite of its name, the list holds 1 for the layers that rotate.
    let rotates = match c.sizes("no_rope_layers")? {
        Some(list) if list.len() != spec.n_layers => {
            return Err(c.refuse("no_rope_layers", "a list of 0 and 1 with one entry for each layer"));
        }
        Some(list) => list.into_iter().map(|x| x != 0).collect::<Vec<_>>(),
        None => (0..spec.n_layers).map(|l| !(l + 1).is_multiple_of(interval)).collect(),
    };
    for (layer, rotates) in spec.layers.iter_mut().zip(&rotates) {
        layer.rope = layer.rope.filter(|_| *rotates);
    }
    let window = match c.flag_or("use_sliding_window", false)? {
        true => c.maybe_size("sliding_window")?,
        false => None,
    };
    set_windows(path, &c, &mut spec, window, |layer| !rotates[layer])?;
    Ok(Understood::new(spec, llama::in_hf))
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &[])?;
    let mut spec = keys.decoder("smollm3", &DEFAULTS)?;
    // There is no key for this; llama.cpp leaves every fourth layer unrotated.
    for (l, layer) in spec.layers.iter_mut().enumerate() {
        layer.rope = layer.rope.filter(|_| !(l + 1).is_multiple_of(4));
    }
    Ok(Understood::new(spec, llama::in_gguf_pairs))
}
