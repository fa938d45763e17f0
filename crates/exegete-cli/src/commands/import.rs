//! `exegete import`: a run made of other programs' files, or a check of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use exegete_store::interop::bulk::Bulk;
use exegete_store::interop::{Fault, Feature, IMPORT, Origin, RunBuilder, neuronpedia, read_json, saedashboard};
use exegete_store::{Run, Source};
use serde_json::{Value, json};

use super::numbers;
use super::training_run::PROGRAM;
use crate::args_interop::{Import, ImportFormat};
use crate::printer::Printer;

type Batch = (Origin, Vec<Feature>, BTreeSet<String>);

pub(crate) fn run(settings: &Import, printer: &Printer) -> Result<()> {
    let is_neuronpedia = settings.format == ImportFormat::Neuronpedia;
    if is_neuronpedia && let Some(bulk) = Bulk::find(&settings.path)? {
        return match &settings.out {
            Some(out) => import_bulk(settings, &bulk, out, printer),
            None => check_bulk(&bulk, printer),
        };
    }
    let files = files_of(&settings.path)?;
    match &settings.out {
        Some(out) => import(settings, &files, out, printer),
        None => check(settings, &files, printer),
    }
}

/// The latents asked for.
fn wanted(settings: &Import) -> Result<Option<BTreeSet<u32>>> {
    let wanted = settings.latents.as_deref().map(numbers::parse).transpose().context("--latents")?;
    Ok(wanted.map(|latents| latents.into_iter().collect()))
}

/// Reads a file. What is wrong with it is told with its place in it.
fn read(path: &Path, format: ImportFormat) -> Result<Batch> {
    let document = read_json(path)?;
    let batch = match format {
        ImportFormat::Neuronpedia => neuronpedia::read(&document),
        ImportFormat::Saedashboard => saedashboard::read(&document),
    };
    batch.map_err(|fault: Fault| anyhow!("{}: {fault}", path.display()))
}

/// The file, or the batches of a directory in the order of their numbers.
fn files_of(path: &Path) -> Result<Vec<PathBuf>> {
    let named = || format!("{}", path.display());
    if !fs::metadata(path).with_context(named)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut numbered = Vec::new();
    for entry in fs::read_dir(path).with_context(named)? {
        let path = entry.with_context(named)?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let number = name.strip_prefix("batch-").and_then(|rest| rest.strip_suffix(".json"));
        if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
            numbered.push((number, path));
        }
    }
    if numbered.is_empty() {
        bail!("{} holds no batch-N.json; name a file, or a directory of such batches", path.display());
    }
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

fn check(settings: &Import, files: &[PathBuf], printer: &Printer) -> Result<()> {
    let (mut n_features, mut passed_over) = (0, BTreeSet::new());
    for file in files {
        let (_, features, keys) = read(file, settings.format)?;
        n_features += features.len();
        passed_over.extend(keys);
    }
    printer.json(&json!({ "files": files.len(), "features": n_features, "passed_over": passed_over }));
    note_passed_over(&passed_over, printer);
    printer.line(format!("import: checked files={} features={n_features}, nothing is wrong with them", files.len()));
    Ok(())
}

fn note_passed_over(keys: &BTreeSet<String>, printer: &Printer) {
    if !keys.is_empty() {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        printer.note(&format!("import: passed over, since nothing is known of them: {}", keys.join(", ")));
    }
}

fn import(settings: &Import, files: &[PathBuf], out: &Path, printer: &Printer) -> Result<()> {
    let wanted = wanted(settings)?;
    let inputs = files.iter().map(|file| Source::of(file.clone())).collect::<exegete_store::Result<Vec<_>>>()?;
    // Looked at before a run is made: most bad files are bad at once.
    let first = read(&files[0], settings.format)?;
    let format = format!("{:?}", settings.format).to_lowercase();
    let asked = json!({ "command": "import", "format": format, "model": first.0.model, "latents": settings.latents });
    let run = Run::create_or_resume(out, PROGRAM, asked, &inputs)?;
    if run.stage(IMPORT).is_some() {
        printer.line(format!("import: {} was made of these files already", out.display()));
        return Ok(());
    }
    let mut builder = RunBuilder::new(run);
    let mut passed_over = BTreeSet::new();
    if let Err(error) = fill(&mut builder, settings, (files, &first), wanted.as_ref(), &mut passed_over) {
        builder.discard()?;
        return Err(error);
    }
    let more = json!({ "format": format, "files": files.len(), "passed_over": passed_over });
    note_passed_over(&passed_over, printer);
    finish(builder, &first.0, more, (files.len(), out), printer)
}

