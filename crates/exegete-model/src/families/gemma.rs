//! Gemma 1 (Gemma Team 2024): scaled embeddings, gains stored less one, a GELU-gated MLP, wide heads.

use std::path::Path;

use exegete_tensor::Act;
use serde_json::Value;

use super::config::{Config, DECODER, Defaults, Rule, Rules, decoder};
use super::gguf_keys::GgufKeys;
use super::stored::{HF, Stored, by_name, in_gguf};
use super::{Family, Understood};
use crate::Result;
use crate::parts::{Part, Weight};
use crate::spec::{Mlp, ModelSpec};
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family { model_type: "gemma", from_config, gguf: Some(("gemma", from_gguf)) };

const KEYS: Rules = &[
    ("attention_bias", Rule::Handled),
    // Written later beside `hidden_act`; transformers does not read it.
    ("hidden_activation", Rule::Ignored),
    ("use_bidirectional_attention", Rule::Only("false")),
];

/// What missing keys mean to the Gemmas.
pub(super) const DEFAULTS: Defaults =
    Defaults { eps: 1e-6, theta: 10_000.0, d_head: Some(256), tied: true, act: Act::GeluTanh };

/// Whether a weight is a gain, which these families store less one.
pub(super) fn is_gain(part: Part) -> bool {
    use Part::*;
    matches!(part, Norm1 | NormAttn | Norm2 | NormMlp | NormFinal | QNorm | KNorm)
}

fn in_hf(spec: &ModelSpec, w: Weight) -> Stored {
    Stored { plus: if is_gain(w.part) { 1.0 } else { 0.0 }, ..by_name(HF, spec, w) }
}

/// The embedding's factor: the root of the width.
pub(super) fn embed_scale(spec: &ModelSpec) -> f32 {
    (spec.d_model as f32).sqrt()
}

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS, DECODER])?;
    let mut spec = decoder(path, &c, "gemma", &DEFAULTS)?;
    // Published files say `"hidden_act": "gelu"` and mean the tanh form, which is what transformers runs.
    if spec.mlp.act() == Act::Gelu {
        spec.mlp = Mlp::Gated(Act::GeluTanh);
    }
    spec.embed_scale = embed_scale(&spec);
    let bias = c.flag_or("attention_bias", false)?;
    (spec.biases.qkv, spec.biases.o) = (bias, bias);
    Ok(Understood::new(spec, in_hf))
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &[])?;
    let mut spec = keys.decoder("gemma", &DEFAULTS)?;
    spec.embed_scale = embed_scale(&spec);
    // llama.cpp's converter adds the one to the gains.
    Ok(Understood::new(spec, in_gguf))
}
