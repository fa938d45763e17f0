//! Llama 1 to 3.x: RMSNorm, rotary positions, grouped-query attention, SwiGLU (Touvron et al. 2023), and what follows
//! it to the letter, such as SmolLM and SmolLM2.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, DECODER, LLAMA, Rule, Rules, decoder};
use super::gguf_keys::GgufKeys;
use super::stored::{HF, RowMap, Stored, by_name, in_gguf};
use super::{Family, Understood};
use crate::Result;
use crate::parts::{Part, Weight};
use crate::spec::ModelSpec;
use crate::weights::WeightSource;
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family { model_type: "llama", from_config, gguf: Some(("llama", from_gguf)) };

const KEYS: Rules = &[
    ("attention_bias", Rule::Handled),
    ("mlp_bias", Rule::Handled),
    ("pretraining_tp", Rule::Ignored),
    ("rope_interleaved", Rule::Only("false")),
];

/// Tables of angles that old checkpoints carry along.
pub(super) const IGNORED: &[&str] = &["rotary_emb.inv_freq"];

/// Hugging Face's layout.
pub(super) fn in_hf(spec: &ModelSpec, w: Weight) -> Stored {
    by_name(HF, spec, w)
}

/// Hugging Face's names, queries and keys stored for rotation of neighbouring pairs (llama2.c).
pub(super) fn in_pairs(spec: &ModelSpec, w: Weight) -> Stored {
    paired(spec, w, in_hf(spec, w))
}

/// llama.cpp's layout of this architecture: queries and keys stored for rotation of neighbouring pairs.
pub(super) fn in_gguf_pairs(spec: &ModelSpec, w: Weight) -> Stored {
    paired(spec, w, in_gguf(spec, w))
}

fn paired(spec: &ModelSpec, w: Weight, stored: Stored) -> Stored {
    match w.part {
        Part::Q | Part::K => Stored { rows: RowMap::Pairs { d_head: spec.d_head }, ..stored },
        _ => stored,
    }
}

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS, DECODER])?;
    let mut spec = decoder(path, &c, "llama", &LLAMA)?;
    let bias = c.flag_or("attention_bias", false)?;
    (spec.biases.qkv, spec.biases.o, spec.biases.mlp) = (bias, bias, c.flag_or("mlp_bias", false)?);
    Ok(Understood { ignored: IGNORED, ..Understood::new(spec, in_hf) })
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &["expert_count", "expert_used_count"])?;
    let mut spec = keys.decoder("llama", &LLAMA)?;
    keys.only("expert_count", 0)?;
    keys.only("expert_used_count", 0)?;
    (spec.biases.qkv, spec.biases.o) = (file.has("blk.0.attn_q.bias"), file.has("blk.0.attn_output.bias"));
    spec.biases.mlp = file.has("blk.0.ffn_up.bias");
    keys.set_windows(&mut spec, |_| true)?;
    Ok(Understood { ignored: &["rope_freqs.weight"], ..Understood::new(spec, in_gguf_pairs) })
}
