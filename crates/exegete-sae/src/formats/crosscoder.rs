//! Crosscoders: one code for several sites, which a dictionary here has behind each other.
//!
//! Llamascopium's: `config.json` (`sae_type` crosscoder) and `sae_weights.safetensors` with `W_E [H, D, F]`, `b_E [H, F]`,
//! `W_D [H, F, D]`, `b_D [H, D]`; pre-activations are summed over the sites, and each site has a gate of its own. Kissane et al.'s: `cfg.json` and
//! `cc_weights.pt` with `W_enc [H, D, F]`, `W_dec [F, H, D]`, `b_enc [F]`, `b_dec [H, D]`. Sources:
//! OpenMOSS/Language-Model-SAEs;
//! ckkissane/crosscoder-gemma-2-2b-model-diff on the Hugging Face hub.
//!
//! `refs/sae_layers/crosscoder_*`, by Llamascopium's own code, prove the first; `refs/sae_layers/kissane` the second.
//! What we write ourselves gates all sites at once (`sparsity_include_decoder_norm` false), which Llamascopium refuses to
//! load but for ReLU, where it makes no difference.

use serde_json::{Value, json};

use super::llama_scope::{length, norms_beside};
use super::tensors::{Named, Tensors, safetensors_of};
use super::{Choices, Files, Place, Saved, json_of};
use crate::kinds::{JumpRelu, Relu, Rule, TopK};
use crate::{InputNorm, Result, Sae, SaeError, SiteGates};

/// The layout's name.
pub const NAME: &str = "llamascopium-crosscoder";
pub(super) const FILES: [&str; 2] = ["config.json", "sae_weights.safetensors"];
pub(super) const KISSANE_NAME: &str = "kissane-crosscoder";
pub(super) const KISSANE_FILES: [&str; 2] = ["cfg.json", "cc_weights.pt"];

const LOG_THRESHOLD: &str = "activation_function.log_jumprelu_threshold";

pub(super) fn fits(place: &Place) -> bool {
    let is_one = |config: &Value| config["sae_type"] == "crosscoder";
    FILES.iter().all(|file| place.has(file)) && place.json(FILES[0]).is_ok_and(|(_, config)| is_one(&config))
}

pub(super) fn fits_kissane(place: &Place) -> bool {
    KISSANE_FILES.iter().all(|file| place.has(file))
}

/// `[H, D, F]` as rows `[F, H D]`.
fn rows(x: &[f32], [h, d, f]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    for (hd, row) in x.chunks_exact(f.max(1)).enumerate().take(h * d) {
        row.iter().enumerate().for_each(|(latent, w)| out[latent * h * d + hd] = *w);
    }
    out
}

/// `[F, H D]` as `[H, D, F]`.
fn columns(x: &[f32], [h, d, f]: [usize; 3]) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    for (latent, row) in x.chunks_exact((h * d).max(1)).enumerate() {
        row.iter().enumerate().for_each(|(hd, w)| out[hd * f + latent] = *w);
    }
    out
}

/// Sites, width and latents of an array `[H, D, F]`.
fn sizes(t: &Tensors, name: &str) -> Result<[usize; 3]> {
    match t.shape(name) {
        Some([h, d, f]) => Ok([*h, *d, *f]),
        shape => {
            Err(t.fail(format!("tensor {name:?} has shape {shape:?}, expected three axes: sites, width, latents")))
        }
    }
}

