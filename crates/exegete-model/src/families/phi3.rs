//! Phi-3 (Abdin et al. 2024): Llama with fused projections, LongRoPE, and rotation of a part of each head.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, DECODER, Defaults, LLAMA, Rule, Rules, decoder, set_windows};
use super::gguf_keys::GgufKeys;
use super::stored::{HF, Stored, by_name, in_gguf, slice};
use super::{Family, Understood, llama};
use crate::Result;
use crate::parts::{Part, Weight};
use crate::rope::{Frequencies, Rope, inverse_frequencies};
use crate::spec::ModelSpec;
use crate::weights::WeightSource;
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family { model_type: "phi3", from_config, gguf: Some(("phi3", from_gguf)) };

const KEYS: Rules = &[
    ("original_max_position_embeddings", Rule::Handled),
    ("partial_rotary_factor", Rule::Handled),
    ("sliding_window", Rule::Handled),
    ("attention_bias", Rule::Only("false")),
    ("mlp_bias", Rule::Only("false")),
    ("lm_head_bias", Rule::Only("false")),
    // Written by Phi-4-mini; transformers does not read them, and other values would mean another model.
    ("full_attn_mod", Rule::Only("1")),
    ("interpolate_factor", Rule::Only("1")),
    ("embd_pdrop", Rule::Ignored),
    ("resid_pdrop", Rule::Ignored),
];
const DEFAULTS: Defaults = Defaults { eps: 1e-5, ..LLAMA };
const QKV: &[Part] = &[Part::Q, Part::K, Part::V];
const GATE_UP: &[Part] = &[Part::Gate, Part::Up];

fn in_hf(spec: &ModelSpec, w: Weight) -> Stored {
    match w.part {
        Part::Q | Part::K | Part::V => slice(spec, w, "model.layers.{}.self_attn.qkv_proj", QKV),
        Part::Gate | Part::Up => slice(spec, w, "model.layers.{}.mlp.gate_up_proj", GATE_UP),
        _ => by_name(HF, spec, w),
    }
}

fn fused_gguf(spec: &ModelSpec, w: Weight) -> Stored {
    match w.part {
        Part::Q | Part::K | Part::V => slice(spec, w, "blk.{}.attn_qkv", QKV),
        Part::Gate | Part::Up => slice(spec, w, "blk.{}.ffn_up", GATE_UP),
        _ => in_gguf(spec, w),
    }
}

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS, DECODER])?;
    let mut spec = decoder(path, &c, "phi3", &DEFAULTS)?;
    let window = c.maybe_size("sliding_window")?;
    set_windows(path, &c, &mut spec, window, |_| true)?;
    Ok(Understood { ignored: llama::IGNORED, ..Understood::new(spec, in_hf) })
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &[])?;
    let mut spec = keys.decoder("phi3", &DEFAULTS)?;
    keys.set_windows(&mut spec, |_| true)?;
    let (short, long) = ("rope_factors_short.weight", "rope_factors_long.weight");
    if file.has(short) && file.has(long) {
        let rotated = keys.rotated(spec.d_head)?;
        let plain = inverse_frequencies(keys.number_or("rope.freq_base", 10_000.0)?, rotated);
        let divided =
            |name: &str| -> Result<Vec<f32>> { Ok(plain.iter().zip(file.read(name)?).map(|(f, by)| f / by).collect()) };
        spec.set_rope(Rope {
            frequencies: Frequencies::Long {
                short: divided(short)?,
                long: divided(long)?,
                original: keys.size("rope.scaling.original_context_length")?,
            },
            factor: keys.number_or("rope.scaling.attn_factor", 1.0)? as f32,
        });
    }
    Ok(Understood { ignored: &["rope_factors_"], ..Understood::new(spec, fused_gguf) })
}
