//! Qwen3: Qwen2 without biases, with queries and keys normalised head by head.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, DECODER, Defaults, LLAMA, Rule, Rules, decoder};
use super::gguf_keys::GgufKeys;
use super::stored::in_gguf;
use super::{Family, Understood, llama, qwen2};
use crate::Result;
use crate::spec::QkNorm;
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family { model_type: "qwen3", from_config, gguf: Some(("qwen3", from_gguf)) };

const KEYS: Rules = &[("attention_bias", Rule::Handled)];
const DEFAULTS: Defaults = Defaults { d_head: Some(128), ..LLAMA };

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS, qwen2::WINDOW_KEYS, DECODER])?;
    let mut spec = decoder(path, &c, "qwen3", &DEFAULTS)?;
    spec.qk_norm = QkNorm::Head;
    let bias = c.flag_or("attention_bias", false)?;
    (spec.biases.qkv, spec.biases.o) = (bias, bias);
    qwen2::set_qwen_windows(path, &c, &mut spec)?;
    Ok(Understood::new(spec, llama::in_hf))
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &[])?;
    let mut spec = keys.decoder("qwen3", &LLAMA)?;
    spec.qk_norm = QkNorm::Head;
    Ok(Understood::new(spec, in_gguf))
}
