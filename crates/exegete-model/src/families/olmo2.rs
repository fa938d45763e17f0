//! OLMo 2 (OLMo Team 2024): norms behind attention and MLP only, queries and keys normalised over all heads together.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, DECODER, Defaults, LLAMA, Rule, Rules, decoder};
use super::gguf_keys::GgufKeys;
use super::stored::{HF, Names, Stored, by_name, in_gguf};
use super::{Family, Understood};
use crate::Result;
use crate::parts::{Part, Weight};
use crate::spec::{ModelSpec, NormPlaces, QkNorm};
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family { model_type: "olmo2", from_config, gguf: Some(("olmo2", from_gguf)) };

const KEYS: Rules = &[("attention_bias", Rule::Handled)];
const DEFAULTS: Defaults = Defaults { eps: 1e-5, ..LLAMA };
const OWN: Names = &[
    (Part::NormAttn, "model.layers.{}.post_attention_layernorm"),
    (Part::NormMlp, "model.layers.{}.post_feedforward_layernorm"),
];

fn in_hf(spec: &ModelSpec, w: Weight) -> Stored {
    by_name(if OWN.iter().any(|(part, _)| *part == w.part) { OWN } else { HF }, spec, w)
}

fn shape(spec: &mut ModelSpec) {
    spec.norms = NormPlaces { before: false, behind: true };
    spec.qk_norm = QkNorm::Flat;
}

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS, DECODER])?;
    let mut spec = decoder(path, &c, "olmo2", &DEFAULTS)?;
    shape(&mut spec);
    let bias = c.flag_or("attention_bias", false)?;
    (spec.biases.qkv, spec.biases.o) = (bias, bias);
    Ok(Understood::new(spec, in_hf))
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &[])?;
    let mut spec = keys.decoder("olmo2", &DEFAULTS)?;
    shape(&mut spec);
    Ok(Understood::new(spec, in_gguf))
}
