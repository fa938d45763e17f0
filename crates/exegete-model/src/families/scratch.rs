//! GPTs written from scratch, as teaching code trains them: minGPT, nanoGPT-like modules, and the lecture model with a
//! matrix for each head. They have no `config.json` of their own; the sizes come from one that says
//! `"model_type": "scratch"`, or from the metadata of their safetensors file.

use std::path::Path;

use exegete_tensor::Act;
use serde_json::{Map, Value, json};

use super::config::{Config, Rule, Rules};
use super::stored::{Names, Stored, by_name, slice};
use super::{Family, Understood, gpt2};
use crate::parts::{Part, Weight};
use crate::spec::{Biases, Mlp, ModelSpec, Norm};
use crate::weights::{SafetensorsDir, WeightSource};
use crate::{ModelError, Result};

pub(super) const FAMILY: Family = Family { model_type: "scratch", from_config, gguf: None };

const KEYS: Rules = &[
    ("layout", Rule::Handled),
    ("n_layer", Rule::Handled),
    ("n_head", Rule::Handled),
    ("n_embd", Rule::Handled),
    ("block_size", Rule::Handled),
    ("vocab_size", Rule::Handled),
    ("attn_scale", Rule::Handled),
    ("tied", Rule::Handled),
    ("qkv_bias", Rule::Handled),
    ("activation", Rule::Handled),
    ("layer_norm_epsilon", Rule::Handled),
    ("attn_pdrop", Rule::Ignored),
    ("embd_pdrop", Rule::Ignored),
    ("resid_pdrop", Rule::Ignored),
    ("dropout", Rule::Ignored),
];

/// A way in which such models name their tensors: a tensor that only it has, its names, and what else goes with it.
struct Layout {
    name: &'static str,
    mark: &'static str,
    locate: fn(&ModelSpec, Weight) -> Stored,
    act: Act,
    tied: bool,
    biases: Biases,
}

const LAYOUTS: &[Layout] = &[
    Layout {
        name: "mingpt",
        mark: "transformer.h.0.attn.c_attn.weight",
        locate: mingpt,
        act: Act::GeluTanh,
        tied: false,
        biases: Biases { qkv: true, o: true, mlp: true, unembed: false },
    },
    Layout {
        name: "blocks",
        mark: "blocks.0.attn.c_attn.weight",
        locate: blocks,
        act: Act::Gelu,
        tied: true,
        biases: Biases { qkv: true, o: true, mlp: true, unembed: false },
    },
    Layout {
        name: "lecture",
        mark: "blocks.0.sa.heads.0.key.weight",
        locate: lecture,
        act: Act::Relu,
        tied: false,
        biases: Biases { qkv: false, o: true, mlp: true, unembed: true },
    },
];

