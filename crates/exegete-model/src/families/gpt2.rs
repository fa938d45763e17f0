//! GPT-2 (Radford et al. 2019): LayerNorm, learned positions, fused projections stored `[in, out]`, a plain GELU MLP.

use std::path::Path;

use exegete_tensor::Act;
use serde_json::Value;

use super::config::{Config, Rule, Rules};
use super::gguf_keys::GgufKeys;
use super::stored::{Names, RowMap, Stored, by_name, in_gguf, slice};
use super::{Family, Understood};
use crate::parts::{Part, Weight};
use crate::spec::{Biases, Mlp, ModelSpec, Norm};
use crate::weights::gguf::Gguf;
use crate::{ModelError, Result};

pub(super) const FAMILY: Family = Family { model_type: "gpt2", from_config, gguf: Some(("gpt2", from_gguf)) };

const KEYS: Rules = &[
    ("n_embd", Rule::Handled),
    ("n_layer", Rule::Handled),
    ("n_head", Rule::Handled),
    ("n_positions", Rule::Handled),
    ("n_inner", Rule::Handled),
    ("vocab_size", Rule::Handled),
    ("activation_function", Rule::Handled),
    ("layer_norm_epsilon", Rule::Handled),
    ("scale_attn_weights", Rule::Handled),
    ("scale_attn_by_inverse_layer_idx", Rule::Handled),
    ("tie_word_embeddings", Rule::Handled),
    ("bos_token_id", Rule::Handled),
    ("eos_token_id", Rule::Handled),
    // The context of the first release; positions are what `n_positions` says.
    ("n_ctx", Rule::Ignored),
    // Changes the order of roundings in half precision only.
    ("reorder_and_upcast_attn", Rule::Ignored),
    ("attn_pdrop", Rule::Ignored),
    ("embd_pdrop", Rule::Ignored),
    ("resid_pdrop", Rule::Ignored),
    ("summary_activation", Rule::Ignored),
    ("summary_first_dropout", Rule::Ignored),
    ("summary_proj_to_labels", Rule::Ignored),
    ("summary_type", Rule::Ignored),
    ("summary_use_proj", Rule::Ignored),
    ("gradient_checkpointing", Rule::Ignored),
];

const NAMES: Names = &[
    (Part::Embed, "transformer.wte"),
    (Part::PosEmbed, "transformer.wpe"),
    (Part::Norm1, "transformer.h.{}.ln_1"),
    (Part::O, "transformer.h.{}.attn.c_proj"),
    (Part::Norm2, "transformer.h.{}.ln_2"),
    (Part::Up, "transformer.h.{}.mlp.c_fc"),
    (Part::Down, "transformer.h.{}.mlp.c_proj"),
    (Part::NormFinal, "transformer.ln_f"),
    (Part::Unembed, "lm_head"),
];
pub(super) const QKV: &[Part] = &[Part::Q, Part::K, Part::V];

fn in_hf(spec: &ModelSpec, w: Weight) -> Stored {
    let mut stored = match w.part {
        Part::Q | Part::K | Part::V => slice(spec, w, "transformer.h.{}.attn.c_attn", QKV),
        _ => by_name(NAMES, spec, w),
    };
    if matches!(w.part, Part::Q | Part::K | Part::V | Part::O | Part::Up | Part::Down) && !w.bias {
        stored.shape.reverse();
        stored.transposed = true;
    }
    stored
}

fn fused_gguf(spec: &ModelSpec, w: Weight) -> Stored {
    match w.part {
        Part::Q | Part::K | Part::V => slice(spec, w, "blk.{}.attn_qkv", QKV),
        _ => Stored { rows: RowMap::From(0), ..in_gguf(spec, w) },
    }
}

/// What every GPT-2 has, whatever file it comes from.
pub(super) fn shape(spec: &mut ModelSpec) {
    spec.learned_positions = true;
    spec.biases = Biases { qkv: true, o: true, mlp: true, unembed: false };
}

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS])?;
    let (d, n_layers, n_heads) = (c.size_or("n_embd", 768)?, c.size_or("n_layer", 12)?, c.size_or("n_head", 12)?);
    let norm = Norm::Layer { eps: c.number_or("layer_norm_epsilon", 1e-5)? as f32 };
    let mlp = Mlp::Plain(c.act("activation_function", Act::GeluTanh)?);
    let plain = ModelSpec::plain("gpt2", n_layers, d, n_heads, norm, mlp);
    let mut spec = plain.map_err(|detail| ModelError::config(path, detail))?;
    shape(&mut spec);
    spec.d_mlp = c.size_or("n_inner", 4 * d)?;
    spec.vocab_size = c.size_or("vocab_size", 50_257)?;
    spec.max_positions = c.size_or("n_positions", 1024)?;
    spec.tied = c.flag_or("tie_word_embeddings", true)?;
    spec.bos_id = c.ids("bos_token_id")?.first().copied();
    spec.eos_ids = c.ids("eos_token_id")?;
    let (scaled, by_layer) =
        (c.flag_or("scale_attn_weights", true)?, c.flag_or("scale_attn_by_inverse_layer_idx", false)?);
    for (l, layer) in spec.layers.iter_mut().enumerate() {
        let scale = if scaled { layer.scale } else { 1.0 };
        layer.scale = if by_layer { scale / (l + 1) as f32 } else { scale };
    }
    // The hub's files drop the root; later ones keep it.
    let roots: &[(&str, &str)] = &[("", ""), ("transformer.", "")];
    Ok(Understood { roots, ignored: &[".attn.bias", ".attn.masked_bias"], ..Understood::new(spec, in_hf) })
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &[])?;
    let (n_layers, d, n_heads) =
        (keys.size("block_count")?, keys.size("embedding_length")?, keys.size("attention.head_count")?);
    let norm = Norm::Layer { eps: keys.number_or("attention.layer_norm_epsilon", 1e-5)? as f32 };
    let plain = ModelSpec::plain("gpt2", n_layers, d, n_heads, norm, Mlp::Plain(Act::GeluTanh));
    let mut spec = plain.map_err(|detail| ModelError::config(path, detail))?;
    shape(&mut spec);
    keys.sizes(&mut spec)?;
    Ok(Understood::new(spec, fused_gguf))
}
