//! `exegete export`: a run's latents for other programs, or as pages.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, bail};
use exegete_store::interop::neuronpedia::GivenUp;
use exegete_store::interop::{Feature, Ground, Grouping, Origin, RunSource, delphi, neuronpedia, saedashboard};
use exegete_store::{LatentRow, write_atomic};
use exegete_web::StaticPages;
use serde_json::{Value, json};

use super::{numbers, out_dir};
use crate::args_interop::{Export, ExportFormat};
use crate::printer::Printer;

/// Files that the latents of a cache are split over.
const SPLITS: usize = 5;

pub(crate) fn run(settings: &Export, printer: &Printer) -> Result<()> {
    refuse_what_has_no_effect(settings)?;
    let wanted = settings.latents.as_deref().map(numbers::parse).transpose().context("--latents")?;
    let wanted: Option<BTreeSet<u32>> = wanted.map(|latents| latents.into_iter().collect());
    let summary = match settings.format {
        ExportFormat::Html => html(settings, wanted.as_ref())?,
        ExportFormat::Delphi => delphi(settings)?,
        _ => batches(settings, wanted.as_ref())?,
    };
    printer.json(&summary);
    let told =
        |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().map_or(value.to_string(), str::to_owned));
    let words: Vec<String> = summary.as_object().into_iter().flatten().map(told).collect();
    printer.line(format!("export: done {}", words.join(" ")));
    Ok(())
}

/// Refuses flags of other formats, rather than to do something else than was asked for.
fn refuse_what_has_no_effect(settings: &Export) -> Result<()> {
    use ExportFormat::{Delphi, Html, Neuronpedia, Saedashboard};
    let batches = [Neuronpedia, Saedashboard].as_slice();
    let flags = [
        ("--model-id", settings.model_id.is_some(), batches),
        ("--source", settings.source.is_some(), batches),
        ("--top", settings.top.is_some(), batches),
        ("--intervals", settings.intervals.is_some(), batches),
        ("--per-interval", settings.per_interval.is_some(), batches),
        ("--module", settings.module.is_some(), &[Delphi]),
        ("--splits", settings.splits.is_some(), &[Delphi]),
        ("--pad-token", settings.pad_token.is_some(), &[Delphi]),
        ("--single-file", settings.single_file, &[Html]),
        ("--latents", settings.latents.is_some(), &[Neuronpedia, Saedashboard, Html]),
    ];
    for (flag, is_given, formats) in flags {
        if is_given && !formats.contains(&settings.format) {
            bail!(
                "{flag} has no effect with --format {}; leave it out",
                format!("{:?}", settings.format).to_lowercase()
            );
        }
    }
    Ok(())
}

/// The rows asked for.
fn chosen<'a>(source: &'a RunSource, wanted: Option<&BTreeSet<u32>>) -> Result<Vec<&'a LatentRow>> {
    let Some(wanted) = wanted else { return Ok(source.latents().iter().collect()) };
    let rows: Vec<&LatentRow> = source.latents().iter().filter(|row| wanted.contains(&row.latent.0)).collect();
    let found: BTreeSet<u32> = rows.iter().map(|row| row.latent.0).collect();
    match wanted.difference(&found).next() {
        Some(latent) => bail!("--latents: the run has no latent {latent}"),
        None => Ok(rows),
    }
}

/// Names in the files: those that are given, those of the file that the run was made of, or those of the run.
fn origin(settings: &Export, source: &RunSource) -> Result<Origin> {
    let named = |path: String| {
        let name = Path::new(&path).file_name().map_or(path.clone(), |name| name.to_string_lossy().into_owned());
        name.to_lowercase().replace(char::is_whitespace, "-").replace("builtin:", "")
    };
    let mut origin = match source.origin() {
        Some(origin) => origin,
        None => {
            let site = source.site().unwrap_or_default();
            let layer = site.strip_prefix("blocks.").and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
            let model = source.model().map(named).unwrap_or_default();
            Origin { model, layer: layer.map_or(Value::Null, Value::from), set: "exegete".into(), suffix: None }
        }
    };
    if let Some(name) = &settings.source {
        origin = Origin { suffix: origin.suffix, ..Origin::of_source(&origin.model, name) };
    }
    if let Some(model) = &settings.model_id {
        origin.model = model.clone();
    }
    if origin.model.is_empty() {
        bail!("the run does not say which model it is of; give --model-id");
    }
    Ok(origin)
}

/// Batches of Neuronpedia or SAEDashboard.
fn batches(settings: &Export, wanted: Option<&BTreeSet<u32>>) -> Result<Value> {
    let source = RunSource::open(&settings.run, settings.dictionary.as_deref())?;
    let origin = origin(settings, &source)?;
    let default = Grouping::default();
    let how = Grouping {
        n_top: settings.top.unwrap_or(default.n_top),
        n_intervals: settings.intervals.map_or(default.n_intervals, |n| n as usize),
        per_interval: settings.per_interval.unwrap_or(default.per_interval),
    };
    let rows = chosen(&source, wanted)?;
    let is_neuronpedia = settings.format == ExportFormat::Neuronpedia;
    let (mut given_up, mut skipped) = (GivenUp::default(), Vec::new());
    let (mut n_files, mut n_features, mut ground) = (0, 0, None);
    out_dir::write(&settings.out, |dir| {
        let mut batch: Vec<Feature> = Vec::new();
        for row in rows {
            let feature = source.feature(row, &how)?;
            let kept = match is_neuronpedia {
                true => neuronpedia::fitted(feature, &mut given_up),
                // Of a latent that never fired there is nothing to show.
                false => Some(feature).filter(|f| !f.sequences.is_empty() || row.stats.count > 0),
            };
            match kept {
                Some(feature) => {
                    ground.get_or_insert_with(|| feature.ground.clone());
                    batch.push(feature);
                }
                None => skipped.push(row.latent.0),
            }
            if batch.len() == saedashboard::BATCH {
                (n_files, n_features) = (n_files + 1, n_features + batch.len());
                write_batch(dir, n_files - 1, is_neuronpedia, &origin, &std::mem::take(&mut batch))?;
            }
        }
        if !batch.is_empty() {
            (n_files, n_features) = (n_files + 1, n_features + batch.len());
            write_batch(dir, n_files - 1, is_neuronpedia, &origin, &batch)?;
        }
        if n_features == 0 {
            bail!("none of the latents has a text that it is active on; nothing is left to write");
        }
        if !is_neuronpedia {
            write_settings(dir, source.site(), &origin, &how, &ground.unwrap_or_default())?;
            write_skipped(dir, &origin, &skipped)?;
        }
        Ok(())
    })?;
    let mut summary = json!({ "files": n_files, "features": n_features, "skipped": skipped.len() });
    if is_neuronpedia {
        summary["texts_too_long"] = given_up.sequences.into();
        summary["explanations_cut"] = given_up.cut_explanations.into();
        summary["logits_left_out"] = given_up.logits.into();
    }
    summary["out"] = settings.out.display().to_string().into();
    Ok(summary)
}

