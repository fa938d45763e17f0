//! Cross-layer transcoders, a layer in each file.
//!
//! circuit-tracer's: `W_enc_L.safetensors` with `W_enc_L [F, D]`, `b_enc_L`, `b_dec_L [D]`, for some `threshold_L [F]`, and
//! `W_dec_L.safetensors` with `W_dec_L [F, L_all - L, D]`: by the layer that is read, and the layers from it on; beside them
//! `config.yaml`. Gemma Scope 2's: `params_layer_L.safetensors` with `w_enc [D, F]`, `b_enc`, `b_dec`, `threshold`,
//! `w_dec [F, L_all, D]`, of which the layers before L count for nothing, and for some `affine_skip_connection [D, D]`,
//! `y += x A`. Sources: safety-research/circuit-tracer, transcoder/cross_layer_transcoder.py (its loader of both), by whose
//! code `refs/sae_layers/clt_*` and `refs/sae_layers/gemma_scope_2_clt*` prove them. Its class knows a path beside the
//! latents (`x A`), its files do not; `W_skip_L` is read where it is there.

use super::tensors::{Named, Tensors, safetensors_of};
use super::{Choices, Files, Place, Saved, transposed};
use crate::kinds::{JumpRelu, Relu, Rule, TopK};
use crate::{AnyDictionary, CrossLayer, Result, Sae, SaeError};

/// The layout's name.
pub const NAME: &str = "circuit-tracer-clt";
pub(super) const GEMMA_NAME: &str = "gemma-scope-2-clt";

const CONFIG: &str = "config.yaml";
/// What we call the encoder's bias where only the k largest are kept: circuit-tracer would take no notice of k, and run such
/// a transcoder as ReLU; it is to refuse it instead.
const RANKED: &str = "b_enc_topk";
/// How keys of ours begin.
const OWN: &str = "exegete_";
/// What circuit-tracer's published ones read and write, where no configuration says so.
const HOOKS: [(&str, &str); 2] = [("feature_input_hook", "hook_resid_mid"), ("feature_output_hook", "hook_mlp_out")];

/// The files of a directory; `{}` stands for the layers.
pub(super) const FILES: [&str; 3] = ["W_enc_{}.safetensors", "W_dec_{}.safetensors", CONFIG];
pub(super) const FILES_ALONE: [&str; 2] = ["W_enc_{}.safetensors", "W_dec_{}.safetensors"];
pub(super) const GEMMA_FILES: [&str; 1] = ["params_layer_{}.safetensors"];

pub(super) fn fits(place: &Place) -> bool {
    place.has("W_enc_0.safetensors") && place.has("W_dec_0.safetensors")
}

pub(super) fn fits_gemma(place: &Place) -> bool {
    place.has("params_layer_0.safetensors")
}

/// Layers that have a file of this name.
fn n_layers(place: &Place, name: &str) -> usize {
    (0..).take_while(|layer| place.has(&name.replace("{}", &layer.to_string()))).count()
}

