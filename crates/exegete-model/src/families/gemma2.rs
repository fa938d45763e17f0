//! Gemma 2 (Gemma Team 2024): Gemma with norms on both sides of attention and MLP, soft caps on scores and logits,
//! and a window in every other layer.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, DECODER, Rule, Rules, decoder, set_windows};
use super::gguf_keys::GgufKeys;
use super::stored::{HF, HF_SANDWICH, Stored, by_name, in_gguf};
use super::{Family, Understood, gemma};
use crate::Result;
use crate::parts::Weight;
use crate::spec::{Mlp, ModelSpec, NormPlaces};
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family { model_type: "gemma2", from_config, gguf: Some(("gemma2", from_gguf)) };

/// Keys of Gemma 2 that Gemma 3 has too.
pub(super) const KEYS: Rules = &[
    ("attention_bias", Rule::Handled),
    ("hidden_activation", Rule::Handled),
    ("query_pre_attn_scalar", Rule::Handled),
    ("sliding_window", Rule::Handled),
    ("sliding_window_size", Rule::Handled),
    ("layer_types", Rule::Handled),
    ("attn_logit_softcapping", Rule::Handled),
    ("final_logit_softcapping", Rule::Handled),
    ("use_bidirectional_attention", Rule::Only("false")),
];

/// Gains stored less one, norms on both sides.
pub(super) fn in_hf(spec: &ModelSpec, w: Weight) -> Stored {
    let names = if HF_SANDWICH.iter().any(|(part, _)| *part == w.part) { HF_SANDWICH } else { HF };
    Stored { plus: if gemma::is_gain(w.part) { 1.0 } else { 0.0 }, ..by_name(names, spec, w) }
}

/// Reads the keys that Gemma 2 and 3 share, but for the windows.
pub(super) fn read(path: &Path, c: &Config, family: &str, caps: (Option<f64>, Option<f64>)) -> Result<ModelSpec> {
    let mut spec = decoder(path, c, family, &gemma::DEFAULTS)?;
    // `hidden_act` is in published files too; transformers reads `hidden_activation` alone.
    spec.mlp = Mlp::Gated(c.act("hidden_activation", exegete_tensor::Act::GeluTanh)?);
    spec.norms = NormPlaces { before: true, behind: true };
    spec.embed_scale = gemma::embed_scale(&spec);
    let scale = 1.0 / (c.number_or("query_pre_attn_scalar", 256.0)? as f32).sqrt();
    spec.layers.iter_mut().for_each(|layer| layer.scale = scale);
    let bias = c.flag_or("attention_bias", false)?;
    (spec.biases.qkv, spec.biases.o) = (bias, bias);
    let cap = |key: &str, usual: Option<f64>| match c.is_null(key) {
        true => Ok(None),
        false => Ok::<_, crate::ModelError>(c.maybe_number(key)?.or(usual).map(|x| x as f32)),
    };
    spec.attn_soft_cap = cap("attn_logit_softcapping", caps.0)?;
    spec.logit_soft_cap = cap("final_logit_softcapping", caps.1)?;
    Ok(spec)
}

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS, DECODER])?;
    let mut spec = read(path, &c, "gemma2", (Some(50.0), Some(30.0)))?;
    let window = if c.is_null("sliding_window") { None } else { Some(c.size_or("sliding_window", 4096)?) };
    set_windows(path, &c, &mut spec, window, |layer| layer.is_multiple_of(2))?;
    Ok(Understood::new(spec, in_hf))
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &["attn_logit_softcapping", "final_logit_softcapping"])?;
    let mut spec = keys.decoder("gemma2", &gemma::DEFAULTS)?;
    spec.norms = NormPlaces { before: true, behind: true };
    spec.embed_scale = gemma::embed_scale(&spec);
    spec.attn_soft_cap = Some(keys.number_or("attn_logit_softcapping", 50.0)? as f32);
    spec.logit_soft_cap = Some(keys.number_or("final_logit_softcapping", 30.0)? as f32);
    // There is no key for the scores' factor; llama.cpp knows the one model (27B) that differs by its depth.
    if spec.n_layers == 46 {
        let scale = 1.0 / ((spec.d_model / spec.n_heads) as f32).sqrt();
        spec.layers.iter_mut().for_each(|layer| layer.scale = scale);
    }
    keys.set_windows(&mut spec, |layer| layer.is_multiple_of(2))?;
    Ok(Understood::new(spec, in_gguf))
}
