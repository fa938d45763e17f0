//! OpenAI's GPT-2 autoencoders: a PyTorch file with `pre_bias`, `encoder.weight [F, D]`, `latent_bias`,
//! `decoder.weight [D, F]`, `activation` and `activation_state_dict`.
//!
//! TopK ones take an input with LayerNorm, which is undone at the output. Source: openai/sparse_autoencoder, model.py.
//! `refs/sae_layouts/openai_*` prove it, in NumPy from the description.

use serde_json::Value;

use super::{Choices, Place, Saved};
use crate::kinds::{Relu, Rule, TopK};
use crate::{InputNorm, Result, Sae};

pub(super) const NAME: &str = "openai";

pub(super) fn fits(place: &Place) -> bool {
    place.holds(&["pre_bias", "latent_bias", "encoder.weight", "decoder.weight"])
}

pub(super) fn read(place: &Place, choices: &Choices) -> Result<Saved> {
    let mut t = place.tensors("")?;
    let (b_dec_D, b_enc_F) = (t.vector("pre_bias")?, t.vector("latent_bias")?);
    let (f, d) = (b_enc_F.len(), b_dec_D.len());
    let said = t.fact("activation").and_then(Value::as_str).map(str::to_owned);
    let k = choices.k.or_else(|| t.fact("activation_state_dict.k").and_then(Value::as_u64).map(|k| k as usize));
    let k = if t.has("activation_state_dict.k") { Some(t.number("activation_state_dict.k")? as usize) } else { k };
    let rule = match (said.as_deref(), k) {
        (Some("TopK"), Some(k)) => Rule::TopK(TopK { k }),
        (Some("TopK"), None) => return Err(t.fail("TopK without a number of latents; give --k")),
        (Some("ReLU"), _) => Rule::Relu(Relu),
        (Some(other), _) => return Err(t.fail(format!("activation {other:?} is not handled; handled are TopK, ReLU"))),
        (None, _) => return Err(t.fail("the file names no activation (TopK or ReLU)")),
    };
    let mut sae = Sae { b_enc_F, b_dec_D, centres_input: true, ..Sae::zeros(d, d, 0, rule) };
    sae.w_enc_FD = t.take("encoder.weight", &[f, d])?;
    sae.w_dec_FD = t.turned("decoder.weight", [f, d])?;
    t.ignore(&["stats_last_nonzero", "latents_activation_frequency", "latents_mean_square"]);
    t.finish("an OpenAI autoencoder")?;
    if matches!(sae.rule, Rule::TopK(_)) {
        sae.norm = InputNorm::LayerNorm;
    }
    let rule = sae.rule.clone();
    let mut saved = Saved::new(sae, NAME);
    if let Rule::TopK(TopK { k }) = rule {
        saved.published_l0 = Some(k as f64);
        saved.note("the input is normalised as by LayerNorm, and the output is brought back");
    }
    Ok(saved)
}
