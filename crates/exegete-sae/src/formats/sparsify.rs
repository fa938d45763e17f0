//! EleutherAI's sparsify: `cfg.json` and `sae.safetensors` with `encoder.weight [F, D]`, `encoder.bias`, `W_dec [F, D]`,
//! `b_dec`, and for some `W_skip [D, D]`, `y += x W_skip^T`.
//!
//! `f = topk(relu(W (x - b_dec) + b))`; a transcoder's input is not centred. Source: EleutherAI/sparsify, sparse_coder.py.

use serde_json::Value;

use super::{Choices, Place, Saved};
use crate::kinds::{Rule, TopK};
use crate::{Result, Sae, SaeError};

pub(super) const NAME: &str = "sparsify";

pub(super) fn fits(place: &Place) -> bool {
    place.has("cfg.json") && place.has("sae.safetensors")
}

pub(super) fn read(place: &Place, choices: &Choices) -> Result<Saved> {
    let (config_path, config) = place.json("cfg.json")?;
    let fail = |detail: String| SaeError::format(&config_path, detail);
    let flag = |key: &str| config[key].as_bool().unwrap_or(false);
    match &config["activation"] {
        Value::Null => {}
        Value::String(name) if name == "topk" => {}
        other => return Err(fail(format!("key \"activation\" is {other}; handled is \"topk\""))),
    }
    if flag("signed") {
        return Err(fail("key \"signed\" is true: latents of both signs are not handled".into()));
    }
    let k = choices.k.map(|k| k as u64).or_else(|| config["k"].as_u64());
    let k = k.ok_or_else(|| fail("key \"k\" is missing; give --k".into()))? as usize;
    let mut t = place.tensors("sae.safetensors")?;
    let (b_enc_F, b_dec_D) = (t.vector("encoder.bias")?, t.vector("b_dec")?);
    let (f, d) = (b_enc_F.len(), b_dec_D.len());
    if let Some(said) = config["d_in"].as_u64().filter(|said| *said != d as u64) {
        return Err(fail(format!("key \"d_in\" is {said}, but b_dec has {d} values")));
    }
    let mut sae = Sae { b_enc_F, b_dec_D, ..Sae::zeros(d, d, 0, Rule::TopK(TopK { k })) };
    sae.w_enc_FD = t.take("encoder.weight", &[f, d])?;
    sae.w_dec_FD = t.take("W_dec", &[f, d])?;
    sae.w_skip_DD = t.matrix_if_there("W_skip", [d, d])?;
    t.finish("a sparsify dictionary")?;
    sae.transcodes = flag("transcode");
    sae.centres_input = !sae.transcodes;
    let mut saved = Saved::new(sae, NAME);
    saved.metadata = config.as_object().cloned().unwrap_or_default();
    saved.published_l0 = Some(k as f64);
    if let Some(hook) = place.parts().next().and_then(|name| hook_of(&name)) {
        saved.fact("hook_name", hook);
    }
    Ok(saved)
}

/// Our name of a hookpoint: the output of a module.
fn hook_of(hookpoint: &str) -> Option<String> {
    let mut parts = hookpoint.split('.');
    let (first, layer) = (parts.next()?, parts.next()?.parse::<usize>().ok()?);
    let kind = match (first, parts.next()) {
        ("layers" | "h", None) => "hook_resid_post",
        ("layers" | "h", Some("mlp")) => "hook_mlp_out",
        ("layers" | "h", Some("self_attn" | "attn")) => "hook_attn_out",
        _ => return None,
    };
    Some(format!("blocks.{layer}.{kind}"))
}
