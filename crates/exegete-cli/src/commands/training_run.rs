//! What commands that train dictionaries share: the text and the files that a run is made from, its windows, and the cached
//! activations.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use exegete_base::Site;
use exegete_base::settings::{StoredAs, TextSettings};
use exegete_harvest::rows::{self, WindowRows};
use exegete_harvest::training::{CheckpointEvery, Job, Subject};
use exegete_harvest::windows::Shard;
use exegete_harvest::{Activations, cache, training, verify, windows};
use exegete_lab::builtin;
use exegete_model::Model;
use exegete_store::{Corpus, Run, Source, Window};

use crate::interrupt;
use crate::printer::Printer;

/// The program and its version, as manifests record them.
pub(crate) const PROGRAM: &str = concat!("exegete ", env!("CARGO_PKG_VERSION"));

/// The text that was named, or that which goes with the model. Spellings of special tokens are these tokens to the organism,
/// and in its own text.
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
    let spells_specials = crate::builtin::is_builtin(model) || text.iter().all(|text| text == builtin::NAME);
    settings.special_tokens |= spells_specials;
    Ok(text)
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

/// A model's name, as dictionaries record it.
pub(crate) fn model_name(model: &str) -> String {
    Path::new(model).file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// How often checkpoints are written: every so many steps, or by the clock.
pub(crate) fn every(steps: u64) -> CheckpointEvery {
    match steps {
        0 => CheckpointEvery::Time(Duration::from_secs(20)),
        steps => CheckpointEvery::Steps(steps),
    }
}

/// Cuts the text, or a shard of it, into windows, and lets them be checked.
pub(crate) fn windows(
    mut run: Run,
    model: &Model,
    corpus: &Corpus,
    cut: (&TextSettings, Option<Shard>),
    check: &dyn Fn(&[WindowRows]) -> Result<()>,
    printer: &Printer,
) -> Result<(Run, Vec<WindowRows>)> {
    let is_new = run.manifest().parts.is_empty();
    let mut begin = || -> Result<Vec<WindowRows>> {
        let windows = rows::window_rows(&windows::run(&mut run, model, corpus, cut, printer)?)?;
        check(&windows)?;
        Ok(windows)
    };
    match begin() {
        Ok(windows) => Ok((run, windows)),
        Err(error) => {
            // Text that cannot be used leaves no run behind. One that was stopped, or that held anything before this
            // call, keeps what it has. That a run cannot be taken back must not hide why it failed.
            if is_new && !interrupt::asked() {
                let _ = run.discard();
            }
            Err(error)
        }
    }
}

/// Checks that there are enough windows for the jobs. `seed` is the run's.
pub(crate) fn enough<'a>(jobs: &'a [Job], seed: u64) -> impl Fn(&[WindowRows]) -> Result<()> + 'a {
    move |windows| match jobs.first() {
        Some(job) => Ok(training::steps_per_epoch(windows, seed, &job.settings).map(drop)?),
        None => Ok(()),
    }
}

/// The first windows of the text of which a run may have but a shard, and the rows of that text.
pub(crate) fn first(run: &Run, windows: &[WindowRows]) -> Result<(Vec<Window>, u64)> {
    let first = windows::first(run)?
        .unwrap_or_else(|| windows.iter().take(windows::N_FIRST).map(|w| w.window.clone()).collect());
    let told = run.stage(windows::STAGE).and_then(|stage| stage["text_rows"].as_u64());
    Ok((first, told.unwrap_or_else(|| windows.iter().map(|w| w.len() as u64).sum())))
}

/// Checks what is there of the windows' activations, runs the model as far as that is not done, and opens what the sites gave.
/// `holder` is the run that keeps the activations.
pub(crate) fn cached<'a>(
    holder: &mut Run,
    subject: &Subject<'a>,
    sites: &[Site],
    (window, stored): (usize, StoredAs),
    printer: &Printer,
) -> Result<Activations<'a>> {
    if verify::parts(holder, cache::STAGE)? {
        printer.note("activations: what was there is what was written");
    }
    cache::run(holder, subject.model, sites, subject.windows, (window, stored), printer)?;
    Ok(Activations::cached(holder, sites, subject.windows)?)
}
