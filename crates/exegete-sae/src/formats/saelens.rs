//! The SAELens directory: `cfg.json` and `sae_weights.safetensors`, of version 6 and of those before.
//!
//! Tensors: `W_enc [D, F]`, `b_enc [F]`, `W_dec [F, D_out]`, `b_dec [D_out]`, and by architecture `threshold [F]`,
//! `b_gate`, `b_mag`, `r_mag [F]`, `W_skip [D_out, D]`; a matching pursuit has no encoder. Source: jbloomAus/SAELens, `saes/` and `loading/`. The
//! architecture `kth_largest`, with the keys `kth_eps` and `kth_form`, is one of ours in its layout, and so are transcoders
//! of other kinds than ReLU and JumpReLU, `topk_transcoder`, `topk_skip_transcoder` and so on.
//! `refs/sae_saelens`, `refs/sae_matching_pursuit` and `refs/sae_peers/saelens_*` prove it, by the project's own code.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::tensors::{Tensors, safetensors_of};
use super::{Choices, Files, Place, Saved, json_of, transposed};
use crate::kinds::{BatchTopK, Gated, JumpRelu, KthLargest, MatchingPursuit, Relu, Rule, TopK};
use crate::{InputNorm, Result, Sae, SaeError};

/// Name of the layout.
pub const NAME: &str = "saelens";
/// Name of the configuration file.
pub const CONFIG: &str = "cfg.json";
/// Name of the weights file.
pub const WEIGHTS: &str = "sae_weights.safetensors";

/// Architectures that are read. A transcoder of another kind than ReLU has its kind's name first.
const ARCHITECTURES: &[&str] = &[
    "standard",
    "topk",
    "jumprelu",
    "gated",
    "batchtopk",
    "matryoshka_batchtopk",
    "matching_pursuit",
    "kth_largest",
    TRANSCODER,
    SKIPS,
];
/// A dictionary that writes to another site.
const TRANSCODER: &str = "transcoder";
/// One with a path beside the latents.
const SKIPS: &str = "skip_transcoder";

/// The kind of an architecture, whether it writes to another site, and whether it has a path beside the latents.
fn taken_apart(architecture: &str) -> Option<(&'static str, bool, bool)> {
    let kinds = ARCHITECTURES.iter().filter(|name| ![TRANSCODER, SKIPS].contains(name));
    let behind = |kind: &'static str| match architecture.strip_prefix(kind)?.strip_prefix('_')? {
        TRANSCODER => Some((kind, true, false)),
        SKIPS => Some((kind, true, true)),
        _ => None,
    };
    match architecture {
        TRANSCODER => Some(("standard", true, false)),
        SKIPS => Some(("standard", true, true)),
        _ => kinds
            .copied()
            .find_map(|kind| (kind == architecture).then_some((kind, false, false)).or_else(|| behind(kind))),
    }
}

/// Forms of `kth_largest`: whether it is a gate, and its name.
const KTH_FORMS: &[(bool, &str)] = &[(false, "b"), (true, "c")];

/// Said of a dictionary whose factor of the input is unknown.
const SCALED: &str = "trained on inputs scaled to an average norm of the root of their width. SAELens folds the factor in \
                      when it saves; a release that does not states it elsewhere, and shows by an L0 far from the published \
                      one";

pub(super) fn fits(place: &Place) -> bool {
    place.has(CONFIG) && place.has(WEIGHTS)
}

/// Reads a directory of this layout.
///
/// # Errors
/// Missing or damaged files, architectures and conventions that are not handled, tensors that do not fit them.
pub fn load(dir: &Path) -> Result<Saved> {
    super::load(dir, &Choices { format: Some(NAME.into()), ..Choices::default() })
}

