//! `exegete tour`: the main job from end to end.
//!
//! Each stage finishes what an earlier call left undone and passes over what it finished, so a tour that was stopped
//! at any instant goes on when the command is given again.

mod explain;
mod plan;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use exegete_base::axes::Axis;
use exegete_base::settings::TextSettings;
use exegete_base::{Site, SiteKind};
use exegete_harvest::cache::WindowRows;
use exegete_harvest::training::{Job, Subject};
use exegete_harvest::{ActivationCache, cache, firings, training, windows};
use exegete_lab::builtin;
use exegete_methods::self_explain;
use exegete_model::Model;
use exegete_store::{Corpus, Run, Source, open_corpus};
use serde_json::{Value, json};

use super::lab::truth;
use super::{sae_train, serve};
use crate::args::{Common, Tour};
use crate::interrupt;
use crate::open_model;
use crate::printer::Printer;

/// Concepts without a latent that are listed.
const MISSING: usize = 10;

pub(crate) const PROGRAM: &str = concat!("exegete ", env!("CARGO_PKG_VERSION"));

pub(crate) fn run(settings: &Tour, common: &Common, printer: &Printer) -> Result<()> {
    let mut settings = settings.clone();
    settings.text = text_of(&settings.model, &settings.text, &mut settings.text_settings)?;
    let settings = &settings;
    let seed = common.seed;
    settings.train.check().and_then(|()| settings.keep.check()).map_err(anyhow::Error::msg)?;
    settings.truth.check()?;
    let model = open_model::open_plain(&settings.model, common, printer)?;
    let site = site(settings, &model)?;
    // What the last stage would refuse is refused before the first.
    windows::bos_and_room(&model, &settings.text_settings)?;
    self_explain::check(&settings.self_explain, &model)?;
    let corpus = open_corpus(&crate::builtin::texts(&settings.text)?, &windows::text_options(&settings.text_settings))?;
    if settings.dry_run {
        return plan::tell(settings, &model, site, &corpus, printer);
    }
    let mut inputs = model_files(&model.path)?;
    inputs.extend(corpus.sources.iter().cloned());
    let mut run = Run::create_or_resume(&settings.out, PROGRAM, recorded(settings, &model, site, common)?, &inputs)?;

    let jobs = [Job { name: None, settings: settings.train.clone(), seed }];
    let is_new = run.manifest().parts.is_empty();
    interrupt::listen();
    let begun = token_windows(&mut run, &model, &corpus, &settings.text_settings, printer).and_then(|windows| {
        training::steps_per_epoch(&subject(&settings.model, site, &windows, seed), &settings.train)?;
        Ok(windows)
    });
    let windows = match begun {
        Ok(windows) => windows,
        Err(error) => {
            // Text that cannot be used leaves no run behind. One that was stopped, or that held anything before this
            // call, keeps what it has. That a run cannot be taken back must not hide why it failed.
            if is_new && !interrupt::asked() {
                let _ = run.discard();
            }
            return Err(error);
        }
    };
    if run.stage(firings::STAGE).is_none() {
        cache::run(&mut run, &model, site, &windows, settings.text_settings.window, printer)?;
        let cached = ActivationCache::open(&run)?;
        let subject = subject(&settings.model, site, &windows, seed);
        let every = sae_train::every(settings.checkpoint_steps);
        training::run(&mut run, &cached, &subject, &jobs, every, printer)?;
        let dictionary = training::dictionary(&run)?;
        firings::run(&mut run, &model, &dictionary, &cached, &windows, (&settings.keep, seed), printer)?;
    }
    // Removed here and not by their stages, so that a tour killed just before still tidies up when run again.
    training::remove_checkpoints(&mut run, &jobs)?;
    firings::remove_states(&mut run, &windows)?;
    if !settings.keep_cache {
        cache::remove(&mut run)?;
    }
    explain::run(&mut run, &model, settings, seed, printer)?;
    // Of the organism it is known which concept is where.
    if settings.model == builtin::NAME {
        let found = match truth::kept(&run, &settings.truth, seed) {
            Some(found) => found,
            None => truth::compare(&mut run, &model, &settings.truth, seed, printer)?,
        };
        truth::tell(&found, MISSING, printer);
    }
    finish(run, settings, printer)
}

/// The text that was named, or that which goes with the model. In the organism's own text, spellings of special tokens are
/// these tokens.
pub(crate) fn text_of(model: &str, text: &[String], settings: &mut TextSettings) -> Result<Vec<String>> {
    let text = match text {
        [] if crate::builtin::is_builtin(model) => {
            let own = vec![model.to_owned()];
            // A name that is not built in is told of as such, and not as a text that is missing.
            crate::builtin::texts(&own)?;
            own
        }
        [] => bail!("--text is needed for a model that is not built in: files, globs or directories"),
        named => named.to_vec(),
    };
    settings.special_tokens |= text.iter().all(|text| text == builtin::NAME);
    Ok(text)
}

