//! Llama Scope and its successors.
//!
//! Version 1: `hyperparams.json` and `checkpoints/final.safetensors` with `encoder.weight [F, D]`, `encoder.bias`,
//! `decoder.weight [D, F]`, `decoder.bias`; JumpReLU with one threshold, on inputs scaled by `sqrt(D) / average norm`.
//! Version 2 and the R1 release: `config.json` and `sae_weights.safetensors` with `W_E [D, F]`, `b_E`, `W_D [F, D]`, `b_D`
//! or `encoder.weight` as above, and `log_jumprelu_threshold [F]`. `refs/sae_layers/llamascopium_*` prove version 2 by its
//! own code. Sources: fnlp/Llama3_1-8B-Base-LX*, Llama-Scope-R1-Distill
//! on the Hugging Face hub; OpenMOSS/Language-Model-SAEs; He et al. 2024, arXiv 2410.20526.

use std::path::Path;

use serde_json::Value;

use super::tensors::Tensors;
use super::{Choices, Place, Saved};
use crate::kinds::{JumpRelu, Relu, Rule, TopK};
use crate::{Result, Sae, SaeError};

pub(super) const NAME: &str = "llama-scope";

pub(super) const FIRST: [&str; 2] = ["hyperparams.json", "checkpoints/final.safetensors"];
pub(super) const LATER: [&str; 2] = ["config.json", "sae_weights.safetensors"];

pub(super) fn fits(place: &Place) -> bool {
    [FIRST, LATER].iter().any(|files| files.iter().all(|file| place.has(file)))
}

pub(super) fn read(place: &Place, choices: &Choices) -> Result<Saved> {
    let is_first = place.has(FIRST[0]);
    let [config_name, weights] = if is_first { FIRST } else { LATER };
    let (path, config) = place.json(config_name)?;
    if let Some(kind) = config["sae_type"].as_str().filter(|kind| *kind != "sae") {
        return Err(SaeError::format(
            &path,
            format!("sae_type {kind:?} is not handled; \"sae\" and \"crosscoder\" are"),
        ));
    }
    if config["use_glu_encoder"] == true {
        return Err(SaeError::format(&path, "an encoder with a gated linear unit is not handled"));
    }
    let mut t = place.tensors(weights)?;
    let mut sae = arrays(&mut t, config["use_decoder_bias"] != false)?;
    let (f, d) = (sae.b_enc_F.len(), sae.d_in);
    let mut notes = Vec::new();
    let names = ["log_jumprelu_threshold", "activation_function.log_jumprelu_threshold"];
    let log_threshold = names.into_iter().find(|name| t.has(name));
    sae.rule = match (config["act_fn"].as_str(), config["jump_relu_threshold"].as_f64(), log_threshold) {
        (_, _, Some(name)) => {
            let threshold_F = t.vector(name)?.iter().map(|log| log.exp()).collect();
            Rule::JumpRelu(JumpRelu { threshold_F })
        }
        (Some("jumprelu") | None, Some(threshold), None) => {
            Rule::JumpRelu(JumpRelu { threshold_F: vec![threshold as f32; f] })
        }
        (Some("topk"), _, None) => Rule::TopK(TopK { k: k_of(&path, &config, choices)? }),
        (Some("relu"), _, None) => Rule::Relu(Relu),
        (found, ..) => {
            let detail =
                format!("act_fn {found:?} without a threshold is not handled; handled are jumprelu, topk, relu");
            return Err(SaeError::format(&path, detail));
        }
    };
    let (site_in, site_out) = (config["hook_point_in"].as_str(), config["hook_point_out"].as_str());
    let norms = norms_beside(&mut t)?;
    t.finish("a Llama Scope dictionary")?;
    if config["sparsity_include_decoder_norm"] == true {
        notes.extend(count_decoder_rows(&mut sae));
    }
    let stored = |end: &str, site: Option<&str>| {
        let beside = || norms.iter().find(|(name, _)| site.is_none_or(|site| name == site)).map(|(_, norm)| *norm);
        config["dataset_average_activation_norm"][end].as_f64().or_else(beside)
    };
    let average = stored("in", site_in);
    match (config["norm_activation"].as_str(), average) {
        (Some("dataset-wise"), Some(norm)) => {
            let norm_out = stored("out", site_out).unwrap_or(norm);
            if !(norm > 0.0 && norm.is_finite() && norm_out > 0.0 && norm_out.is_finite()) {
                return Err(SaeError::format(&path, format!("average norms of {norm} and {norm_out} are none")));
            }
            let factor = (d as f64).sqrt() / norm;
            sae.fold_input_factor(factor as f32);
            // The output was scaled by its own norm.
            let between = (norm_out / norm) as f32;
            sae.w_dec_FD.iter_mut().chain(&mut sae.b_dec_D).for_each(|w| *w *= between);
            notes.push(format!(
                "inputs were scaled by {factor:.5} (root of the width over the average norm {norm:.4}): folded in, the \
                 threshold as it is, in scaled units"
            ));
        }
        (Some("dataset-wise") | None, _) if choices.input_factor.is_some_and(|factor| factor > 0.0) => {
            let factor = choices.input_factor.unwrap_or(1.0);
            sae.fold_input_factor(factor as f32);
            notes.push(format!("inputs were scaled by {factor:.5}, as its release states: folded in"));
        }
        (Some("dataset-wise"), _) => notes.push(
            "trained on inputs scaled by an average norm that is not in the files: read as if the factor were folded in, as \
             SAELens reads it; an L0 far from the published one says that it is not"
                .into(),
        ),
        (Some("token-wise"), _) => sae.norm = crate::InputNorm::ConstantNormRescale,
        (Some("inference") | None, _) => {}
        (Some(other), _) => {
            return Err(SaeError::format(&path, format!("norm_activation {other:?} is not handled")));
        }
    }
    sae.transcodes = site_out.is_some() && site_in != site_out;
    // The encoder of version 1 takes inputs as they are; later ones may say otherwise.
    sae.centres_input = config["apply_decoder_bias_to_pre_encoder"] == true;
    let mut saved = Saved::new(sae, NAME);
    saved.metadata = config.as_object().cloned().unwrap_or_default();
    if let Some(site) = site_in {
        saved.fact("hook_name", site);
    }
    // Later configurations have a top_k whether it is used or not.
    let is_used = is_first || config["sae_type"].is_null() || config["act_fn"] == "topk";
    saved.published_l0 = config["top_k"].as_f64().filter(|_| is_used);
    saved.notes = notes;
    Ok(saved)
}

