//! Gemma 3, text (Gemma Team 2025): Gemma 2 without soft caps, with normalised queries and keys, five windowed layers
//! to one full, and a rotation for each of the two kinds.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, DECODER, Rule, Rules, set_windows};
use super::gguf_keys::GgufKeys;
use super::rope_keys::{self, Around};
use super::stored::in_gguf;
use super::{Family, Understood, gemma, gemma2};
use crate::Result;
use crate::rope::Rope;
use crate::spec::{ModelSpec, NormPlaces, QkNorm};
use crate::weights::gguf::Gguf;

pub(super) const FAMILY: Family = Family { model_type: "gemma3_text", from_config, gguf: Some(("gemma3", from_gguf)) };

const KEYS: Rules = &[
    ("rope_local_base_freq", Rule::Handled),
    ("sliding_window_pattern", Rule::Handled),
    ("_sliding_window_pattern", Rule::Handled),
];

const ROPE_KEYS: Rules = &[("full_attention", Rule::Handled), ("sliding_attention", Rule::Handled)];

/// Rotation 0 for full layers, 1 for windowed ones.
fn set_ropes(spec: &mut ModelSpec, full: Rope, windowed: Rope) {
    spec.ropes = vec![full, windowed];
    for layer in &mut spec.layers {
        layer.rope = Some(usize::from(layer.window.is_some()));
    }
}

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS, gemma2::KEYS, DECODER])?;
    let mut spec = gemma2::read(path, &c, "gemma3_text", (None, None))?;
    spec.qk_norm = QkNorm::Head;
    let pattern = c.size_or("sliding_window_pattern", c.size_or("_sliding_window_pattern", 6)?)?.max(1);
    let window = Some(c.size_or("sliding_window", 4096)?);
    set_windows(path, &c, &mut spec, window, |layer| !(layer + 1).is_multiple_of(pattern))?;
    let around = |theta: f64| Around {
        theta,
        d_head: spec.d_head,
        partial: 1.0,
        max_positions: spec.max_positions,
        original: None,
    };
    let (global, local) = (c.number_or("rope_theta", 1e6)?, c.number_or("rope_local_base_freq", 1e4)?);
    let (full, windowed) = match c.nests("rope_parameters") {
        true => match c.nested("rope_parameters", ROPE_KEYS)? {
            Some(both) => (
                both.nested("full_attention", rope_keys::SCALING)?,
                both.nested("sliding_attention", rope_keys::SCALING)?,
            ),
            None => (None, None),
        },
        false => (c.nested("rope_scaling", rope_keys::SCALING)?, None),
    };
    let full = rope_keys::scaled(path, full.as_ref(), &around(global))?;
    let windowed = rope_keys::scaled(path, windowed.as_ref(), &around(local))?;
    set_ropes(&mut spec, full, windowed);
    Ok(Understood::new(spec, gemma2::in_hf))
}

fn from_gguf(path: &Path, file: &Gguf) -> Result<Understood> {
    let keys = GgufKeys::checked(path, file, &["rope.freq_base_swa", "final_logit_softcapping"])?;
    let mut spec = keys.decoder("gemma3_text", &gemma::DEFAULTS)?;
    spec.norms = NormPlaces { before: true, behind: true };
    spec.qk_norm = QkNorm::Head;
    spec.embed_scale = gemma::embed_scale(&spec);
    spec.logit_soft_cap = keys.maybe_number("final_logit_softcapping")?.map(|x| x as f32);
    // As for Gemma 2: llama.cpp knows the one model (27B) whose scores have another factor by its depth.
    if spec.n_layers == 62 {
        let scale = 1.0 / ((spec.d_model / spec.n_heads) as f32).sqrt();
        spec.layers.iter_mut().for_each(|layer| layer.scale = scale);
    }
    keys.set_windows(&mut spec, |layer| layer % 6 < 5)?;
    let full = spec.ropes[0].clone();
    let windowed = Rope::plain(keys.number_or("rope.freq_base_swa", 10_000.0)?, spec.d_head);
    set_ropes(&mut spec, full, windowed);
    Ok(Understood::new(spec, in_gguf))
}
