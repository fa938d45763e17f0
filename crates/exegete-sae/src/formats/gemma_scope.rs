//! Gemma Scope 1: `params.npz` with `W_enc [D, F]`, `b_enc`, `W_dec [F, D_out]`, `b_dec`, `threshold`, f32.
//!
//! JumpReLU; the decoder's bias is not taken off the input. Lower-case names occur. Source: google/gemma-scope on the
//! Hugging Face hub; Lieberum et al. 2024, arXiv 2408.05147.
//! `refs/sae_layouts/gemma_scope_1` and `gemma_scope_embedding` prove it, in NumPy from the description.

use super::{Choices, Files, Place, Saved, transposed};
use crate::kinds::{JumpRelu, Rule};
use crate::{InputNorm, Result, Sae, SaeError, containers};

pub(super) const NAME: &str = "gemma-scope";
pub(super) const WEIGHTS: &str = "params.npz";

pub(super) fn fits(place: &Place) -> bool {
    place.has(WEIGHTS) || place.path.extension().is_some_and(|e| e == "npz") && !place.is_dir
}

pub(super) fn read(place: &Place, _: &Choices) -> Result<Saved> {
    let mut t = place.tensors(WEIGHTS)?;
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
    let is_embedding = has("embedding");
    if is_embedding {
        let root = (sae.d_in as f32).sqrt();
        sae.w_enc_FD.iter_mut().for_each(|w| *w /= root);
        sae.w_dec_FD.iter_mut().chain(&mut sae.b_dec_D).for_each(|w| *w *= root);
    }
    let mut saved = Saved::new(sae, NAME);
    if is_embedding {
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

/// Nothing but the arrays: this layout has no configuration.
pub(super) fn write(saved: &Saved) -> Result<Files> {
    let sae = saved.dictionary.sae()?;
    let (f, d) = (sae.b_enc_F.len(), sae.d_in);
    let no_place = |what: &str| Err(SaeError::Shape(format!("Gemma Scope's layout has no place for {what}")));
    let Rule::JumpRelu(jump) = &sae.rule else {
        return no_place(&format!("a dictionary of kind {}; jumprelu it has", sae.rule.name()));
    };
    // What transcodes is known by the names of folders, which are not the writer's to choose.
    if sae.transcodes || sae.w_skip_DD.is_some() {
        return no_place("a transcoder");
    }
    if sae.norm != InputNorm::None {
        return no_place("an input that is normalised");
    }
    let arrays = vec![
        ("W_enc", vec![d, f], transposed(&sae.w_enc_FD, f, d)),
        ("W_dec", vec![f, d], sae.w_dec_FD.clone()),
        ("b_enc", vec![f], sae.uncentred_b_enc()),
        ("b_dec", vec![d], sae.b_dec_D.clone()),
        ("threshold", vec![f], jump.threshold_F.clone()),
    ];
    Ok(vec![(WEIGHTS.into(), containers::npz_of(&arrays).map_err(SaeError::Shape)?)])
}