fn check_bulk(bulk: &Bulk, printer: &Printer) -> Result<()> {
    let mut n_features = 0;
    bulk.read(None, |_| {
        n_features += 1;
        Ok(())
    })?;
    let n_files = bulk.files().count();
    printer.json(&json!({ "files": n_files, "features": n_features }));
    printer.line(format!("import: checked files={n_files} features={n_features}, nothing is wrong with them"));
    Ok(())
}

/// A bulk export: one directory, read in one go.
fn import_bulk(settings: &Import, bulk: &Bulk, out: &Path, printer: &Printer) -> Result<()> {
    let wanted = wanted(settings)?;
    let inputs = bulk.files().map(|file| Source::of(file.clone())).collect::<exegete_store::Result<Vec<_>>>()?;
    let asked = json!({ "command": "import", "format": "neuronpedia bulk", "latents": settings.latents });
    let run = Run::create_or_resume(out, PROGRAM, asked, &inputs)?;
    if run.stage(IMPORT).is_some() {
        printer.line(format!("import: {} was made of these files already", out.display()));
        return Ok(());
    }
    let mut builder = RunBuilder::new(run);
    let read = bulk.read(wanted.as_ref(), |feature| builder.add(feature));
    let origin = match read {
        Ok(origin) if builder.n_features() > 0 => origin,
        failed => {
            builder.discard()?;
            failed?;
            bail!("{} holds none of the latents asked for", settings.path.display());
        }
    };
    let more = json!({ "format": "neuronpedia bulk", "files": inputs.len() });
    finish(builder, &origin, more, (inputs.len(), out), printer)
}

/// Completes the run and says what is in it.
fn finish(
    builder: RunBuilder,
    origin: &Origin,
    more: Value,
    (files, out): (usize, &Path),
    printer: &Printer,
) -> Result<()> {
    let (features, sequences, outside) = (builder.n_features(), builder.n_sequences(), builder.n_outside());
    builder.finish(origin, more)?;
    if outside > 0 {
        printer.note(&format!(
            "import: {outside} of {sequences} texts stand in an interval that does not hold their activation; they are kept so"
        ));
    }
    printer.json(&json!({
        "files": files, "features": features, "texts": sequences, "outside_bins": outside, "out": out,
    }));
    printer.line(format!(
        "import: done files={files} features={features} texts={sequences} outside_bins={outside} out={}; counts are of the export",
        out.display()
    ));
    Ok(())
}

fn fill(
    builder: &mut RunBuilder,
    settings: &Import,
    (files, first): (&[PathBuf], &Batch),
    wanted: Option<&BTreeSet<u32>>,
    passed_over: &mut BTreeSet<String>,
) -> Result<()> {
    for (i, file) in files.iter().enumerate() {
        let (origin, features, keys) = if i == 0 { first.clone() } else { read(file, settings.format)? };
        if origin != first.0 {
            bail!("{} is of another model or source than {}", file.display(), files[0].display());
        }
        passed_over.extend(keys);
        for feature in features.into_iter().filter(|f| wanted.is_none_or(|wanted| wanted.contains(&f.index))) {
            if builder.has(feature.index) {
                bail!("{}: feature {} stands there twice, or in an earlier file too", file.display(), feature.index);
            }
            builder.add(feature)?;
        }
    }
    if builder.n_features() == 0 {
        bail!("{} holds none of the latents asked for", settings.path.display());
    }
    Ok(())
}
