//! Gemma Scope 2: `config.json` and `params.safetensors` with `w_enc [D, F]`, `b_enc`, `w_dec [F, D_out]`, `b_dec`,
//! `threshold`, and for some `affine_skip_connection [D, D_out]`, which multiplies from the right: `y += x A`.
//!
//! Source: google/gemma-scope-2 on the Hugging Face hub, and SAELens's loader of it.
//! `refs/sae_layouts/gemma_scope_2*` prove it, in NumPy from the description.

use serde_json::{Value, json};

use super::{Choices, Place, Saved, transposed};
use crate::kinds::{JumpRelu, Rule};
use crate::{Result, Sae, SaeError};

pub(super) const NAME: &str = "gemma-scope-2";
pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "params.safetensors";

pub(super) fn fits(place: &Place) -> bool {
    place.has(CONFIG) && place.has(WEIGHTS)
}

pub(super) fn read(place: &Place, _: &Choices) -> Result<Saved> {
    let (config_path, config) =
        if place.has(CONFIG) { place.json(CONFIG)? } else { (place.file(CONFIG), by_path(place)) };
    match config["architecture"].as_str() {
        Some("jump_relu" | "jumprelu") => {}
        _ => {
            let detail = format!("architecture {} is not handled; handled is \"jump_relu\"", config["architecture"]);
            return Err(SaeError::format(&config_path, detail));
        }
    }
    let mut t = place.tensors(WEIGHTS)?;
    if let Some([_, _, _]) = t.shape("w_enc") {
        return Err(t.fail("all layers in one file (a cross-layer transcoder or crosscoder) are not read yet"));
    }
    let (b_enc_F, b_dec_D, threshold_F) = (t.vector("b_enc")?, t.vector("b_dec")?, t.vector("threshold")?);
    let (f, o) = (b_enc_F.len(), b_dec_D.len());
    let d = t.shape("w_enc").and_then(|s| s.first().copied()).unwrap_or(o);
    let mut sae = Sae { b_enc_F, b_dec_D, ..Sae::zeros(d, o, 0, Rule::JumpRelu(JumpRelu { threshold_F })) };
    sae.w_enc_FD = t.turned("w_enc", [f, d])?;
    sae.w_dec_FD = t.take("w_dec", &[f, o])?;
    let skip = t.matrix_if_there("affine_skip_connection", [d, o])?;
    sae.w_skip_DD = skip.map(|a| transposed(&a, d, o));
    t.finish("a Gemma Scope 2 dictionary")?;
    let text = |key: &str| config[key].as_str().map(str::to_owned);
    let (site_in, site_out) = (text("hf_hook_point_in"), text("hf_hook_point_out"));
    sae.transcodes = sae.w_skip_DD.is_some() || site_in != site_out && site_out.is_some();
    let mut saved = Saved::new(sae, NAME);
    saved.metadata = config.as_object().cloned().unwrap_or_default();
    saved.published_l0 = config["l0"].as_f64();
    if let Some(site) = site_in.as_deref().and_then(hook_of) {
        saved.fact("hook_name", Value::from(site));
    }
    Ok(saved)
}

/// What the configuration would say: some folders of the releases have none, and their names say as much.
fn by_path(place: &Place) -> Value {
    let parts: Vec<String> = place.parts().collect();
    let layer = parts.iter().find_map(|p| p.strip_prefix("layer_")?.split('_').next()?.parse::<usize>().ok());
    let modules = [
        ("resid_post", "output", None),
        ("attn_out", "self_attn.o_proj.input", None),
        ("mlp_out", "post_feedforward_layernorm.output", None),
        ("transcoder", "pre_feedforward_layernorm.output", Some("post_feedforward_layernorm.output")),
    ];
    let of = |name: &str| parts.iter().any(|p| p.strip_suffix("_all").unwrap_or(p) == name);
    let mut config = json!({ "architecture": "jump_relu" });
    if let (Some(layer), Some((_, site_in, site_out))) = (layer, modules.into_iter().find(|(name, ..)| of(name))) {
        config["hf_hook_point_in"] = format!("model.layers.{layer}.{site_in}").into();
        config["hf_hook_point_out"] = site_out.map(|out| format!("model.layers.{layer}.{out}")).into();
    }
    config
}

/// Our name of a module's output, as transformers names the module.
fn hook_of(module: &str) -> Option<String> {
    let rest = module.strip_prefix("model.layers.").or_else(|| module.strip_prefix("layers."))?;
    let (layer, module) = rest.split_once('.').unwrap_or((rest, "output"));
    let layer: usize = layer.parse().ok()?;
    let kind = match module {
        "output" => "hook_resid_post",
        "post_feedforward_layernorm.output" => "hook_mlp_out",
        "self_attn.o_proj.input" => "attn.hook_z",
        "pre_feedforward_layernorm.output" => "ln2.hook_normalized",
        _ => return None,
    };
    Some(format!("blocks.{layer}.{kind}"))
}