fn write_batch(dir: &Path, idx: usize, is_neuronpedia: bool, origin: &Origin, batch: &[Feature]) -> Result<()> {
    let document = match is_neuronpedia {
        true => neuronpedia::write(origin, batch),
        false => saedashboard::write(origin, batch),
    };
    if is_neuronpedia && let Err(fault) = neuronpedia::validate(&document) {
        bail!("what would be written breaks the schema: {fault}; see --model-id and --source");
    }
    write_json(&dir.join(format!("batch-{idx}.json")), &document)
}

/// The settings that SAEDashboard writes beside its batches.
fn write_settings(dir: &Path, site: Option<String>, origin: &Origin, how: &Grouping, ground: &Ground) -> Result<()> {
    let settings = json!({
        "model_id": origin.model, "layer": origin.layer, "sae_set": origin.set, "hook_point": site,
        "n_prompts_total": ground.n_prompts, "n_tokens_in_prompt": ground.tokens_in_prompt,
        "n_features_at_a_time": saedashboard::BATCH, "top_acts_group_size": how.n_top,
        "n_quantiles": how.n_intervals, "quantile_group_size": how.per_interval,
    });
    write_json(&dir.join("run_settings.json"), &settings)
}

/// The list of features that there is nothing to show of, for Neuronpedia's importer.
fn write_skipped(dir: &Path, origin: &Origin, skipped: &[u32]) -> Result<()> {
    let layer = origin.layer.as_str().map_or(origin.layer.to_string(), str::to_owned);
    let skipped = json!({
        "model_id": origin.model, "layer": layer, "sae_set": origin.set, "log_sparsity": null, "skipped_indexes": skipped,
    });
    write_json(&dir.join("skipped_indexes.json"), &skipped)
}

fn write_json(path: &Path, document: &Value) -> Result<()> {
    write_atomic(path, |w| {
        serde_json::to_writer(&mut *w, document)?;
        w.write_all(b"\n")
    })?;
    Ok(())
}

/// A cache of activations.
fn delphi(settings: &Export) -> Result<Value> {
    let source = RunSource::open(&settings.run, settings.dictionary.as_deref())?;
    let site = source.site();
    let module = settings.module.clone().or(site.as_deref().map(delphi::module_of));
    let module = module.context("the run does not say which site it is of; give --module")?;
    if module.is_empty() || module.contains(['/', '\\', '\0']) || module.starts_with('.') {
        bail!("--module {module:?} must be the name of a directory");
    }
    let how = delphi::DelphiSettings {
        module: module.clone(),
        n_splits: settings.splits.unwrap_or(SPLITS),
        pad_token: settings.pad_token.unwrap_or(0),
    };
    let mut written = None;
    out_dir::write(&settings.out, |dir| {
        written = Some(delphi::write(&source, dir, &how)?);
        Ok(())
    })?;
    let written = written.context("nothing was written")?;
    Ok(json!({
        "module": module, "files": written.files, "firings": written.firings, "rows": written.rows,
        "ctx_len": written.ctx_len, "explanations": written.explanations, "out": settings.out.display().to_string(),
    }))
}

/// Pages.
fn html(settings: &Export, wanted: Option<&BTreeSet<u32>>) -> Result<Value> {
    let pages = StaticPages::open(&settings.run, settings.dictionary.as_deref())?;
    if let Some(latent) = wanted.into_iter().flatten().find(|latent| !pages.has(**latent)) {
        bail!("--latents: the run has no latent {latent}");
    }
    let latents: Vec<u32> =
        pages.latents().filter(|latent| wanted.is_none_or(|wanted| wanted.contains(latent))).collect();
    let n_files = match settings.single_file {
        true => {
            if latents.len() > exegete_web::MOST_IN_A_FILE {
                let most = exegete_web::MOST_IN_A_FILE;
                bail!("--single-file holds up to {most} latents, not {}; choose some with --latents", latents.len());
            }
            let page = pages.single(&latents)?;
            write_atomic(&settings.out, |w| w.write_all(page.as_bytes()))?;
            1
        }
        false => {
            let mut n = 0;
            out_dir::write(&settings.out, |dir| {
                pages.folder(&latents, |name, text| {
                    n += 1;
                    write_atomic(&dir.join(name), |w| w.write_all(text.as_bytes())).map(drop)
                })?;
                Ok(())
            })?;
            n
        }
    };
    Ok(json!({ "latents": latents.len(), "files": n_files, "out": settings.out.display().to_string() }))
}