fn arrays(t: &mut Tensors, has_bias: bool) -> Result<Sae> {
    let by_layers = t.has("encoder.weight");
    let (b_enc, b_dec) = if by_layers { ("encoder.bias", "decoder.bias") } else { ("b_E", "b_D") };
    let b_enc_F = t.vector(b_enc)?;
    let width = t.shape("W_D").and_then(|shape| shape.last().copied());
    let b_dec_D = match width {
        Some(d) if !has_bias => vec![0.0; d],
        _ => t.vector(b_dec)?,
    };
    let (f, d) = (b_enc_F.len(), b_dec_D.len());
    let mut sae = Sae { b_enc_F, b_dec_D, ..Sae::zeros(d, d, 0, Rule::Relu(Relu)) };
    (sae.w_enc_FD, sae.w_dec_FD) = match by_layers {
        true => (t.take("encoder.weight", &[f, d])?, t.turned("decoder.weight", [f, d])?),
        false => (t.turned("W_E", [f, d])?, t.take("W_D", &[f, d])?),
    };
    Ok(sae)
}

/// Gates by `h |row|`, as Llamascopium does, whose activations are `h` all the same.
fn count_decoder_rows(sae: &mut Sae) -> Option<String> {
    let lengths = sae.w_dec_FD.chunks_exact(sae.d_out).map(length);
    match &mut sae.rule {
        Rule::Relu(_) => None,
        Rule::JumpRelu(jump) => {
            jump.threshold_F.iter_mut().zip(lengths).for_each(|(threshold, length)| *threshold /= length);
            Some("thresholds are compared with activations times the length of decoder rows: divided by it".into())
        }
        // Ranks by `h |row|` are those of a dictionary whose rows have the length 1.
        _ => {
            sae.fold_decoder_norms();
            Some("activations count the length of their decoder rows, which is in the encoder now".into())
        }
    }
}

/// The length of a row.
pub(super) fn length(row: &[f32]) -> f32 {
    row.iter().map(|w| f64::from(*w).powi(2)).sum::<f64>().sqrt() as f32
}

/// The average norms that lie beside the weights, by their sites.
pub(super) fn norms_beside(t: &mut Tensors) -> Result<Vec<(String, f64)>> {
    let prefix = "dataset_average_activation_norm.";
    let names = t.names_with(prefix);
    let read = |name: String| {
        let norm = f64::from(t.number(&name)?);
        Ok((name.trim_start_matches(prefix).to_owned(), norm))
    };
    names.into_iter().map(read).collect()
}

fn k_of(path: &Path, config: &Value, choices: &Choices) -> Result<usize> {
    let k = choices.k.or_else(|| config["top_k"].as_u64().map(|k| k as usize));
    k.ok_or_else(|| SaeError::format(path, "key \"top_k\" is missing; give --k"))
}
