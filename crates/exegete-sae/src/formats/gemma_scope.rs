//! Gemma Scope 1: `params.npz` with `W_enc [D, F]`, `b_enc`, `W_dec [F, D_out]`, `b_dec`, `threshold`, f32.
//!
//! JumpReLU; the decoder's bias is not taken off the input. Lower-case names occur. Source: google/gemma-scope on the
//! Hugging Face hub; Lieberum et al. 2024, arXiv 2408.05147.

use super::{Choices, Place, Saved};
use crate::kinds::{JumpRelu, Rule};
use crate::{Result, Sae};

pub(super) const NAME: &str = "gemma-scope";

pub(super) fn fits(place: &Place) -> bool {
    place.has("params.npz") || place.path.extension().is_some_and(|e| e == "npz") && !place.is_dir
}

pub(super) fn read(place: &Place, _: &Choices) -> Result<Saved> {
    let mut t = place.tensors("params.npz")?;
    let lower = t.has("w_enc");
    let name = |upper: &'static str, small: &'static str| if lower { small } else { upper };
    let (b_enc_F, b_dec_D, threshold_F) = (t.vector("b_enc")?, t.vector("b_dec")?, t.vector("threshold")?);
    let (f, o) = (b_enc_F.len(), b_dec_D.len());
    let d = t.shape(name("W_enc", "w_enc")).and_then(|s| s.first().copied()).unwrap_or(o);
    let rule = Rule::JumpRelu(JumpRelu { threshold_F });
    let mut sae = Sae { b_enc_F, b_dec_D, ..Sae::zeros(d, o, 0, rule) };
    sae.w_enc_FD = t.turned(name("W_enc", "w_enc"), [f, d])?;
    sae.w_dec_FD = t.take(name("W_dec", "w_dec"), &[f, o])?;
    t.finish("a Gemma Scope dictionary")?;
    let parts: Vec<String> = place.parts().collect();
    let has = |word: &str| parts.iter().any(|p| p.contains(word));
    sae.transcodes = has("transcoder");
    let mut saved = Saved::new(sae, NAME);
    if has("embedding") {
        let root = (saved.dictionary.d_in as f32).sqrt();
        saved.dictionary.w_enc_FD.iter_mut().for_each(|w| *w /= root);
        saved.dictionary.w_dec_FD.iter_mut().chain(&mut saved.dictionary.b_dec_D).for_each(|w| *w *= root);
        saved.note("of the embedding, which this model multiplies by the root of its width: folded in");
    }
    saved.published_l0 = parts.iter().find_map(|p| p.strip_prefix("average_l0_")?.parse().ok());
    let layer = parts.iter().find_map(|p| p.strip_prefix("layer_")?.parse::<usize>().ok());
    let kind = match () {
        () if has("pt-res") || has("it-res") => Some("hook_resid_post"),
        () if has("pt-att") => Some("attn.hook_z"),
        () if has("pt-mlp") => Some("hook_mlp_out"),
        () if has("transcoders") => Some("ln2.hook_normalized"),
        () => None,
    };
    if let (Some(layer), Some(kind)) = (layer, kind) {
        saved.fact("hook_name", format!("blocks.{layer}.{kind}"));
    }
    Ok(saved)
}