/// Cuts the text.
pub(crate) fn token_windows(
    run: &mut Run,
    model: &Model,
    corpus: &Corpus,
    settings: &TextSettings,
    printer: &Printer,
) -> Result<Vec<WindowRows>> {
    Ok(cache::window_rows(&windows::run(run, model, corpus, settings, printer)?)?)
}

pub(crate) fn subject<'a>(model: &str, site: Site, windows: &'a [WindowRows], seed: u64) -> Subject<'a> {
    Subject { model: model_name(Path::new(model)), site: site.to_string(), windows, seed }
}

/// The site asked for, or the residual stream after a third of the layers: late enough for concepts, early enough
/// that the model is run in a third of its time and can still speak of what is inserted.
fn site(settings: &Tour, model: &Model) -> Result<Site> {
    let site = match &settings.site {
        Some(name) => name.parse::<Site>()?.check(model.spec.n_layers)?,
        None => Site::at(SiteKind::ResidPost, model.spec.n_layers / 3),
    };
    // The final norm's output is left out: its directions are not those of the stream that is written to.
    if site.kind.row().axes.last() != Some(&Axis::Model) || site.kind == SiteKind::FinalResid {
        bail!("--site {site} does not lie on the residual stream or its writers, which self-explanation needs");
    }
    Ok(site)
}

/// What the manifest records, and what must be the same for a run to be resumed.
fn recorded(settings: &Tour, model: &Model, site: Site, common: &Common) -> Result<Value> {
    let model = recorded_model(&settings.model, model);
    let (seed, dtype) = (common.seed, format!("{:?}", common.dtype).to_lowercase());
    Ok(json!({
        "command": "tour", "model": model, "text": settings.text, "site": site.to_string(), "seed": seed, "dtype": dtype,
        "windows": serde_json::to_value(&settings.text_settings)?, "train": serde_json::to_value(&settings.train)?,
        "keep": serde_json::to_value(&settings.keep)?,
    }))
}

/// A model as the manifest records it. What is built in keeps its name: where its files lie is nobody's business.
pub(crate) fn recorded_model(name: &str, model: &Model) -> PathBuf {
    match crate::builtin::is_builtin(name) {
        true => PathBuf::from(name),
        false => std::fs::canonicalize(&model.path).unwrap_or_else(|_| model.path.clone()),
    }
}

/// The files of a model, with checksums.
pub(crate) fn model_files(path: &Path) -> Result<Vec<Source>> {
    let mut files: Vec<PathBuf> = match path.is_dir() {
        false => vec![path.to_owned()],
        true => std::fs::read_dir(path)
            .with_context(|| format!("cannot list {}", path.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|p| matches!(p.extension().and_then(|e| e.to_str()), Some("json" | "safetensors" | "jinja")))
            .collect(),
    };
    files.sort();
    // llama2.c keeps its tokenizer in a file of its own.
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let beside = std::fs::read_dir(folder);
    if path.extension().is_some_and(|e| e == "bin") {
        let is_tokenizer = |p: &PathBuf| {
            let name = p.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
            name.starts_with("tok") && name.ends_with(".bin")
        };
        files.extend(beside.into_iter().flatten().filter_map(|e| Some(e.ok()?.path())).filter(is_tokenizer));
        files.sort();
    }
    Ok(files.into_iter().map(Source::of).collect::<Result<_, _>>()?)
}

fn model_name(path: &Path) -> String {
    path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Says what came out, in one line that programs can read too, and serves it.
fn finish(run: Run, settings: &Tour, printer: &Printer) -> Result<()> {
    let number = |stage: &str, key: &str| run.stage(stage).map_or(Value::Null, |summary| summary[key].clone());
    let (tokens, alive) = (number(windows::STAGE, "tokens"), number(firings::STAGE, "alive"));
    let latents = number(firings::STAGE, "n_latents");
    let (explained, texts) = (number(explain::STAGE, "explained"), number(explain::STAGE, "texts"));
    let fvu = number(training::STAGE, "fvu")["value"].as_f64().unwrap_or(f64::NAN);
    let dir = run.dir().display();
    printer.json(&json!({
        "tokens": tokens, "latents": latents, "alive": alive, "explained": explained, "texts": texts, "fvu": fvu,
        "run": dir.to_string(), "stages": run.manifest().stages,
    }));
    let explained = format!("explained={explained} texts={texts}");
    let done = format!("tokens={tokens} latents={latents} alive={alive} {explained} fvu={fvu:.4} run={dir}");
    printer.line(format!("tour: done {done}"));
    if settings.no_serve {
        return Ok(());
    }
    // The lock goes with the run, so that others can add to what is shown.
    let dir = run.dir().to_owned();
    drop(run);
    serve::serve(&dir, settings.port, printer)
}