pub(super) fn read(place: &Place, choices: &Choices) -> Result<Saved> {
    let (path, config) = place.json(CONFIG)?;
    let facts = Facts::read(&path, &config, choices)?;
    let mut t = place.tensors(WEIGHTS)?;
    let (d, o, f) = (facts.d_in, facts.d_out, facts.d_sae);
    let mut notes = facts.notes.clone();
    let b_enc_name = if facts.kind == "gated" { "b_gate" } else { "b_enc" };
    // Before anything is as large as the configuration says.
    let b_dec_D = t.take("b_dec", &[o])?;
    let mut sae = Sae { b_dec_D, ..Sae::zeros(d, o, 0, Rule::Relu(Relu)) };
    let is_tied = facts.kind == "matching_pursuit";
    if !is_tied {
        sae.b_enc_F = t.take(b_enc_name, &[f])?;
        sae.w_enc_FD = t.turned("W_enc", [f, d])?;
    }
    sae.w_dec_FD = t.take("W_dec", &[f, o])?;
    if is_tied {
        (sae.w_enc_FD, sae.b_enc_F) = (sae.w_dec_FD.clone(), vec![0.0; f]);
        if !facts.centres_input {
            // SAELens adds the bias at the end only where it took it off at the start.
            sae.b_dec_D.fill(0.0);
        }
    }
    sae.w_skip_DD = t.matrix_if_there("W_skip", [o, d])?;
    if facts.skips != sae.w_skip_DD.is_some() {
        let there = if sae.w_skip_DD.is_some() { "there" } else { "missing" };
        return Err(
            t.fail(format!("tensor \"W_skip\" is {there} in a dictionary of architecture {:?}", facts.architecture))
        );
    }
    sae.rule = rule(&facts, &mut t, &sae, &mut notes)?;
    sae.centres_input = facts.centres_input;
    sae.norm = facts.norm;
    sae.transcodes = facts.transcodes;
    scale_activations(&mut sae, &mut t)?;
    match choices.input_factor {
        Some(factor) if facts.scaled => {
            sae.fold_input_factor(factor as f32);
            notes.push(format!("inputs were scaled by {factor:.5}, as its release states: folded in"));
        }
        None if facts.scaled => notes.push(SCALED.into()),
        _ => {}
    }
    t.finish(&format!("a {} dictionary", facts.architecture))?;
    if facts.rescales {
        sae.fold_decoder_norms();
        notes.push("activations count the length of their decoder rows, which is in the encoder now".into());
    }
    let mut saved = Saved::new(sae, NAME);
    saved.metadata = facts.metadata;
    saved.notes = notes;
    let said = |key: &str| saved.metadata.get(key).and_then(Value::as_f64);
    saved.published_l0 = said("l0").or_else(|| said("exegete_l0")).or(facts.k.map(|k| k as f64));
    Ok(saved)
}

fn rule(facts: &Facts, t: &mut Tensors, sae: &Sae, notes: &mut Vec<String>) -> Result<Rule> {
    let f = facts.d_sae;
    let k = || facts.k.ok_or_else(|| t.fail("the configuration has no \"k\"; give --k"));
    Ok(match facts.kind.as_str() {
        "topk" => Rule::TopK(TopK { k: k()? }),
        "kth_largest" => {
            let (is_gate, eps) =
                facts.kth.ok_or_else(|| t.fail("\"kth_form\" must be b or c, \"kth_eps\" a number"))?;
            Rule::KthLargest(KthLargest { is_gate, k: k()?, eps })
        }
        "batchtopk" | "matryoshka_batchtopk" => {
            let k = k()?;
            let threshold = if t.has("topk_threshold") { t.number("topk_threshold")? } else { 0.0 };
            if threshold > 0.0 {
                notes.push(format!("run by the threshold of {threshold:.4} that its training kept; k was {k}"));
                Rule::JumpRelu(JumpRelu { threshold_F: vec![threshold; f] })
            } else {
                notes.push(format!(
                    "no threshold was saved: the {k} largest a token are kept over the tokens of a call, so that a \
                     token's code depends on the others"
                ));
                Rule::BatchTopK(BatchTopK { k })
            }
        }
        "matching_pursuit" => {
            let pursuit = facts.pursuit.ok_or_else(|| {
                t.fail(
                    "\"residual_threshold\" must be a number, \"max_iterations\" a whole number or null, and \
                        \"stop_on_duplicate_support\" true or false",
                )
            })?;
            Rule::MatchingPursuit(pursuit)
        }
        "gated" => {
            let (r_mag, b_mag) = (t.take("r_mag", &[f])?, t.take("b_mag", &[f])?);
            Rule::Gated(Gated::new(&r_mag, &sae.b_enc_F, &b_mag))
        }
        "jumprelu" => {
            let threshold_F = match t.has("log_threshold") {
                true => t.take("log_threshold", &[f])?.iter().map(|log| log.exp()).collect(),
                false => t.take("threshold", &[f])?,
            };
            Rule::JumpRelu(JumpRelu { threshold_F })
        }
        _ => Rule::Relu(Relu),
    })
}