pub(super) fn read(place: &Place, choices: &Choices) -> Result<Saved> {
    let n = n_layers(place, FILES[0]);
    let (mut layers, mut b_dec_LD, mut skips) = (Vec::new(), Vec::new(), Vec::new());
    let facts = flat_yaml(place)?;
    let fact = |key: &str| facts.iter().find(|(k, _)| k == key).map(|(_, value)| value.as_str());
    let wrong = |detail: String| SaeError::format(&place.file(CONFIG), detail);
    let k = match (choices.k, fact("k")) {
        (Some(k), _) => Some(k),
        (None, Some(k)) => Some(k.parse().map_err(|_| wrong(format!("key \"k\" is {k:?} and no number; give --k")))?),
        (None, None) => None,
    };
    let said = fact("activation");
    let k = match (said, k) {
        (Some("topk"), None) => return Err(wrong("activation is topk, and key \"k\" is missing; give --k".into())),
        (Some("topk") | None, k) => k,
        (Some(other @ ("relu" | "jump_relu")), _) if choices.k.is_some() => {
            return Err(wrong(format!("activation is {other}, which has no k: leave --k out")));
        }
        (Some("relu" | "jump_relu"), _) => None,
        (Some(other), _) => {
            let detail = format!("key \"activation\" is {other:?}; handled are relu, jump_relu, topk");
            return Err(wrong(detail));
        }
    };
    for i in 0..n {
        let mut t = place.tensors(&format!("W_enc_{i}.safetensors"))?;
        let ranked = format!("{RANKED}_{i}");
        let b_enc = if t.has(&ranked) { ranked } else { format!("b_enc_{i}") };
        let (b_enc_F, b_dec) = (t.vector(&b_enc)?, t.vector(&format!("b_dec_{i}"))?);
        let (f, o) = (b_enc_F.len(), b_dec.len());
        let d = width(&t, &format!("W_enc_{i}"), o);
        let threshold = format!("threshold_{i}");
        if said.is_some_and(|said| (said == "jump_relu") != t.has(&threshold)) {
            let there = if t.has(&threshold) { "is there" } else { "is missing" };
            return Err(t.fail(format!("tensor {threshold:?} {there}, and {CONFIG} says {}", said.unwrap_or_default())));
        }
        let rule = match (t.has(&threshold), k) {
            (true, _) => Rule::JumpRelu(JumpRelu { threshold_F: t.vector(&threshold)? }),
            (false, Some(k)) => Rule::TopK(TopK { k }),
            (false, None) => Rule::Relu(Relu),
        };
        let mut sae = Sae { b_enc_F, transcodes: true, ..Sae::zeros(d, (n - i) * o, 0, rule) };
        sae.w_enc_FD = t.take(&format!("W_enc_{i}"), &[f, d])?;
        skips.extend(t.matrix_if_there(&format!("W_skip_{i}"), [d, o])?.map(|a| transposed(&a, d, o)));
        t.finish("a layer of a cross-layer transcoder")?;
        let mut t = place.tensors(&format!("W_dec_{i}.safetensors"))?;
        sae.w_dec_FD = t.take(&format!("W_dec_{i}"), &[f, n - i, o])?;
        t.finish("a layer of a cross-layer transcoder")?;
        b_dec_LD.extend(b_dec);
        layers.push(sae);
    }
    let mut saved = whole(place, CrossLayer { layers, b_dec_LD, w_skip_LDD: None }, skips, NAME)?;
    for (key, value) in &facts {
        let own = || serde_json::from_str::<serde_json::Value>(value).ok().filter(|_| key.starts_with(OWN));
        saved.fact(key, own().unwrap_or_else(|| value.as_str().into()));
    }
    saved.published_l0 = saved.metadata.get("exegete_l0").and_then(|l0| l0.as_f64());
    for ((key, otherwise), name) in HOOKS.into_iter().zip(["hook_name", "hook_name_out"]) {
        saved.fact(name, every(fact(key).unwrap_or(otherwise)));
    }
    if HOOKS.iter().any(|(key, _)| fact(key).is_none()) {
        saved.note(
            "no key of a config.yaml says which sites it reads and writes: taken to be hook_resid_mid and hook_mlp_out",
        );
    }
    let is_guessed = saved.dictionary.encoders().iter().any(|sae| matches!(sae.rule, Rule::Relu(_)));
    if is_guessed && said.is_none() {
        saved.note("nothing says how its activations are made, and there are no thresholds: taken to be ReLU's");
    }
    Ok(saved)
}

pub(super) fn read_gemma(place: &Place, _: &Choices) -> Result<Saved> {
    let n = n_layers(place, GEMMA_FILES[0]);
    let (mut layers, mut b_dec_LD, mut skips) = (Vec::new(), Vec::new(), Vec::new());
    for i in 0..n {
        let mut t = place.tensors(&format!("params_layer_{i}.safetensors"))?;
        let (b_enc_F, b_dec, threshold_F) = (t.vector("b_enc")?, t.vector("b_dec")?, t.vector("threshold")?);
        let (f, o) = (b_enc_F.len(), b_dec.len());
        let d = t.shape("w_enc").and_then(|s| s.first().copied()).unwrap_or(o);
        let rule = Rule::JumpRelu(JumpRelu { threshold_F });
        let mut sae = Sae { b_enc_F, transcodes: true, ..Sae::zeros(d, (n - i) * o, 0, rule) };
        sae.w_enc_FD = t.turned("w_enc", [f, d])?;
        if t.shape("w_dec").is_some_and(|shape| shape.len() != 3) {
            return Err(t.fail("w_dec has no axis of layers: a crosscoder of this release, whose layout is not known"));
        }
        let all = t.take("w_dec", &[f, n, o])?;
        sae.w_dec_FD = all.chunks_exact(n * o).flat_map(|row| &row[i * o..]).copied().collect();
        skips.extend(t.matrix_if_there("affine_skip_connection", [d, o])?.map(|a| transposed(&a, d, o)));
        t.finish("a layer of a Gemma Scope 2 cross-layer transcoder")?;
        b_dec_LD.extend(b_dec);
        layers.push(sae);
    }
    let mut saved = whole(place, CrossLayer { layers, b_dec_LD, w_skip_LDD: None }, skips, GEMMA_NAME)?;
    for ((_, hook), name) in HOOKS.into_iter().zip(["hook_name", "hook_name_out"]) {
        saved.fact(name, every(hook));
    }
    Ok(saved)
}

/// Puts layers and skips together.
fn whole(place: &Place, mut layers: CrossLayer, skips: Vec<Vec<f32>>, name: &'static str) -> Result<Saved> {
    match skips.len() {
        0 => {}
        n if n == layers.layers.len() => layers.w_skip_LDD = Some(skips),
        n => {
            let detail = format!("{n} of {} layers have a path beside their latents", layers.layers.len());
            return Err(SaeError::format(&place.path, detail));
        }
    }
    Ok(Saved::new(layers, name))
}

fn width(t: &Tensors, name: &str, otherwise: usize) -> usize {
    t.shape(name).and_then(|shape| shape.last().copied()).unwrap_or(otherwise)
}