pub(super) fn read(place: &Place, choices: &Choices) -> Result<Saved> {
    let (path, config) = place.json(FILES[0])?;
    let mut t = place.tensors(FILES[1])?;
    let [h, d, f] = sizes(&t, "W_E")?;
    let mut sae = Sae::zeros(h * d, h * d, 0, Rule::Relu(Relu));
    sae.w_enc_FD = rows(&t.take("W_E", &[h, d, f])?, [h, d, f]);
    let each = t.take("b_E", &[h, f])?;
    sae.b_enc_F = (0..f).map(|latent| each.iter().skip(latent).step_by(f).sum()).collect();
    // `[H, F, D]`: rows of a site behind each other, and rows of a latent are wanted.
    let by_site = t.take("W_D", &[h, f, d])?;
    sae.w_dec_FD = (0..f)
        .flat_map(|l| (0..h).flat_map(move |h| (h * f + l) * d..(h * f + l + 1) * d))
        .map(|i| by_site[i])
        .collect();
    sae.b_dec_D = t.take("b_D", &[h, d])?;
    sae.rule = match (config["act_fn"].as_str(), t.has(LOG_THRESHOLD)) {
        (Some("jumprelu") | None, true) => {
            Rule::JumpRelu(JumpRelu { threshold_F: t.vector(LOG_THRESHOLD)?.iter().map(|log| log.exp()).collect() })
        }
        (Some("topk"), false) => {
            let k = choices.k.or_else(|| config["top_k"].as_u64().map(|k| k as usize));
            Rule::TopK(TopK { k: k.ok_or_else(|| SaeError::format(&path, "key \"top_k\" is missing; give --k"))? })
        }
        (Some("relu") | None, false) => Rule::Relu(Relu),
        (found, _) => {
            let detail =
                format!("act_fn {found:?} is not handled for a crosscoder; handled are relu, topk and jumprelu");
            return Err(SaeError::format(&path, detail));
        }
    };
    let norms = norms_beside(&mut t)?;
    t.finish("a crosscoder")?;
    let sites: Vec<&str> = config["hook_points"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if config["sparsity_include_decoder_norm"] == true {
        gate_by_site(&mut sae, h).map_err(|detail| SaeError::format(&path, detail))?;
    }
    match config["norm_activation"].as_str() {
        Some("inference") | None => {}
        Some("dataset-wise") => {
            let norm = |site: &&str| norms.iter().find(|(name, _)| name == site).map(|(_, norm)| *norm);
            let factor = |norm: f64| ((d as f64).sqrt() / norm) as f32;
            let factors: Vec<f32> = sites.iter().filter_map(norm).map(factor).collect();
            if factors.len() != h || factors.iter().any(|factor| !factor.is_finite() || *factor <= 0.0) {
                let detail = format!("it has no average norms of all its {h} sites, by which inputs were scaled");
                return Err(SaeError::format(&path, detail));
            }
            sae.fold_site_factors(&factors, &factors);
        }
        Some(other) => {
            let detail = format!(
                "norm_activation {other:?} is not handled for a crosscoder; \"dataset-wise\" and \"inference\" are"
            );
            return Err(SaeError::format(&path, detail));
        }
    }
    let mut saved = Saved::new(sae, NAME);
    saved.metadata = config.as_object().cloned().unwrap_or_default();
    // Every configuration has a top_k, whether it is used or not.
    saved.published_l0 = config["top_k"].as_f64().filter(|_| config["act_fn"] == "topk");
    if sites.len() == h {
        saved.fact("hook_name", sites.join(","));
    }
    Ok(saved)
}

/// Gates by `h |row|` of each site, which is how Llamascopium's own are all gated.
fn gate_by_site(sae: &mut Sae, n_sites: usize) -> std::result::Result<(), String> {
    let threshold_F = match &sae.rule {
        // A row's length does not change a sign.
        Rule::Relu(_) => return Ok(()),
        Rule::JumpRelu(jump) => &jump.threshold_F,
        _ => {
            return Err(
                "the k largest of each site by itself are not handled (sparsity_include_decoder_norm); convert it to \
                        jumprelu with Llamascopium's own command"
                    .into(),
            );
        }
    };
    let rows = sae.w_dec_FD.chunks_exact(sae.d_in / n_sites);
    let above_FS = rows.enumerate().map(|(row, w)| threshold_F.get(row / n_sites).map_or(0.0, |t| t / length(w)));
    let gates = SiteGates { n_sites, above_FS: above_FS.collect() };
    sae.rule = Rule::JumpRelu(JumpRelu { threshold_F: gates.least() });
    sae.site_gates = Some(gates);
    Ok(())
}

/// The thresholds that make gates of sites, where there are such.
fn thresholds_of(sae: &Sae, gates: &SiteGates) -> Option<Vec<f32>> {
    let rows: Vec<f32> = sae.w_dec_FD.chunks_exact(sae.d_out / gates.n_sites).map(length).collect();
    let each = rows.chunks_exact(gates.n_sites).zip(gates.above_FS.chunks_exact(gates.n_sites));
    each.map(|(lengths, gates)| {
        let mut products = lengths.iter().zip(gates).map(|(length, gate)| length * gate);
        let first = products.next()?;
        products.all(|other| (other - first).abs() <= 1e-5 * first).then_some(first)
    })
    .collect()
}

pub(super) fn read_kissane(place: &Place, _: &Choices) -> Result<Saved> {
    let (_, config) = place.json(KISSANE_FILES[0])?;
    let mut t = place.tensors(KISSANE_FILES[1])?;
    let [h, d, f] = sizes(&t, "W_enc")?;
    let mut sae = Sae::zeros(h * d, h * d, 0, Rule::Relu(Relu));
    sae.w_enc_FD = rows(&t.take("W_enc", &[h, d, f])?, [h, d, f]);
    sae.w_dec_FD = t.take("W_dec", &[f, h, d])?;
    sae.b_enc_F = t.take("b_enc", &[f])?;
    sae.b_dec_D = t.take("b_dec", &[h, d])?;
    t.finish("a crosscoder")?;
    let mut saved = Saved::new(sae, KISSANE_NAME);
    saved.metadata = config.as_object().cloned().unwrap_or_default();
    // It is of one site in two models, and not of two sites in one.
    if let Some(hook) = config["hook_point"].as_str() {
        saved.fact("hook_in_each_model", hook);
        saved.note(format!(
            "it reads {hook} in {h} models, their activations behind each other; where it was trained on activations \
             scaled to a mean length, the factors are not in its files and are to be applied before"
        ));
    }
    Ok(saved)
}

pub(super) fn write(saved: &Saved) -> Result<Files> {
    let sae = saved.dictionary.sae()?;
    let no_place = |what: &str| Err(SaeError::Shape(format!("{NAME} has no place for {what}")));
    let sites: Vec<&str> = saved.site().unwrap_or_default().split(',').collect();
    let (f, h) = (sae.b_enc_F.len(), sites.len());
    if sae.transcodes || sae.w_skip_DD.is_some() || sae.norm != InputNorm::None || h < 2 || !sae.d_in.is_multiple_of(h)
    {
        return no_place("a dictionary of one site, a transcoder, or a normalised input");
    }
    let d = sae.d_in / h;
    // Llamascopium loads only those that count the lengths of rows, and divides by them.
    let lengths_matter =
        !matches!(sae.rule, Rule::Relu(_)) || sae.w_dec_FD.chunks_exact(d).any(|row| length(row) == 0.0);
    let counts_rows = sae.site_gates.is_some() || !lengths_matter;
    // The decoder's bias is not taken off here: what it does in the encoder goes into the bias there, a share to each site.
    let b_enc: Vec<f32> = sae.uncentred_b_enc().iter().map(|b| b / h as f32).collect();
    let by_site = (0..h).flat_map(|h| (0..f).flat_map(move |l| l * sae.d_in + h * d..l * sae.d_in + (h + 1) * d));
    let w_dec: Vec<f32> = by_site.map(|i| sae.w_dec_FD[i]).collect();
    let mut arrays: Named = vec![
        ("W_E", vec![h, d, f], columns(&sae.w_enc_FD, [h, d, f])),
        ("b_E", vec![h, f], b_enc.repeat(h)),
        ("W_D", vec![h, f, d], w_dec),
        ("b_D", vec![h, d], sae.b_dec_D.clone()),
    ];
    let mut config = saved.metadata.clone();
    let own = [
        ("sae_type", json!("crosscoder")),
        ("d_model", json!(d)),
        ("expansion_factor", json!(f as f64 / d as f64)),
        ("use_decoder_bias", json!(true)),
        ("norm_activation", json!("inference")),
        ("sparsity_include_decoder_norm", json!(counts_rows)),
        ("hook_points", json!(sites)),
    ];
    config.extend(own.map(|(key, value)| (key.to_owned(), value)));
    match &sae.rule {
        Rule::Relu(_) => drop(config.insert("act_fn".into(), json!("relu"))),
        Rule::TopK(TopK { k }) => {
            config.extend([("act_fn".to_owned(), json!("topk")), ("top_k".to_owned(), json!(k))]);
        }
        Rule::JumpRelu(jump) => {
            let thresholds = match &sae.site_gates {
                None => jump.threshold_F.clone(),
                Some(gates) => match thresholds_of(sae, gates) {
                    Some(thresholds) => thresholds,
                    None => return no_place("gates of sites whose inputs were scaled by different factors"),
                },
            };
            // A threshold of 0 has no logarithm; the next number above it lets the same latents through.
            let log = |t: &f32| t.max(f32::MIN_POSITIVE).ln();
            config.insert("act_fn".into(), json!("jumprelu"));
            arrays.push((LOG_THRESHOLD, vec![f], thresholds.iter().map(log).collect()));
        }
        other => {
            return no_place(&format!("activations of kind {}; relu, topk and jumprelu it has", other.name()));
        }
    }
    Ok(vec![(FILES[1].into(), safetensors_of(&arrays)?), (FILES[0].into(), json_of(&Value::Object(config))?)])
}
