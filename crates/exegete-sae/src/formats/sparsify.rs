//! EleutherAI's sparsify: `cfg.json` and `sae.safetensors` with `encoder.weight [F, D]`, `encoder.bias`, `W_dec [F, D]`,
//! `b_dec`, and for some `W_skip [D, D]`, `y += x W_skip^T`.
//!
//! `f = topk(relu(W (x - b_dec) + b))`; a transcoder's input is not centred. Source: EleutherAI/sparsify, sparse_coder.py.
//! `refs/sae_peers/sparsify_*` prove it, by the project's own code.

use serde_json::{Value, json};

use super::tensors::safetensors_of;
use super::{Choices, Files, Place, Saved, json_of};
use crate::kinds::{Rule, TopK};
use crate::{InputNorm, Result, Sae, SaeError};

pub(super) const NAME: &str = "sparsify";
pub(super) const FILES: [&str; 2] = ["cfg.json", "sae.safetensors"];

pub(super) fn fits(place: &Place) -> bool {
    FILES.iter().all(|file| place.has(file))
}

pub(super) fn read(place: &Place, choices: &Choices) -> Result<Saved> {
    let (config_path, config) = place.json(FILES[0])?;
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
    let mut t = place.tensors(FILES[1])?;
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

/// Of what else is known, the configuration keeps what this layout had said itself, and what was read and from where.
pub(super) fn write(saved: &Saved) -> Result<Files> {
    let sae = saved.dictionary.sae()?;
    let (f, d) = (sae.b_enc_F.len(), sae.d_in);
    let no_place = |what: String| Err(SaeError::Shape(format!("sparsify's layout has no place for {what}")));
    let Rule::TopK(TopK { k }) = sae.rule else {
        return no_place(format!("a dictionary of kind {}; topk it has", sae.rule.name()));
    };
    if sae.norm != InputNorm::None {
        return no_place(format!("an input that is normalised ({})", sae.norm.name()));
    }
    if sae.d_out != d || sae.centres_input == sae.transcodes {
        return no_place(
            "an output of another width, or a decoder bias that is not taken off an autoencoder's input".into(),
        );
    }
    let mut config = match saved.format == NAME {
        true => Value::Object(saved.metadata.clone()),
        false => {
            json!({ "activation": "topk", "expansion_factor": f / d, "normalize_decoder": false, "multi_topk": false })
        }
    };
    // Its readers drop keys that they do not know.
    for key in ["hook_name", "model_name", "release"] {
        if let Some(value) = saved.metadata.get(key) {
            config[key] = value.clone();
        }
    }
    for (key, value) in [
        ("d_in", d.into()),
        ("num_latents", f.into()),
        ("k", k.into()),
        ("skip_connection", sae.w_skip_DD.is_some().into()),
        ("transcode", sae.transcodes.into()),
    ] {
        config[key] = value;
    }
    let mut arrays = vec![
        ("encoder.weight", vec![f, d], sae.w_enc_FD.clone()),
        ("encoder.bias", vec![f], sae.b_enc_F.clone()),
        ("W_dec", vec![f, d], sae.w_dec_FD.clone()),
        ("b_dec", vec![d], sae.b_dec_D.clone()),
    ];
    arrays.extend(sae.w_skip_DD.clone().map(|skip| ("W_skip", vec![d, d], skip)));
    Ok(vec![(FILES[1].into(), safetensors_of(&arrays)?), (FILES[0].into(), json_of(&config)?)])
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
