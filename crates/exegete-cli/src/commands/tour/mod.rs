//! `exegete tour`: the main job from end to end.
//!
//! Each stage finishes what an earlier call left undone and passes over what it finished, so a tour that was stopped
//! at any instant goes on when the command is given again.

mod explain;
mod plan;

use anyhow::{Result, bail};
use exegete_base::axes::Axis;
use exegete_base::settings::StoredAs;
use exegete_base::{Site, SiteKind};
use exegete_harvest::firings::{Harvested, How};
use exegete_harvest::training::{Job, Shape, Sites, Subject};
use exegete_harvest::{cache, firings, training, windows};
use exegete_lab::builtin;
use exegete_methods::self_explain;
use exegete_model::Model;
use exegete_store::{Run, open_corpus};
use serde_json::{Value, json};

use super::lab::truth;
use super::serve;
use super::training_run::{self, PROGRAM};
use crate::args::{Common, Tour};
use crate::interrupt;
use crate::open_model;
use crate::printer::Printer;

/// Concepts without a latent that are listed.
const MISSING: usize = 10;
/// Bytes that the harvest may hold before it writes them.
const MEMORY_BYTES: usize = 2 << 30;

pub(crate) fn run(settings: &Tour, common: &Common, printer: &Printer) -> Result<()> {
    let mut settings = settings.clone();
    settings.text = training_run::text_of(&settings.model, &settings.text, &mut settings.text_settings)?;
    let settings = &settings;
    let seed = common.seed;
    settings
        .train
        .check()
        .and_then(|()| settings.keep.check())
        .and_then(|()| settings.harvest.check())
        .map_err(anyhow::Error::msg)?;
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
    let mut inputs = training_run::model_files(&model.path)?;
    inputs.extend(corpus.sources.iter().cloned());
    let run = Run::create_or_resume(&settings.out, PROGRAM, recorded(settings, &model, site, common)?, &inputs)?;

    let jobs = [Job { name: None, settings: settings.train.clone(), seed }];
    interrupt::listen();
    printer.tell_in(run.dir(), "tour");
    let text_settings = &settings.text_settings;
    let (cut, enough) = ((text_settings, None), training_run::enough(&jobs, seed));
    let (mut run, windows) = training_run::windows(run, &model, &corpus, cut, &enough, printer)?;
    if run.stage(firings::STAGE).is_none() {
        let every = training_run::every(settings.checkpoint_steps);
        let name = training_run::model_name(&settings.model);
        let subject = Subject { model: &model, name, windows: &windows, seed, buffer_tokens: 0 };
        let how = (text_settings.window, StoredAs::F32);
        let acts = training_run::cached(&mut run, &subject, &[site], how, printer)?;
        training::run(&mut run, &acts, &subject, &jobs, every, printer)?;
        let dictionary = training::dictionary(&run)?;
        let (first, text_rows) = training_run::first(&run, &windows)?;
        let how = How {
            keep: &settings.keep,
            settings: &settings.harvest,
            seed,
            window: text_settings.window,
            first: &first,
            text_rows,
            memory_bytes: MEMORY_BYTES,
            keep_activations: false,
        };
        let harvested = [Harvested { name: None, dictionary: &dictionary, sites: Sites::one(site) }];
        firings::run(&mut run, &model, &harvested, &acts, &windows, &how, printer)?;
    }
    // Removed here and not by their stages, so that a tour killed just before still tidies up when run again.
    training::remove_checkpoints(&mut run, &jobs)?;
    firings::remove_states(&mut run)?;
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
    printer.finished();
    finish(run, settings, printer)
}

/// The site of the dictionary, on the stream that the model can still speak of.
fn site(settings: &Tour, model: &Model) -> Result<Site> {
    let job = Job { name: None, settings: settings.train.clone(), seed: 0 };
    let sites = job.sites(&model.spec)?;
    if sites.shape() != Shape::Autoencoder {
        bail!("a tour is of the autoencoder of one site; `exegete sae train` trains transcoders and crosscoders");
    }
    let site = sites.reads[0];
    // The final norm's output is left out: its directions are not those of the stream that is written to.
    if site.kind.row().axes.last() != Some(&Axis::Model) || site.kind == SiteKind::FinalResid {
        bail!("--site {site} does not lie on the residual stream or its writers, which self-explanation needs");
    }
    Ok(site)
}

/// What the manifest records, and what must be the same for a run to be resumed.
fn recorded(settings: &Tour, model: &Model, site: Site, common: &Common) -> Result<Value> {
    let model = training_run::recorded_model(&settings.model, model);
    let (seed, dtype) = (common.seed, format!("{:?}", common.dtype).to_lowercase());
    Ok(json!({
        "command": "tour", "model": model, "text": settings.text, "site": site.to_string(), "seed": seed, "dtype": dtype,
        "windows": serde_json::to_value(&settings.text_settings)?, "train": serde_json::to_value(&settings.train)?,
        "keep": serde_json::to_value(&settings.keep)?, "harvest": serde_json::to_value(&settings.harvest)?,
    }))
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