/// A hook of every layer, by TransformerLens's name of one.
fn every(hook: &str) -> String {
    match hook {
        "hook_mlp_in" | "mlp.hook_in" => "blocks.*.mlp.hook_in".into(),
        hook => format!("blocks.*.{hook}"),
    }
}

/// The top keys of `config.yaml` that have a plain value, if there is such a file.
fn flat_yaml(place: &Place) -> Result<Vec<(String, String)>> {
    if !place.has(CONFIG) {
        return Ok(Vec::new());
    }
    let path = place.file(CONFIG);
    let bytes = std::fs::read(&path).map_err(|source| SaeError::Io { path: path.clone(), source })?;
    let text = String::from_utf8(bytes).map_err(|_| SaeError::format(&path, "no UTF-8 text"))?;
    // Lists and what is below a key are not of the top.
    let is_top = |line: &&str| {
        !line.trim().is_empty() && !["---", "..."].contains(line) && !line.starts_with([' ', '-', '#', '\t', ']', '}'])
    };
    let is_key = |key: &str| !key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || "_.-\"'".contains(c));
    let fault = |line: &&str| !line.split_once(':').is_some_and(|(key, _)| is_key(key.trim()));
    if let Some(line) = text.lines().filter(is_top).find(fault) {
        let line: String = line.chars().take(60).collect();
        return Err(SaeError::format(
            &path,
            format!("line {line:?} is no \"key: value\", and nothing else is understood"),
        ));
    }
    let plain = |line: &str| {
        let (key, value) = line.split_once(':')?;
        let value = match key.starts_with(OWN) {
            true => value.trim(),
            false => value.split(" #").next()?.trim().trim_matches(['"', '\'']),
        };
        let is_plain = !key.starts_with([' ', '-', '#']) && !value.is_empty();
        is_plain.then(|| (key.trim().to_owned(), value.to_owned()))
    };
    Ok(text.lines().filter_map(plain).collect())
}

pub(super) fn write(saved: &Saved) -> Result<Files> {
    let no_place = |what: &str| Err(SaeError::Shape(format!("{NAME} has no place for {what}")));
    let AnyDictionary::CrossLayer(all) = &saved.dictionary else {
        return no_place("a dictionary of one encoder; it is one of cross-layer transcoders");
    };
    // Its own loader would take no notice of what lies there.
    if all.w_skip_LDD.is_some() {
        return no_place("a path beside the latents");
    }
    let (n, o) = (all.layers.len(), all.width_out());
    let mut files = Vec::new();
    let (mut activation, mut k) = ("relu", None);
    for (i, sae) in all.layers.iter().enumerate() {
        let (f, d) = (sae.b_enc_F.len(), sae.d_in);
        if sae.w_skip_DD.is_some() || sae.norm != crate::InputNorm::None {
            return no_place("a normalised input");
        }
        let b_enc = if matches!(sae.rule, Rule::TopK(_)) { RANKED } else { "b_enc" };
        let [w_enc, b_enc, b_dec, threshold, w_dec] =
            ["W_enc", b_enc, "b_dec", "threshold", "W_dec"].map(|name| format!("{name}_{i}"));
        let mut arrays: Named = vec![
            (&w_enc, vec![f, d], sae.w_enc_FD.clone()),
            (&b_enc, vec![f], sae.b_enc_F.clone()),
            (&b_dec, vec![o], all.b_dec_LD[i * o..(i + 1) * o].to_vec()),
        ];
        match &sae.rule {
            Rule::Relu(_) => {}
            Rule::TopK(top) => (activation, k) = ("topk", Some(top.k)),
            Rule::JumpRelu(jump) => {
                activation = "jump_relu";
                arrays.push((&threshold, vec![f], jump.threshold_F.clone()));
            }
            other => return no_place(&format!("activations of kind {}; relu, topk and jumprelu it has", other.name())),
        }
        files.push((format!("W_enc_{i}.safetensors"), safetensors_of(&arrays)?));
        let arrays: Named = vec![(&w_dec, vec![f, n - i, o], sae.w_dec_FD.clone())];
        files.push((format!("W_dec_{i}.safetensors"), safetensors_of(&arrays)?));
    }
    let text = |key: &str| saved.metadata.get(key).and_then(|v| v.as_str());
    let hook = |key: &str, otherwise: &'static str| {
        text(key).and_then(|name| name.strip_prefix("blocks.*.")).unwrap_or(otherwise).to_owned()
    };
    let mut config = format!(
        "model_name: {:?}\nmodel_kind: cross_layer_transcoder\nfeature_input_hook: {:?}\nfeature_output_hook: {:?}\n\
         activation: {activation}\n",
        text("model_name").unwrap_or_default(),
        hook("hook_name", HOOKS[0].1),
        hook("hook_name_out", HOOKS[1].1),
    );
    if let Some(k) = k {
        config.push_str(&format!("k: {k}\n"));
    }
    // What our training says of it, as JSON, which YAML holds.
    for (key, value) in saved.metadata.iter().filter(|(key, _)| key.starts_with(OWN)) {
        config.push_str(&format!("{key}: {value}\n"));
    }
    files.push((CONFIG.into(), config.into_bytes()));
    Ok(files)
}
