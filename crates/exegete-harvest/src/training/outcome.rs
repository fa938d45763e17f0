//! What came out of a training: calibrated, measured on held-out documents, and saved.

use exegete_base::settings::Activation;
use exegete_base::stats::Estimate;
use exegete_sae::formats::{Saved, saelens};
use exegete_sae::metrics::{self, Reconstruction};
use exegete_sae::{Dictionary, Sae};
use exegete_store::Run;
use serde_json::{Map, Value, json};

use super::Subject;
use super::feed::{Ends, Feed};
use super::learner::Learner;
use crate::Result;
use crate::activations::Activations;
use crate::rows::split;

/// How far off its target a steered L0 may be without a word.
const NEAR: f64 = 0.1;
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
    let Learner { job, ends, state, .. } = learner;
    let settings = &job.settings;
    let mut dictionary = state.dictionary(settings);
    let mut metadata: Map<String, Value> = Map::new();
    if settings.activation == Activation::BatchTopK {
        let mut x = Vec::new();
        ends.reads.gather(acts, &feed.sample(CALIBRATION_TOKENS), &mut x)?;
        acts.hold(&[])?;
        metadata.insert("exegete_calibrated_on_tokens".into(), json!(x.len() / ends.reads.width()));
        metadata.insert("exegete_batchtopk_k".into(), json!(settings.k));
        dictionary = dictionary.calibrated(&x)?;
    }
    let quality = measure(&dictionary, acts, ends, subject)?;
    let (fvu, l0) = (quality.estimate, quality.l0);
    fold_factors(&mut dictionary, ends);
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
    metadata.insert("hook_name".into(), json!(ends.sites.reads[0].to_string()));
    if let Some(out) = ends.sites.writes.first() {
        metadata.insert("hook_name_out".into(), json!(out.to_string()));
    }
    if ends.sites.reads.len() > 1 {
        metadata.insert("exegete_sites".into(), ends.sites.recorded());
    }
    let kind = dictionary.kind();
    let (config, weights) = saelens::to_bytes(&Saved { metadata, ..Saved::new(dictionary, saelens::NAME) })?;
    for (name, bytes) in [(saelens::WEIGHTS, weights), (saelens::CONFIG, config)] {
        let rel = format!("{}/{name}", job.dir());
        run.commit_part(&rel, state.n_latents() as u64, |w| std::io::Write::write_all(w, &bytes))?;
    }
    let summary = json!({
        "kind": kind, "n_latents": state.n_latents(), "k": settings.k, "steps": n_steps,
        "tokens": n_steps * settings.batch as u64, "lr": settings.peak_lr(), "sites": ends.sites.recorded(),
        "aux_k": settings.resolved_aux_k(state.d), "fvu": fvu, "fvu_measured_on": quality.measured_on, "l0": l0,
        "silent": quality.n_silent, "input_scale": state.scale, "metrics_version": metrics::VERSION, "seed": subject.seed,
        "sparsity": settings.sparsity * state.steering,
    });
    run.finish_stage(&job.stage(), summary)?;
    let span = match fvu.n {
        0 | 1 => "no interval".into(),
        n => format!("{:.4} to {:.4}, n = {n}", fvu.low, fvu.high),
    };
    let on = quality.measured_on;
    let name = job.name.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
    let silent = quality.n_silent;
    let missed = match settings.target_l0 > 0.0 && (l0 / settings.target_l0 - 1.0).abs() > NEAR {
        true => {
            format!("; not yet at the L0 of {} that it is steered to: more steps bring it there", settings.target_l0)
        }
        false => String::new(),
    };
    Ok(format!("{name}FVU {:.4} ({span}), L0 {l0:.1}, {silent} silent on {on}{missed}", fvu.value))
}

/// Makes a dictionary of sites times their factors one of the sites as they are.
fn fold_factors(dictionary: &mut Sae, ends: &Ends) {
    let columns = |width: usize, factors: &[f32]| -> Vec<f32> {
        let each = width / factors.len();
        factors.iter().flat_map(|factor| std::iter::repeat_n(*factor, each)).collect()
    };
    let reads = columns(dictionary.d_in, &ends.reads.factors);
    let writes = columns(dictionary.d_out, &ends.target().factors);
    for row in dictionary.w_enc_FD.chunks_exact_mut(reads.len()) {
        row.iter_mut().zip(&reads).for_each(|(w, factor)| *w *= factor);
    }
    for row in dictionary.w_dec_FD.chunks_exact_mut(writes.len()).chain([&mut dictionary.b_dec_D[..]]) {
        row.iter_mut().zip(&writes).for_each(|(w, factor)| *w /= factor);
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
    let mut sums = Reconstruction::new(dictionary.d_out());
    let mut fired = vec![false; dictionary.n_latents()];
    let (mut x, mut y, mut last_doc) = (Vec::new(), Vec::new(), None);
    for w in &split.measured {
        ends.reads.window(acts, w, &mut x)?;
        let target = match &ends.writes {
            Some(writes) => {
                writes.window(acts, w, &mut y)?;
                &y
            }
            None => &x,
        };
        acts.forget(&w.rows());
        let codes = dictionary.encode(&x)?;
        let mut recon = vec![0f32; target.len()];
        dictionary.reconstruct(&x, &codes, &mut recon)?;
        sums.add(target, &recon, &codes, last_doc == Some(w.window.doc));
        codes.latents().iter().for_each(|latent| fired[*latent as usize] = true);
        last_doc = Some(w.window.doc);
    }
    let n_silent = fired.iter().filter(|fired| !**fired).count();
    Ok(Quality { estimate: sums.fvu(), l0: sums.l0(), n_silent, measured_on: split.measured_on() })
}
