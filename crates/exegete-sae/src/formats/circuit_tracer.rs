//! circuit-tracer's per-layer transcoders: `layer_N.safetensors` with `W_enc [F, D]`, `b_enc`, `W_dec [F, D]`, `b_dec`,
//! for some `activation_function.threshold [F]` or `k`, and for some `W_skip [D, D]`, `y += x W_skip^T`.
//!
//! Source: safety-research/circuit-tracer, transcoder/single_layer_transcoder.py, by whose code `refs/sae_layers/layer_*`
//! prove it.

use super::{Choices, Place, Saved};
use crate::kinds::{JumpRelu, Relu, Rule, TopK};
use crate::{Result, Sae};

pub(super) const NAME: &str = "circuit-tracer";

const THRESHOLD: &str = "activation_function.threshold";

pub(super) fn fits(place: &Place) -> bool {
    let is_safetensors = place.path.extension().is_some_and(|e| e == "safetensors");
    is_safetensors && place.holds(&["W_enc", "W_dec", "b_enc", "b_dec"])
}

pub(super) fn read(place: &Place, choices: &Choices) -> Result<Saved> {
    let mut t = place.tensors("")?;
    let (b_enc_F, b_dec_D) = (t.vector("b_enc")?, t.vector("b_dec")?);
    let (f, o) = (b_enc_F.len(), b_dec_D.len());
    let d = t.shape("W_enc").and_then(|s| s.last().copied()).unwrap_or(o);
    let k = if t.has("k") { Some(t.number("k")? as usize) } else { choices.k };
    let rule = match (t.has(THRESHOLD), k) {
        (true, _) => {
            let threshold = t.vector(THRESHOLD)?;
            // One threshold for all latents occurs.
            let threshold_F = if threshold.len() == 1 { vec![threshold[0]; f] } else { threshold };
            Rule::JumpRelu(JumpRelu { threshold_F })
        }
        (false, Some(k)) => Rule::TopK(TopK { k }),
        (false, None) => Rule::Relu(Relu),
    };
    let mut sae = Sae { b_enc_F, b_dec_D, transcodes: true, ..Sae::zeros(d, o, 0, rule) };
    sae.w_enc_FD = t.take("W_enc", &[f, d])?;
    sae.w_dec_FD = t.take("W_dec", &[f, o])?;
    sae.w_skip_DD = t.matrix_if_there("W_skip", [o, d])?;
    t.finish("a circuit-tracer transcoder")?;
    let is_relu = sae.rule == Rule::Relu(Relu);
    let mut saved = Saved::new(sae, NAME);
    if is_relu {
        saved.note("no threshold and no k are in the file: read as ReLU; where config.yaml says topk, give --k");
    }
    let name = place.parts().next().unwrap_or_default();
    if let Some(layer) = name.strip_prefix("layer_").and_then(|n| n.strip_suffix(".safetensors")) {
        saved.fact("hook_layer", layer);
    }
    Ok(saved)
}
