//! GPT-NeoX and Pythia (Black et al. 2022, Biderman et al. 2023): LayerNorm, attention and MLP in parallel, rotation of
//! a part of each head, queries, keys and values interleaved by head.

use std::path::Path;

use exegete_tensor::Act;
use serde_json::Value;

use super::config::{Config, Rule, Rules};
use super::gguf_keys::GgufKeys;
use super::rope_keys::{self, Around};
use super::stored::{Names, RowMap, Stored, by_name, in_gguf, slice, spell};
use super::{Family, Understood, gpt2};
use crate::parts::{Part, Weight};
use crate::rope::Rope;
use crate::spec::{Biases, Mlp, ModelSpec, Norm};
use crate::weights::gguf::Gguf;
use crate::{ModelError, Result};

pub(super) const FAMILY: Family = Family { model_type: "gpt_neox", from_config, gguf: Some(("gptneox", from_gguf)) };

const KEYS: Rules = &[
    ("hidden_size", Rule::Handled),
    ("intermediate_size", Rule::Handled),
    ("num_hidden_layers", Rule::Handled),
    ("num_attention_heads", Rule::Handled),
    ("hidden_act", Rule::Handled),
    ("vocab_size", Rule::Handled),
    ("max_position_embeddings", Rule::Handled),
    ("layer_norm_eps", Rule::Handled),
    ("rotary_pct", Rule::Handled),
    ("rotary_emb_base", Rule::Handled),
    // Other families' names for `rotary_emb_base` and `rotary_pct`, which this one does not read.
    ("rope_theta", Rule::Ignored),
    ("partial_rotary_factor", Rule::Ignored),
    ("rope_scaling", Rule::Handled),
    ("rope_parameters", Rule::Handled),
    ("use_parallel_residual", Rule::Handled),
    ("attention_bias", Rule::Handled),
    ("tie_word_embeddings", Rule::Handled),
    ("bos_token_id", Rule::Handled),
    ("eos_token_id", Rule::Handled),
    ("attention_dropout", Rule::Ignored),
    ("hidden_dropout", Rule::Ignored),
    ("classifier_dropout", Rule::Ignored),
];

const NAMES: Names = &[
    (Part::Embed, "gpt_neox.embed_in"),
    (Part::Norm1, "gpt_neox.layers.{}.input_layernorm"),
    (Part::O, "gpt_neox.layers.{}.attention.dense"),
    (Part::Norm2, "gpt_neox.layers.{}.post_attention_layernorm"),
    (Part::Up, "gpt_neox.layers.{}.mlp.dense_h_to_4h"),
    (Part::Down, "gpt_neox.layers.{}.mlp.dense_4h_to_h"),
    (Part::NormFinal, "gpt_neox.final_layer_norm"),
    (Part::Unembed, "embed_out"),
];

fn in_hf(spec: &ModelSpec, w: Weight) -> Stored {
    let from = match w.part {
        Part::Q => 0,
        Part::K => spec.d_head,
        Part::V => 2 * spec.d_head,
        _ => return by_name(NAMES, spec, w),
    };
    let mut shape = spec.weight_shape(w);
    shape[0] *= 3;
    let rows = RowMap::Heads { d_head: spec.d_head, stride: 3 * spec.d_head, from };
    Stored { rows, ..Stored::whole(spell("gpt_neox.layers.{}.attention.query_key_value", w), shape) }
}

fn fused_gguf(spec: &ModelSpec, w: Weight) -> Stored {
    match w.part {
        // llama.cpp's converter sorts the interleaved rows.
        Part::Q | Part::K | Part::V => slice(spec, w, "blk.{}.attn_qkv", gpt2::QKV),
        _ => in_gguf(spec, w),
    }
}

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS])?;
    let norm = Norm::Layer { eps: c.number_or("layer_norm_eps", 1e-5)? as f32 };
    let mlp = Mlp::Plain(c.act("hidden_act", Act::Gelu)?);
    let (d, n_heads) = (c.size("hidden_size")?, c.size("num_attention_heads")?);
    let plain = ModelSpec::plain("gpt_neox", c.size("num_hidden_layers")?, d, n_heads, norm, mlp);
    let mut spec = plain.map_err(|detail| ModelError::config(path, detail))?;
    spec.d_mlp = c.size("intermediate_size")?;
    spec.vocab_size = c.size("vocab_size")?;
    spec.max_positions = c.size_or("max_position_embeddings", 2048)?;
    spec.parallel = c.flag_or("use_parallel_residual", true)?;
    spec.tied = c.flag_or("tie_word_embeddings", false)?;
    spec.bos_id = c.ids("bos_token_id")?.first().copied();
    spec.eos_ids = c.ids("eos_token_id")?;
    let bias = c.flag_or("attention_bias", true)?;
    spec.biases = Biases { qkv: bias, o: bias, mlp: true, unembed: false };
    let around = Around {
        theta: c.number_or("rotary_emb_base", 10_000.0)?,
        d_head: spec.d_head,
        partial: c.number_or("rotary_pct", 0.25)?,
        max_positions: spec.max_positions,
        original: None,
    };
    spec.set_rope(rope_keys::read(path, &c, &around)?);
    let ignored = &["attention.bias", "attention.masked_bias", "rotary_emb.inv_freq"];
    Ok(Understood { ignored, ..Understood::new(spec, in_hf) })
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &["use_parallel_residual"])?;
    let (n_layers, d, n_heads) =
        (keys.size("block_count")?, keys.size("embedding_length")?, keys.size("attention.head_count")?);
    let norm = Norm::Layer { eps: keys.number_or("attention.layer_norm_epsilon", 1e-5)? as f32 };
    let plain = ModelSpec::plain("gpt_neox", n_layers, d, n_heads, norm, Mlp::Plain(Act::Gelu));
    let mut spec = plain.map_err(|detail| ModelError::config(path, detail))?;
    keys.sizes(&mut spec)?;
    spec.biases = Biases { qkv: true, o: true, mlp: true, unembed: false };
    spec.parallel = keys.flag_or("use_parallel_residual", true)?;
    let rotated = keys.rotated(spec.d_head)?;
    spec.set_rope(Rope::plain(keys.number_or("rope.freq_base", 10_000.0)?, rotated));
    Ok(Understood::new(spec, fused_gguf))
}