/// Takes in a factor of the activations behind the rule, as releases before version 6 may have.
fn scale_activations(sae: &mut Sae, t: &mut Tensors) -> Result<()> {
    if !t.has("scaling_factor") {
        return Ok(());
    }
    let (d, f) = (sae.d_in, sae.b_enc_F.len());
    let scale = t.take("scaling_factor", &[f])?;
    if scale.iter().all(|s| *s == 1.0) {
        return Ok(());
    }
    if scale.iter().any(|s| *s <= 0.0) || matches!(sae.rule, Rule::Gated(_) | Rule::MatchingPursuit(_)) {
        let detail = "tensor \"scaling_factor\" is not above 0 everywhere, or of a dictionary that has none";
        return Err(t.fail(detail));
    }
    for (latent, s) in scale.iter().enumerate() {
        sae.w_enc_FD[latent * d..(latent + 1) * d].iter_mut().for_each(|w| *w *= s);
        sae.b_enc_F[latent] *= s;
        if let Rule::JumpRelu(jump) = &mut sae.rule {
            jump.threshold_F[latent] *= s;
        }
    }
    Ok(())
}

/// What the configuration says.
struct Facts {
    architecture: String,
    kind: String,
    transcodes: bool,
    skips: bool,
    d_in: usize,
    d_out: usize,
    d_sae: usize,
    k: Option<usize>,
    kth: Option<(bool, f32)>,
    pursuit: Option<MatchingPursuit>,
    centres_input: bool,
    rescales: bool,
    norm: InputNorm,
    /// Whether inputs were scaled by a factor in training that is not in the configuration.
    scaled: bool,
    metadata: Map<String, Value>,
    notes: Vec<String>,
}

