//! What came out of a training: calibrated, measured on held-out documents, and saved.

use exegete_base::Site;
use exegete_base::settings::Activation;
use exegete_base::stats::Estimate;
use exegete_sae::Dictionary;
use exegete_sae::formats::{self, Saved, cross_layer, crosscoder, saelens};
use exegete_sae::metrics::{self, Reconstruction};
use exegete_store::Run;
use serde_json::{Map, Value, json};

use super::Subject;
use super::feed::{Ends, Feed};
use super::job::Shape;
use super::learner::Learner;
use crate::Result;
use crate::activations::Activations;
use crate::rows::split;

/// How far off its target a steered L0 may be without a word.
const NEAR: f64 = 0.1;
/// Values that are measured together, about: codes are made of blocks of tokens, and of few tokens one is mostly empty.
const MEASURED: usize = 4 << 20;
/// Training tokens on which the threshold of a BatchTopK dictionary is found, drawn at random.
const CALIBRATION_TOKENS: usize = 8192;

/// Measures and saves a trained dictionary; says how it is.
pub(super) fn finish(
    run: &mut Run,
    acts: &Activations,
    subject: &Subject,
    (learner, feed): (&Learner, &Feed),
    n_steps: u64,
) -> Result<String> {
    let Learner { job, ends, states, .. } = learner;
    let (settings, state) = (&job.settings, &states[0]);
    let mut dictionary = learner.dictionary();
    let mut metadata: Map<String, Value> = Map::new();
    if settings.activation == Activation::BatchTopK {
        let mut x = Vec::new();
        ends.reads.gather(acts, &feed.sample(CALIBRATION_TOKENS), &mut x)?;
        acts.hold(&[])?;
        metadata.insert("exegete_calibrated_on_tokens".into(), json!(x.len() / ends.reads.width()));
        metadata.insert("exegete_batchtopk_k".into(), json!(settings.k));
        dictionary = dictionary.calibrated(&x)?;
    }
    let quality = measure(&*dictionary, acts, ends, subject)?;
    let (fvu, l0) = (quality.estimate, quality.l0);
    dictionary.fold_site_factors(&ends.reads.factors, &ends.target().factors);
    let facts = [
        ("sae_lens_version", json!("6")),
        ("model_name", json!(subject.name)),
        ("exegete_input_scale", json!(state.scale)),
        ("exegete_fvu", json!(fvu)),
        ("exegete_fvu_measured_on", json!(quality.measured_on)),
        ("exegete_l0", json!(l0)),
        ("exegete_metrics_version", json!(metrics::VERSION)),
        ("exegete_training", json!(settings)),
    ];
    metadata.extend(facts.map(|(key, value)| (key.to_owned(), value)));
    let shape = ends.sites.shape();
    metadata.insert("hook_name".into(), json!(names(&ends.sites.reads, shape)));
    if !ends.sites.writes.is_empty() {
        metadata.insert("hook_name_out".into(), json!(names(&ends.sites.writes, shape)));
    }
    let (kind, n_latents) = (dictionary.kind(), dictionary.n_latents());
    let layout = match shape {
        Shape::Autoencoder | Shape::Transcoder => saelens::NAME,
        Shape::Crosscoder => crosscoder::NAME,
        Shape::CrossLayer => cross_layer::NAME,
    };
    for (name, bytes) in formats::write(&Saved { metadata, ..Saved::new(dictionary, layout) }, layout)? {
        let rel = format!("{}/{name}", job.dir());
        run.commit_part(&rel, n_latents as u64, |w| std::io::Write::write_all(w, &bytes))?;
    }
    let summary = json!({
        "kind": kind, "n_latents": n_latents, "k": settings.k, "steps": n_steps,
        "tokens": if settings.reconstruction.is_end_to_end() { Value::Null } else { json!(n_steps * settings.batch as u64) }, "lr": settings.peak_lr(), "sites": ends.sites.recorded(),
        "aux_k": settings.resolved_aux_k(state.d), "fvu": fvu, "fvu_measured_on": quality.measured_on, "l0": l0,
        "silent": quality.n_silent, "input_scale": state.scale, "metrics_version": metrics::VERSION, "seed": subject.seed,
        "sparsity": settings.sparsity * states.iter().map(|state| state.steering).sum::<f64>() / states.len() as f64, "layout": layout,
    });
    run.finish_stage(&job.stage(), summary)?;
    let span = match fvu.n {
        0 | 1 => "no interval".into(),
        n => format!("{:.4} to {:.4}, n = {n}", fvu.low, fvu.high),
    };
    let on = quality.measured_on;
    let name = job.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let silent = quality.n_silent;
    // Each layer of a cross-layer transcoder has the target for itself.
    let target = settings.target_l0 * states.len() as f64;
    let remarks = match l0 / target - 1.0 {
        off if target > 0.0 && off > NEAR => {
            format!(
                "; not yet at the L0 of {target} that it is steered to: more steps or a larger --sparsity bring it nearer"
            )
        }
        off if target > 0.0 && off < -NEAR => {
            format!(
                "; below the L0 of {target} that it is steered to: more steps or a smaller --sparsity bring it nearer"
            )
        }
        _ => String::new(),
    };
    let remarks = match fvu.value {
        fvu if fvu.is_nan() => {
            format!("{remarks}; the FVU is no number: there is nothing to explain in what was measured")
        }
        // Where no L0 is missed, steps that are too long are the likely reason.
        1.0.. if remarks.is_empty() => "; it explains less than the mean does: lower --lr, or give more steps".into(),
        1.0.. => format!("{remarks}; it explains less than the mean does"),
        _ => remarks,
    };
    Ok(format!("{name}FVU {:.4} ({span}), L0 {l0:.1}, {silent} silent on {on}{remarks}", fvu.value))
}

