//! Llama: RMSNorm, rotary positions, grouped-query attention, SwiGLU (Touvron et al. 2023), and what follows it
//! to the letter, such as SmolLM and SmolLM2.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, Rule, Rules};
use super::{Family, Names, Understood};
use crate::spec::{Mlp, ModelSpec, Norm, Rope};
use crate::weights::gguf::Metadata;
use crate::{ModelError, Result};

pub(super) const FAMILY: Family = Family { model_type: "llama", gguf_architecture: "llama", from_config, from_gguf };

const KEYS: Rules = &[
    ("hidden_size", Rule::Handled),
    ("intermediate_size", Rule::Handled),
    ("num_hidden_layers", Rule::Handled),
    ("num_attention_heads", Rule::Handled),
    ("num_key_value_heads", Rule::Handled),
    ("head_dim", Rule::Handled),
    ("vocab_size", Rule::Handled),
    ("max_position_embeddings", Rule::Handled),
    ("rms_norm_eps", Rule::Handled),
    ("rope_theta", Rule::Handled),
    ("rope_parameters", Rule::Handled),
    ("tie_word_embeddings", Rule::Handled),
    ("bos_token_id", Rule::Handled),
    ("eos_token_id", Rule::Handled),
    ("hidden_act", Rule::Only("\"silu\"")),
    ("rope_scaling", Rule::Only("null")),
    ("attention_bias", Rule::Only("false")),
    ("mlp_bias", Rule::Only("false")),
    ("attention_dropout", Rule::Ignored),
    ("pretraining_tp", Rule::Ignored),
    ("rope_interleaved", Rule::Only("false")),
];

const ROPE_KEYS: Rules = &[("rope_theta", Rule::Handled), ("rope_type", Rule::Only("\"default\""))];

pub(super) const HF_NAMES: Names = Names {
    embed: "model.embed_tokens.weight",
    norm1: "model.layers.{}.input_layernorm.weight",
    q: "model.layers.{}.self_attn.q_proj.weight",
    k: "model.layers.{}.self_attn.k_proj.weight",
    v: "model.layers.{}.self_attn.v_proj.weight",
    o: "model.layers.{}.self_attn.o_proj.weight",
    norm2: "model.layers.{}.post_attention_layernorm.weight",
    gate: "model.layers.{}.mlp.gate_proj.weight",
    up: "model.layers.{}.mlp.up_proj.weight",
    down: "model.layers.{}.mlp.down_proj.weight",
    norm_final: "model.norm.weight",
    unembed: "lm_head.weight",
    ignored: &["rotary_emb.inv_freq"],
    qk_rows_in_pairs: false,
};

const GGUF_NAMES: Names = Names {
    embed: "token_embd.weight",
    norm1: "blk.{}.attn_norm.weight",
    q: "blk.{}.attn_q.weight",
    k: "blk.{}.attn_k.weight",
    v: "blk.{}.attn_v.weight",
    o: "blk.{}.attn_output.weight",
    norm2: "blk.{}.ffn_norm.weight",
    gate: "blk.{}.ffn_gate.weight",
    up: "blk.{}.ffn_up.weight",
    down: "blk.{}.ffn_down.weight",
    norm_final: "output_norm.weight",
    unembed: "output.weight",
    ignored: &[],
    // llama.cpp stores this architecture's q and k for rotation of neighbouring pairs.
    qk_rows_in_pairs: true,
};

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, KEYS)?;
    let (d_model, n_heads) = (c.size("hidden_size")?, c.size("num_attention_heads")?);
    if n_heads == 0 {
        return Err(ModelError::config(path, "key \"num_attention_heads\" must be at least 1"));
    }
    let d_head = c.size_or("head_dim", d_model / n_heads)?;
    let old_theta = c.number_or("rope_theta", 10_000.0)?;
    let theta = match c.nested("rope_parameters", ROPE_KEYS)? {
        Some(rope) => rope.number_or("rope_theta", old_theta)?,
        None => old_theta,
    };
    let spec = ModelSpec {
        family: "llama".into(),
        n_layers: c.size("num_hidden_layers")?,
        d_model,
        n_heads,
        n_kv_heads: c.size_or("num_key_value_heads", n_heads)?,
        d_head,
        d_mlp: c.size("intermediate_size")?,
        vocab_size: c.size("vocab_size")?,
        max_positions: c.size_or("max_position_embeddings", 2048)?,
        norm: Norm::Rms { eps: c.number_or("rms_norm_eps", 1e-6)? as f32 },
        mlp: Mlp::GatedSilu,
        rope: Rope::plain(theta, d_head),
        tied: c.flag_or("tie_word_embeddings", false)?,
        bos_id: c.ids("bos_token_id")?.first().copied(),
        eos_ids: c.ids("eos_token_id")?,
    };
    Ok(Understood { spec, names: HF_NAMES })
}