impl Facts {
    fn read(path: &Path, config: &Value, choices: &Choices) -> Result<Self> {
        let fail = |detail: String| SaeError::format(path, detail);
        let size = |key: &str| {
            let value = config[key].as_u64().and_then(|v| usize::try_from(v).ok()).filter(|v| (1..1 << 32).contains(v));
            value.ok_or_else(|| fail(format!("key {key:?} must be a whole number from 1, but is {}", config[key])))
        };
        let flag = |key: &str, default: bool| match &config[key] {
            Value::Null => Ok(default),
            Value::Bool(b) => Ok(*b),
            other => Err(fail(format!("key {key:?} must be true or false, but is {other}"))),
        };
        let mut notes = Vec::new();
        // Before version 6 all keys lay side by side, and there was no "metadata".
        let is_old = !config["metadata"].is_object();
        let (activation, k) = match is_old {
            true => (Some(old_activation(config)), config["activation_fn_kwargs"]["k"].as_u64()),
            false => (None, config["k"].as_f64().map(|k| k as u64)),
        };
        // What it is was told by the activation function before; now nothing else tells it.
        let named = match &config["architecture"] {
            Value::String(named) => named,
            Value::Null if is_old => "standard",
            other => {
                let known = ARCHITECTURES.join(", ");
                return Err(fail(format!("key \"architecture\" is missing or {other}; it must be one of {known}")));
            }
        };
        let architecture = match (named, activation) {
            ("standard", Some("topk")) => "topk",
            (_, None | Some("relu" | "topk")) => named,
            (_, Some(other)) => {
                return Err(fail(format!("activation function {other:?} is not handled; handled are relu, topk")));
            }
        };
        if is_old {
            notes.push("of a release of SAELens before version 6".into());
        }
        let Some((kind, transcodes, skips)) = taken_apart(architecture) else {
            let known = ARCHITECTURES.join(", ");
            return Err(fail(format!("architecture {architecture:?} is not handled; handled are {known}")));
        };
        let metadata =
            if is_old { old_metadata(config) } else { config["metadata"].as_object().cloned().unwrap_or_default() };
        if !matches!(config["reshape_activations"].as_str(), None | Some("none" | "hook_z")) {
            let detail =
                format!("key \"reshape_activations\" is {}; handled are none, hook_z", config["reshape_activations"]);
            return Err(fail(detail));
        }
        let d_in = size("d_in")?;
        let (norm, scaled) = match choices.norm {
            Some(norm) => {
                notes.push(format!("the input is normalised by {}, as its release states", norm.name()));
                (norm, false)
            }
            None => norm(&config["normalize_activations"]).map_err(fail)?,
        };
        Ok(Self {
            architecture: architecture.into(),
            kind: kind.into(),
            transcodes,
            skips,
            d_in,
            d_out: if transcodes { size("d_out")? } else { d_in },
            d_sae: size("d_sae")?,
            k: choices.k.or(k.map(|k| k as usize)),
            kth: KTH_FORMS
                .iter()
                .find(|(_, name)| config["kth_form"] == *name)
                .and_then(|(is_gate, _)| Some((*is_gate, config["kth_eps"].as_f64()? as f32))),
            pursuit: pursuit(config, d_in),
            // Missing means true: SAELens's default, and that of its releases before version 6. A transcoder has none.
            centres_input: flag("apply_b_dec_to_input", !transcodes)?,
            rescales: flag("rescale_acts_by_decoder_norm", false)?,
            norm,
            scaled,
            metadata,
            notes,
        })
    }
}

/// What the configuration says of a matching pursuit, with SAELens's defaults for what is missing.
fn pursuit(config: &Value, d_in: usize) -> Option<MatchingPursuit> {
    let given = |key: &str| Some(&config[key]).filter(|value| !value.is_null());
    Some(MatchingPursuit {
        max_iterations: given("max_iterations").map_or(Some(d_in), |n| usize::try_from(n.as_u64()?).ok())?,
        residual_threshold: given("residual_threshold").map_or(Some(1e-2), Value::as_f64)? as f32,
        stops_on_duplicate: given("stop_on_duplicate_support").map_or(Some(true), Value::as_bool)?,
    })
}

/// The activation function, under either of its old names.
fn old_activation(config: &Value) -> &str {
    let named = |key: &str| config[key].as_str();
    named("activation_fn_str").or_else(|| named("activation_fn")).unwrap_or("relu")
}

/// The facts of an old configuration, under their names of today.
fn old_metadata(config: &Value) -> Map<String, Value> {
    let arrays = ["architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations"];
    let mut metadata = Map::new();
    for (key, value) in config.as_object().into_iter().flatten() {
        let name = match key.as_str() {
            "hook_point" => "hook_name",
            "hook_point_head_index" => "hook_head_index",
            other => other,
        };
        if !arrays.contains(&name) {
            metadata.insert(name.into(), value.clone());
        }
    }
    metadata.entry("prepend_bos").or_insert(Value::Bool(true));
    metadata
}

/// What is done to the input, and whether it was scaled in training.
fn norm(value: &Value) -> std::result::Result<(InputNorm, bool), String> {
    match value {
        Value::Null | Value::Bool(false) => Ok((InputNorm::None, false)),
        Value::Bool(true) => Ok((InputNorm::None, true)),
        Value::String(name) if name == "expected_average_only_in" => Ok((InputNorm::None, true)),
        other => {
            let found = InputNorm::NAMES.iter().find(|(name, _)| other == name);
            found.map(|(_, norm)| (*norm, false)).ok_or_else(|| {
                let known: Vec<&str> = InputNorm::NAMES.iter().map(|(name, _)| *name).collect();
                format!("key \"normalize_activations\" is {other}; handled are {}", known.join(", "))
            })
        }
    }
}