/// Sites as metadata name them, with commas between; those of a cross-layer transcoder with a `*`, as
/// its layout names them.
fn names(sites: &[Site], shape: Shape) -> String {
    let starred = |site: &Site| site.layer.map(|layer| site.to_string().replacen(&format!(".{layer}."), ".*.", 1));
    match starred(&sites[0]) {
        Some(name) if shape == Shape::CrossLayer => name,
        _ => sites.iter().map(Site::to_string).collect::<Vec<_>>().join(","),
    }
}

/// Fraction of variance unexplained, and what it was measured on.
struct Quality {
    /// FVU with its interval over documents.
    estimate: Estimate,
    /// Mean number of active latents.
    l0: f64,
    /// Latents that were never active.
    n_silent: usize,
    /// See [`Split::measured_on`](crate::rows::Split::measured_on).
    measured_on: &'static str,
}

/// Measures a dictionary of sites times their factors on the documents that were held out of training, each site of several
/// weighing alike.
fn measure(dictionary: &dyn Dictionary, acts: &Activations, ends: &Ends, subject: &Subject) -> Result<Quality> {
    let split = split(subject.windows, subject.seed);
    let mut sums = Reconstruction::new(dictionary.d_out(), dictionary.n_latents());
    let (mut x, mut y, mut last_doc) = (Vec::new(), Vec::new(), None);
    let longest = split.measured.iter().map(|w| w.rows().len()).max().unwrap_or(1);
    let together = MEASURED / (longest * (dictionary.d_in() + 2 * dictionary.d_out())).max(1);
    for windows in split.measured.chunks(together.clamp(1, 32)) {
        let rows: Vec<u64> = windows.iter().flat_map(|w| w.rows()).collect();
        ends.reads.gather(acts, &rows, &mut x)?;
        let target = match &ends.writes {
            Some(writes) => {
                writes.gather(acts, &rows, &mut y)?;
                &y
            }
            None => &x,
        };
        acts.forget(&rows);
        let codes = dictionary.encode(&x)?;
        let mut recon = vec![0f32; target.len()];
        dictionary.reconstruct(&x, &codes, &mut recon)?;
        let (mut at, d_out) = (0, dictionary.d_out());
        for w in windows {
            let tokens = at..at + w.rows().len();
            at = tokens.end;
            let values = tokens.start * d_out..tokens.end * d_out;
            let is_more = last_doc == Some(w.window.doc);
            sums.add(&target[values.clone()], &recon[values], &codes.part(tokens), is_more);
            last_doc = Some(w.window.doc);
        }
    }
    let n_silent = sums.density().n_dead();
    Ok(Quality { estimate: sums.fvu(), l0: sums.l0(), n_silent, measured_on: split.measured_on() })
}
