//! `exegete sae train`: one dictionary, or a grid of them, on a model's activations at a site.
//!
//! The model is run once, into a cache on disk; all dictionaries are fed from it. What an earlier call left undone is
//! gone on with, bit for bit.

use anyhow::{Context, Result};
use exegete_base::Site;
use exegete_base::settings::TextSettings;
use exegete_harvest::training::Job;
use exegete_harvest::{cache, grid, training, windows};
use exegete_model::Model;
use exegete_store::{Run, open_corpus};
use serde_json::{Value, json};

use super::training_run::{self, PROGRAM, subject};
use crate::args::{Common, SaeTrain};
use crate::interrupt;
use crate::open_model;
use crate::printer::Printer;

pub(crate) fn run(settings: &SaeTrain, common: &Common, printer: &Printer) -> Result<()> {
    let mut text_settings = settings.text_settings.clone();
    let text = training_run::text_of(&settings.model, &settings.text, &mut text_settings)?;
    let jobs = jobs(settings, common.seed)?;
    let model = open_model::open_plain(&settings.model, common, printer)?;
    windows::bos_and_room(&model, &text_settings)?;
    let site = training_run::site_of(settings.site.as_deref(), &model)?;
    let corpus = open_corpus(&crate::builtin::texts(&text)?, &windows::text_options(&text_settings))?;
    let mut inputs = training_run::model_files(&model.path)?;
    inputs.extend(corpus.sources.iter().cloned());
    let recorded = recorded(settings, &jobs, (&text, &text_settings), &model, site, common)?;
    let run = Run::create_or_resume(&settings.out, PROGRAM, recorded, &inputs)?;
    interrupt::listen();
    let (mut run, windows) =
        training_run::windows(run, &model, &corpus, &text_settings, (&jobs, common.seed), printer)?;
    if jobs.iter().any(|job| run.stage(&job.stage()).is_none()) {
        let every = training_run::every(settings.checkpoint_steps);
        let subject = subject(&settings.model, site, &windows, common.seed);
        training_run::train(&mut run, &model, &subject, text_settings.window, (&jobs, every), printer)?;
    }
    training::remove_checkpoints(&mut run, &jobs)?;
    if !settings.keep_cache {
        cache::remove(&mut run)?;
    }
    tell(&run, &jobs, printer)
}

/// The dictionaries that are asked for.
fn jobs(settings: &SaeTrain, seed: u64) -> Result<Vec<Job>> {
    let Some(path) = &settings.grid else {
        let jobs = vec![Job { name: None, settings: settings.train.clone(), seed }];
        return Ok(training::check(&jobs).map(|()| jobs)?);
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the grid {}", path.display()))?;
    let jobs = grid::jobs(&text, &settings.train, seed).and_then(|jobs| training::check(&jobs).map(|()| jobs));
    jobs.with_context(|| path.display().to_string())
}

/// What must be the same for a run to be gone on with. A grid's dictionaries are stages of their own.
fn recorded(
    settings: &SaeTrain,
    jobs: &[Job],
    (text, text_settings): (&[String], &TextSettings),
    model: &Model,
    site: Site,
    common: &Common,
) -> Result<Value> {
    let of = |job: &Job| (job.dir(), json!({"seed": job.seed, "train": job.settings}));
    let of_jobs: serde_json::Map<String, Value> = jobs.iter().map(of).collect();
    Ok(json!({
        "command": "sae train", "model": training_run::recorded_model(&settings.model, model), "text": text,
        "site": site.to_string(), "seed": common.seed, "dtype": format!("{:?}", common.dtype).to_lowercase(),
        "preset": settings.preset,
        "windows": serde_json::to_value(text_settings)?, "dictionaries": of_jobs,
    }))
}

/// The table of what came out.
fn tell(run: &Run, jobs: &[Job], printer: &Printer) -> Result<()> {
    let wide = jobs.iter().filter_map(|job| job.name.as_ref()).map(String::len).max().unwrap_or(10).max(10);
    printer.line(format!("{:<wide$}  kind         latents  L0       FVU [95 %]                silent", "dictionary"));
    let mut rows = Vec::new();
    for job in jobs {
        let found = run.stage(&job.stage()).cloned().unwrap_or_default();
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        let fvu = &found["fvu"];
        let span = format!("{:.4} [{:.4}, {:.4}]", number(&fvu["value"]), number(&fvu["low"]), number(&fvu["high"]));
        let (kind, dir) = (found["kind"].as_str().unwrap_or_default(), job.dir());
        let name = job.name.as_ref().unwrap_or(&dir);
        let (latents, l0, silent) = (number(&found["n_latents"]), number(&found["l0"]), number(&found["silent"]));
        printer.line(format!("{name:<wide$}  {kind:<11}  {latents:<7}  {l0:<7.1}  {span:<24}  {silent}"));
        rows.push(json!({"name": name, "path": run.path(&dir), "result": found}));
    }
    let dir = run.dir().display();
    printer.json(&json!({"dictionaries": rows, "run": dir.to_string()}));
    printer.line(format!("sae train: done dictionaries={} run={dir}", jobs.len()));
    Ok(())
}