/// Keys of `llama.*` that are read or change nothing.
const GGUF_KEYS: &[&str] = &[
    "llama.block_count",
    "llama.context_length",
    "llama.embedding_length",
    "llama.feed_forward_length",
    "llama.attention.head_count",
    "llama.attention.head_count_kv",
    "llama.attention.key_length",
    "llama.attention.value_length",
    "llama.attention.layer_norm_rms_epsilon",
    "llama.rope.freq_base",
    "llama.rope.dimension_count",
    "llama.vocab_size",
];

fn from_gguf(path: &Path, m: &Metadata) -> Result<Understood> {
    if let Some(key) = m.keys().find(|k| k.starts_with("llama.") && !GGUF_KEYS.contains(k)) {
        let detail = format!("metadata key {key:?} is not known, and may change what the model computes");
        return Err(ModelError::config(path, detail));
    }
    let missing = |key: &str| ModelError::config(path, format!("metadata key {key:?} must be a whole number"));
    let size = |key: &str| m.size(key).ok_or_else(|| missing(key));
    let (d_model, n_heads) = (size("llama.embedding_length")?, size("llama.attention.head_count")?);
    if n_heads == 0 {
        return Err(ModelError::config(path, "metadata key \"llama.attention.head_count\" must be at least 1"));
    }
    let d_head = m.size("llama.attention.key_length").unwrap_or(d_model / n_heads);
    for key in ["llama.rope.dimension_count", "llama.attention.value_length"] {
        if m.size(key).is_some_and(|n| n != d_head) {
            return Err(ModelError::config(
                path,
                format!("{key} differs from the head width {d_head}, which is not handled"),
            ));
        }
    }
    let vocab_size = m
        .size("llama.vocab_size")
        .or_else(|| m.list_len("tokenizer.ggml.tokens"))
        .ok_or_else(|| missing("llama.vocab_size"))?;
    let id = |key: &str| m.size(key).and_then(|v| u32::try_from(v).ok());
    let spec = ModelSpec {
        family: "llama".into(),
        n_layers: size("llama.block_count")?,
        d_model,
        n_heads,
        n_kv_heads: m.size("llama.attention.head_count_kv").unwrap_or(n_heads),
        d_head,
        d_mlp: size("llama.feed_forward_length")?,
        vocab_size,
        max_positions: m.size("llama.context_length").unwrap_or(2048),
        norm: Norm::Rms { eps: m.number("llama.attention.layer_norm_rms_epsilon").unwrap_or(1e-5) as f32 },
        mlp: Mlp::GatedSilu,
        rope: Rope::plain(m.number("llama.rope.freq_base").unwrap_or(10_000.0), d_head),
        tied: !m.has_tensor(GGUF_NAMES.unembed),
        bos_id: id("tokenizer.ggml.bos_token_id"),
        eos_ids: id("tokenizer.ggml.eos_token_id").into_iter().collect(),
    };
    Ok(Understood { spec, names: GGUF_NAMES })
}