const MINGPT: Names = &[
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

const BLOCKS: Names = &[
    (Part::Embed, "tok_emb"),
    (Part::PosEmbed, "pos_emb"),
    (Part::Norm1, "blocks.{}.ln_1"),
    (Part::O, "blocks.{}.attn.c_proj"),
    (Part::Norm2, "blocks.{}.ln_2"),
    (Part::Up, "blocks.{}.mlp.c_fc"),
    (Part::Down, "blocks.{}.mlp.c_proj"),
    (Part::NormFinal, "ln_f"),
    (Part::Unembed, "head"),
];

const LECTURE: Names = &[
    (Part::Embed, "token_embedding_table"),
    (Part::PosEmbed, "position_embedding_table"),
    (Part::Norm1, "blocks.{}.ln1"),
    (Part::Q, "blocks.{}.sa.heads.{h}.query"),
    (Part::K, "blocks.{}.sa.heads.{h}.key"),
    (Part::V, "blocks.{}.sa.heads.{h}.value"),
    (Part::O, "blocks.{}.sa.proj"),
    (Part::Norm2, "blocks.{}.ln2"),
    (Part::Up, "blocks.{}.ffwd.net.0"),
    (Part::Down, "blocks.{}.ffwd.net.2"),
    (Part::NormFinal, "ln_f"),
    (Part::Unembed, "lm_head"),
];

fn mingpt(spec: &ModelSpec, w: Weight) -> Stored {
    match w.part {
        Part::Q | Part::K | Part::V => slice(spec, w, "transformer.h.{}.attn.c_attn", gpt2::QKV),
        _ => by_name(MINGPT, spec, w),
    }
}

fn blocks(spec: &ModelSpec, w: Weight) -> Stored {
    match w.part {
        Part::Q | Part::K | Part::V => slice(spec, w, "blocks.{}.attn.c_attn", gpt2::QKV),
        _ => by_name(BLOCKS, spec, w),
    }
}

fn lecture(spec: &ModelSpec, w: Weight) -> Stored {
    let mut stored = by_name(LECTURE, spec, w);
    if matches!(w.part, Part::Q | Part::K | Part::V) {
        let pattern = stored.tensors.remove(0);
        stored.tensors = (0..spec.n_heads).map(|h| pattern.replace("{h}", &h.to_string())).collect();
        stored.shape[0] = spec.d_head;
    }
    stored
}

/// The configuration of a directory without `config.json` whose weights' metadata has the sizes.
pub(crate) fn config_of_metadata(source: &SafetensorsDir) -> Option<Value> {
    let layout = LAYOUTS.iter().find(|l| source.has(l.mark))?;
    let mut config = Map::from_iter([
        ("model_type".to_owned(), json!("scratch")),
        ("layout".to_owned(), json!(layout.name)),
        ("tied".to_owned(), json!(layout.tied)),
        ("qkv_bias".to_owned(), json!(source.has(&layout.mark.replace(".weight", ".bias")))),
    ]);
    for (key, text) in source.metadata() {
        let known = KEYS.iter().any(|(name, _)| name == key) && !config.contains_key(key);
        // Names of presets and notes about the file say nothing about the forward pass that the sizes do not say.
        if known {
            config.insert(key.clone(), serde_json::from_str(text).unwrap_or_else(|_| json!(text)));
        }
    }
    Some(config.into())
}

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS])?;
    let name = c.text("layout")?.unwrap_or("mingpt");
    let layout = LAYOUTS.iter().find(|l| l.name == name).ok_or_else(|| {
        let known: Vec<_> = LAYOUTS.iter().map(|l| l.name).collect();
        c.refuse("layout", &format!("one of {}", known.join(", ")))
    })?;
    let (d, n_heads) = (c.size("n_embd")?, c.size("n_head")?);
    let norm = Norm::Layer { eps: c.number_or("layer_norm_epsilon", 1e-5)? as f32 };
    let mlp = Mlp::Plain(c.act("activation", layout.act)?);
    let plain = ModelSpec::plain("scratch", c.size("n_layer")?, d, n_heads, norm, mlp);
    let mut spec = plain.map_err(|detail| ModelError::config(path, detail))?;
    spec.learned_positions = true;
    spec.biases = layout.biases;
    spec.biases.qkv = c.flag_or("qkv_bias", layout.biases.qkv)?;
    spec.vocab_size = c.size("vocab_size")?;
    spec.max_positions = c.size("block_size")?;
    spec.tied = c.flag_or("tied", layout.tied)?;
    let scale = match c.text("attn_scale")? {
        None | Some("d_head**-0.5") => None,
        // The lecture model divides by the root of the whole width instead of a head's.
        Some("n_embd**-0.5") => Some(1.0 / (d as f32).sqrt()),
        Some(_) => return Err(c.refuse("attn_scale", "\"d_head**-0.5\" or \"n_embd**-0.5\"")),
    };
    spec.layers.iter_mut().for_each(|layer| layer.scale = scale.unwrap_or(layer.scale));
    // Masks that some of these modules keep as buffers.
    let ignored = &[".attn.bias", ".attn.mask", ".tril"];
    Ok(Understood { ignored, ..Understood::new(spec, layout.locate) })
}
