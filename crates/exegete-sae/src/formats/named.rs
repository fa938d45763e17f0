//! PyTorch files with `W_enc`, `b_enc`, `W_dec`, `b_dec` and no word about the kind: Qwen Scope (`layerN.sae.pt`,
//! `W_enc [F, D]`, TopK), the attention dictionaries of Kissane et al. (`W_enc [D, F]`, ReLU, centred, `NAME_cfg.json`
//! beside it) and the like.
//!
//! The way a matrix lies follows from its shape. A square one says nothing, and is refused.
//! `refs/sae_layouts/qwen_scope` and `hook_z` prove them, in NumPy from the description.

use serde_json::Value;

use super::{Choices, Place, Saved};
use crate::kinds::{Relu, Rule, TopK};
use crate::{Result, Sae};

pub(super) const NAME: &str = "named-tensors";

pub(super) fn fits(place: &Place) -> bool {
    place.holds(&["W_enc", "W_dec", "b_enc", "b_dec"])
}

pub(super) fn read(place: &Place, choices: &Choices) -> Result<Saved> {
    let mut t = place.tensors("")?;
    let (b_enc_F, b_dec_D) = (t.vector("b_enc")?, t.vector("b_dec")?);
    let (f, d) = (b_enc_F.len(), b_dec_D.len());
    if f == d {
        let detail = format!("W_enc is {d} by {d}, and nothing says which axis is the latents'");
        return Err(t.fail(format!("{detail}; convert it to a layout that says so (safetensors with cfg.json)")));
    }
    let latents_first = t.shape("W_enc") == Some(&[f, d]);
    let mut sae = Sae { b_enc_F, b_dec_D, ..Sae::zeros(d, d, 0, Rule::Relu(Relu)) };
    sae.w_enc_FD = if latents_first { t.take("W_enc", &[f, d])? } else { t.turned("W_enc", [f, d])? };
    let decoder_first = t.shape("W_dec") == Some(&[f, d]);
    sae.w_dec_FD = if decoder_first { t.take("W_dec", &[f, d])? } else { t.turned("W_dec", [f, d])? };
    t.finish("a dictionary of this layout")?;
    let parts: Vec<String> = place.parts().collect();
    let config = parts.first().and_then(|name| name.strip_suffix(".pt")).map(|stem| format!("{stem}_cfg.json"));
    let config_path = config.map(|name| place.path.with_file_name(name)).filter(|path| path.is_file());
    let mut saved = match (&config_path, choices.k.or_else(|| stated_k(&parts))) {
        // Qwen Scope: `W_enc [F, D]`, and the repository's name ends in L0_k.
        (None, Some(k)) if latents_first => {
            sae.rule = Rule::TopK(TopK { k });
            let mut saved = Saved::new(sae, NAME);
            saved.published_l0 = Some(k as f64);
            saved.note(format!("TopK with k = {k}, and an input that is not centred, as Qwen Scope's"));
            if let Some(layer) = parts.first().and_then(|p| p.strip_prefix("layer")?.strip_suffix(".sae.pt")) {
                saved.fact("hook_name", format!("blocks.{layer}.hook_resid_post"));
            }
            saved
        }
        (Some(path), None) => {
            sae.centres_input = true;
            let mut saved = Saved::new(sae, NAME);
            saved.note("ReLU with a centred input, as the dictionaries with a _cfg.json beside them");
            let config = std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
            if let Some(Value::Object(config)) = config {
                if let Some(name) = config.get("act_name").and_then(Value::as_str) {
                    saved.metadata.insert("hook_name".into(), name.into());
                }
                saved.metadata.extend(config);
            }
            saved
        }
        _ => {
            let detail = "nothing says whether this is TopK or ReLU: give --k for the former; for the latter, keep its \
                          NAME_cfg.json beside NAME.pt, or convert it to a layout that says so";
            return Err(t.fail(detail));
        }
    };
    if saved.site().is_none() && parts.iter().any(|p| p.contains("hook_z")) {
        saved.note("of attention's z, heads one after the other");
    }
    Ok(saved)
}

/// The k of a repository's name, as `..-L0_50`.
fn stated_k(parts: &[String]) -> Option<usize> {
    parts.iter().find_map(|part| part.rsplit_once("L0_")?.1.parse().ok())
}