pub(super) fn write(saved: &Saved) -> Result<Files> {
    let (config, weights) = to_bytes(saved)?;
    Ok(vec![(WEIGHTS.into(), weights), (CONFIG.into(), config)])
}

/// The two files' contents, ready to be written by whoever owns the directory.
///
/// # Errors
/// Arrays that do not fit together; what this layout has no place for.
pub fn to_bytes(saved: &Saved) -> Result<(Vec<u8>, Vec<u8>)> {
    let sae = saved.dictionary.sae()?;
    sae.check()?;
    let (f, d, o) = (sae.b_enc_F.len(), sae.d_in, sae.d_out);
    let no_place = |what: &str| Err(SaeError::Shape(format!("SAELens's layout has no place for {what}")));
    if sae.site_gates.is_some() {
        return no_place("a crosscoder's gates of single sites");
    }
    let named = match sae.rule {
        Rule::Relu(_) => String::new(),
        _ => format!("{}_", sae.rule.name()),
    };
    let architecture = match (&sae.rule, sae.transcodes, sae.w_skip_DD.is_some()) {
        (Rule::BatchTopK(_), ..) => return no_place("a BatchTopK dictionary without a threshold; give it one first"),
        (Rule::MatchingPursuit(_), true, _) => return no_place("a transcoder that reads with its decoder"),
        (_, false, true) => return no_place("a path beside the latents of an autoencoder"),
        (_, true, true) => format!("{named}{SKIPS}"),
        (_, true, false) => format!("{named}{TRANSCODER}"),
        (rule, false, false) => rule.name().into(),
    };
    let mut config = json!({
        "architecture": architecture, "d_in": d, "d_sae": f, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": sae.centres_input, "normalize_activations": sae.norm.name(),
        "reshape_activations": "none", "metadata": saved.metadata,
    });
    if sae.transcodes {
        config["d_out"] = o.into();
    }
    let mut arrays = vec![("W_dec", vec![f, o], sae.w_dec_FD.clone()), ("b_dec", vec![o], sae.b_dec_D.clone())];
    if !matches!(sae.rule, Rule::MatchingPursuit(_)) {
        let bias = if let Rule::Gated(_) = sae.rule { "b_gate" } else { "b_enc" };
        arrays.push((bias, vec![f], sae.b_enc_F.clone()));
        arrays.push(("W_enc", vec![d, f], transposed(&sae.w_enc_FD, f, d)));
    }
    match &sae.rule {
        Rule::TopK(TopK { k }) => {
            config["k"] = (*k).into();
            config["rescale_acts_by_decoder_norm"] = false.into();
        }
        Rule::JumpRelu(jump) => arrays.push(("threshold", vec![f], jump.threshold_F.clone())),
        Rule::Gated(gated) => {
            let b_mag = gated.shift_F.iter().zip(&gated.scale_F).zip(&sae.b_enc_F).map(|((shift, s), b)| shift + s * b);
            arrays.push(("b_mag", vec![f], b_mag.collect()));
            arrays.push(("r_mag", vec![f], gated.scale_F.iter().map(|s| s.ln()).collect()));
        }
        Rule::KthLargest(kth) => {
            config["k"] = kth.k.into();
            config["kth_eps"] = kth.eps.into();
            config["kth_form"] = KTH_FORMS.iter().find(|(is_gate, _)| *is_gate == kth.is_gate).map(|(_, n)| *n).into();
        }
        Rule::MatchingPursuit(pursuit) => {
            config["max_iterations"] = pursuit.max_iterations.into();
            config["residual_threshold"] = pursuit.residual_threshold.into();
            config["stop_on_duplicate_support"] = pursuit.stops_on_duplicate.into();
        }
        Rule::Relu(_) | Rule::BatchTopK(_) => {}
    }
    if let Some(skip) = &sae.w_skip_DD {
        arrays.push(("W_skip", vec![o, d], skip.clone()));
    }
    Ok((json_of(&config)?, safetensors_of(&arrays)?))
}
