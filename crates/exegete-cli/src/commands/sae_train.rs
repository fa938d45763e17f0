//! `exegete sae train`: one dictionary, or a grid of them, on a model's activations at a site.
//!
//! The model is run once, into a cache on disk; all dictionaries are fed from it. What an earlier call left undone is
//! gone on with, bit for bit.

use anyhow::{Context, Result};
use exegete_base::Site;
use exegete_harvest::training::{Job, Sites, Subject};
use exegete_harvest::{Activations, cache, grid, training, windows};
use exegete_store::{Run, open_corpus};
use serde_json::{Value, json};

use super::training_run::{self, PROGRAM};
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
    let of_jobs: Vec<Sites> = jobs.iter().map(|job| job.sites(&model.spec)).collect::<Result<_, _>>()?;
    let streamed = if settings.activations.stream { settings.activations.resolved_buffer_tokens() } else { 0 };
    training::check_memory(&jobs.iter().collect::<Vec<_>>(), &model.spec, streamed)?;
    let corpus = open_corpus(&crate::builtin::texts(&text)?, &windows::text_options(&text_settings))?;
    let mut inputs = training_run::model_files(&model.path)?;
    inputs.extend(corpus.sources.iter().cloned());
    let activations = json!({
        "command": "activations", "model": training_run::recorded_model(&settings.model, &model), "text": text,
        "dtype": format!("{:?}", common.dtype).to_lowercase(), "windows": serde_json::to_value(&text_settings)?,
        "stored": settings.activations.activations_dtype,
    });
    let recorded = recorded(settings, (&jobs, &of_jobs), &activations, common);
    let make_run = || Run::create_or_resume(&settings.out, PROGRAM, recorded.clone(), &inputs);
    interrupt::listen();
    let holder = match &settings.activations.activations {
        None => make_run()?,
        Some(dir) => Run::create_or_resume(dir, PROGRAM, activations.clone(), &inputs)
            .with_context(|| format!("--activations {}", dir.display()))?,
    };
    let seed = common.seed;
    let (cut, enough) = ((&text_settings, None), training_run::enough(&jobs, seed));
    let (mut holder, windows) = training_run::windows(holder, &model, &corpus, cut, &enough, printer)?;
    let mut own = settings.activations.activations.as_ref().map(|_| make_run()).transpose()?;
    printer.tell_in(own.as_ref().unwrap_or(&holder).dir(), "sae-train");
    if jobs.iter().any(|job| own.as_ref().unwrap_or(&holder).stage(&job.stage()).is_none()) {
        let every = training_run::every(settings.checkpoint_steps);
        let buffer_tokens = settings.activations.resolved_buffer_tokens();
        let name = training_run::model_name(&settings.model);
        let subject = Subject { model: &model, name, windows: &windows, seed, buffer_tokens };
        let sites = distinct(&of_jobs);
        let acts = match settings.activations.stream {
            true => Activations::streamed(&model, &sites, &windows, text_settings.window)?,
            false => {
                let how = (text_settings.window, settings.activations.activations_dtype);
                training_run::cached(&mut holder, &subject, &sites, how, printer)?
            }
        };
        training::run(own.as_mut().unwrap_or(&mut holder), &acts, &subject, &jobs, every, printer)?;
    }
    if own.is_none() && !settings.keep_cache {
        cache::remove(&mut holder)?;
    }
    let run = own.as_mut().unwrap_or(&mut holder);
    training::remove_checkpoints(run, &jobs)?;
    printer.finished();
    tell(run, &jobs, printer)
}

/// The sites of all dictionaries, each once.
fn distinct(of_jobs: &[Sites]) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    for site in of_jobs.iter().flat_map(Sites::all) {
        if !sites.contains(&site) {
            sites.push(site);
        }
    }
    sites
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

/// What must be the same for a run to be gone on with: what its activations are, and how each dictionary is trained. A
/// grid's dictionaries are stages of their own.
fn recorded(settings: &SaeTrain, (jobs, sites): (&[Job], &[Sites]), activations: &Value, common: &Common) -> Value {
    let of = |(job, sites): (&Job, &Sites)| {
        (job.dir(), json!({"seed": job.seed, "train": job.settings, "sites": sites.recorded()}))
    };
    let mut all = activations.clone();
    all["command"] = json!("sae train");
    all["site"] = json!(sites[0].reads[0].to_string());
    all["seed"] = json!(common.seed);
    all["preset"] = json!(settings.preset);
    all["stream"] = json!(settings.activations.stream);
    all["buffer_tokens"] = json!(settings.activations.resolved_buffer_tokens());
    all["dictionaries"] = jobs.iter().zip(sites).map(of).collect::<serde_json::Map<String, Value>>().into();
    all
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
        let [value, low, high] = ["value", "low", "high"].map(|key| number(&fvu[key]));
        // Of one document there is no interval.
        let span = if low.is_finite() { format!("{value:.4} [{low:.4}, {high:.4}]") } else { format!("{value:.4}") };
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
