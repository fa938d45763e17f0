//! `exegete harvest`: what makes the latents of dictionaries fire, over a text, in one pass of the model.

use anyhow::{Context, Result, bail};
use exegete_base::Site;
use exegete_harvest::firings::{self, Harvested, How};
use exegete_harvest::rows::WindowRows;
use exegete_harvest::{Activations, attribution, windows};
use exegete_model::Model;
use exegete_sae::Dictionary;
use exegete_sae::formats::{Choices, Saved};
use exegete_store::{Corpus, Run, open_corpus};
use serde_json::{Value, json};

use super::training_run::{self, PROGRAM};
use super::{estimate, measured};
use crate::args::{Common, Dtype};
use crate::args_eval::PlaceArgs;
use crate::args_harvest::Harvest;
use crate::printer::Printer;
use crate::{builtin, interrupt, open_dictionary, run_dictionary};

pub(crate) fn run(settings: &Harvest, common: &Common, printer: &Printer) -> Result<()> {
    settings.keep.check().and_then(|()| settings.harvest.check()).map_err(anyhow::Error::msg)?;
    if !(settings.memory > 0.0 && settings.memory < 1e6) {
        bail!("--memory {}: give the GiB that may be taken, such as 2", settings.memory);
    }
    let mut text_settings = settings.text_settings.clone();
    let text = training_run::text_of(&settings.model, &settings.text, &mut text_settings)?;
    let choices = Choices { format: settings.format.clone(), k: settings.k, ..Choices::default() };
    let saved: Vec<Saved> =
        settings.sae.iter().map(|sae| open_dictionary::load(sae, &choices, printer)).collect::<Result<_>>()?;
    let model = measured::open_model(&settings.model, &saved.iter().collect::<Vec<_>>(), common, printer)?;
    windows::bos_and_room(&model, &text_settings)?;
    let all = harvested(settings, &model, &saved)?;
    let corpus = open_corpus(&builtin::texts(&text)?, &windows::text_options(&text_settings))?;
    if settings.dry_run {
        return plan((settings, common), &model, &all, &corpus, printer);
    }
    let mut inputs = training_run::model_files(&model.path)?;
    inputs.extend(corpus.sources.iter().cloned());
    let dictionaries: Vec<Value> = settings.sae.iter().zip(&all).zip(&saved).map(recorded).collect();
    let run = Run::create_or_resume(
        &settings.out,
        PROGRAM,
        json!({
            "command": "harvest", "model": training_run::recorded_model(&settings.model, &model), "text": text,
            "dtype": format!("{:?}", common.dtype).to_lowercase(), "seed": common.seed,
            "windows": serde_json::to_value(&text_settings)?, "keep": serde_json::to_value(&settings.keep)?,
            "harvest": serde_json::to_value(&settings.harvest)?, "dictionaries": dictionaries,
            "site": all[0].sites.reads[0].to_string(), "shard": settings.shard, "format": settings.format, "k": settings.k,
            "keep_activations": settings.keep_activations,
        }),
        &inputs,
    )?;
    interrupt::listen();
    printer.tell_in(run.dir(), "harvest");
    let cut = (&text_settings, settings.shard);
    let (mut run, windows) = training_run::windows(run, &model, &corpus, cut, &|_| Ok(()), printer)?;
    let sites = distinct(&all);
    let acts = Activations::streamed(&model, &sites, &windows, text_settings.window)?;
    gather(&mut run, &model, &all, (&acts, &windows), settings, common.seed, printer)?;
    if settings.shard.is_none() {
        firings::remove_states(&mut run)?;
    }
    printer.finished();
    tell("harvest", &run, printer)
}

fn gather(
    run: &mut Run,
    model: &Model,
    all: &[Harvested],
    (acts, windows): (&Activations, &[WindowRows]),
    settings: &Harvest,
    seed: u64,
    printer: &Printer,
) -> Result<()> {
    let (first, text_rows) = training_run::first(run, windows)?;
    let how = How {
        keep: &settings.keep,
        settings: &settings.harvest,
        seed,
        window: settings.text_settings.window,
        first: &first,
        text_rows,
        memory_bytes: (settings.memory * (1u64 << 30) as f64) as usize,
        keep_activations: settings.keep_activations,
    };
    firings::run(run, model, all, acts, windows, &how, printer)?;
    Ok(attribution::run(run, model, all, windows, settings.text_settings.window, printer)?)
}

/// The dictionaries with their names and sites.
fn harvested<'a>(settings: &Harvest, model: &Model, saved: &'a [Saved]) -> Result<Vec<Harvested<'a>>> {
    let place = PlaceArgs::at(settings.site.clone());
    let mut all: Vec<Harvested> = Vec::new();
    for (sae, saved) in settings.sae.iter().zip(saved) {
        let sites = measured::sites(model, saved, &place).with_context(|| format!("--sae {sae}"))?;
        // Of several, each has the name of its file or folder; a number sets apart those of one name.
        let name = (settings.sae.len() > 1).then(|| {
            let stem = training_run::model_name(sae.trim_end_matches('/'));
            let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.=".contains(c) { c } else { '-' };
            let stem: String = stem.chars().map(plain).collect();
            let is_taken = |name: &str| all.iter().any(|other| other.name.as_deref() == Some(name));
            let numbered = (2..).map(|i| format!("{stem}-{i}"));
            std::iter::once(stem.clone()).chain(numbered).find(|name| !is_taken(name)).unwrap_or_default()
        });
        let dictionary: &dyn Dictionary = &*saved.dictionary;
        all.push(Harvested { name, dictionary, sites });
    }
    Ok(all)
}

fn distinct(all: &[Harvested]) -> Vec<Site> {
    let mut sites: Vec<Site> = Vec::new();
    for site in all.iter().flat_map(|h| &h.sites.reads) {
        if !sites.contains(site) {
            sites.push(*site);
        }
    }
    sites
}

/// What the manifest records of a dictionary: its weights by their checksum, wherever they came from.
fn recorded(((name, harvested), saved): ((&String, &Harvested), &Saved)) -> Value {
    let sae = match builtin::is_builtin(name) {
        true => name.into(),
        false => std::fs::canonicalize(name).unwrap_or_else(|_| name.into()),
    };
    json!({
        "name": harvested.name, "sae": sae, "kind": saved.dictionary.kind(), "n_latents": saved.dictionary.n_latents(),
        "sites": harvested.sites.recorded(), "sha256": run_dictionary::fingerprint(&saved.dictionary),
    })
}

/// Tells bytes, disk and time expected.
fn plan(
    (settings, common): (&Harvest, &Common),
    model: &Model,
    all: &[Harvested],
    corpus: &Corpus,
    printer: &Printer,
) -> Result<()> {
    let of = settings.shard.map_or(1.0, |shard| shard.of as f64);
    let tokens = estimate::tokens(model, corpus, &settings.text_settings)? / of;
    let layers = distinct(all).iter().map(|site| site.layer.map_or(model.spec.n_layers, |l| l + 1)).max().unwrap_or(0);
    let pass = estimate::forward_flops(model, layers) * tokens;
    let (mut encode, mut describe, mut held, mut tables, mut again, mut firings) = (0.0, 0.0, 0.0, 0.0, 0.0, 0.0);
    for harvested in all {
        let (f, d) = (harvested.dictionary.n_latents() as f64, harvested.dictionary.d_in() as f64);
        encode += 2.0 * f * d * tokens;
        describe += 2.0 * f * d * (model.spec.vocab_size as f64 + f);
        let kept = settings.keep.top_examples as f64 + 15.0 * settings.keep.samples_per_level as f64;
        held += f * (KEPT_BYTES * kept + 24.0 * settings.harvest.sketch as f64 + 700.0);
        held += settings.harvest.correlation_tokens as f64 / of * (4.0 * d + 500.0);
        tables += f * (TABLE_BYTES * kept + 1500.0);
        // The sources of the strongest firings of heads are read in a pass of their own.
        if attribution::is_told(harvested) {
            again += pass;
            tables += f * settings.keep.top_examples as f64 * 2.0 * settings.text_settings.window as f64;
        }
        if settings.keep_activations {
            firings += tokens * L0 * FIRING_BYTES;
        }
    }
    let budget = settings.memory * (1u64 << 30) as f64;
    let spills = held > budget;
    let secs = [("model", pass), ("encode", encode), ("describe", describe), ("sources", again)]
        .map(|(n, flops)| (n, estimate::secs(flops)));
    let total: f64 = secs.iter().map(|(_, s)| s).sum();
    printer.line(format!("text     {:.1} MB, about {tokens:.0} tokens here", estimate::bytes(corpus) as f64 / 1e6));
    printer.line(format!(
        "model    {layers} of {} layers are run, once for {} dictionaries",
        model.spec.n_layers,
        all.len()
    ));
    let spilled = if spills { "; parts are written whenever it is full" } else { "" };
    let weights = model.spec.n_parameters() as f64 * if common.dtype == Dtype::Bf16 { 2.0 } else { 4.0 };
    let weights =
        weights + all.iter().map(|h| 8.0 * h.dictionary.n_latents() as f64 * h.dictionary.d_in() as f64).sum::<f64>();
    printer.line(format!(
        "memory   {:.0} MB of weights, up to {:.0} MB gathered{spilled}, and some hundred MB to compute in",
        weights / 1e6,
        held.min(budget) / 1e6
    ));
    let states = tokens / 150_000.0 * held.min(budget) * 0.5;
    let (end, peak) = (tables + firings + tokens * 3.0, tables + 2.0 * firings + states + tokens * 3.0);
    printer.line(format!(
        "disk     at most about {:.0} MB in the end, and {:.0} MB while it runs",
        end / 1e6,
        peak / 1e6
    ));
    if settings.keep_activations {
        printer.line(format!("         {:.0} MB of them every firing, if {L0:.0} fire at a token", firings / 1e6));
    }
    for (name, secs) in secs.iter().filter(|(_, secs)| *secs > 0.0) {
        printer.line(format!("{name:<8} at least {secs:.0} s"));
    }
    printer.line(format!("in all   at least {total:.0} s on {} cores; twice that is likely", estimate::cores()));
    printer.json(&json!({
        "tokens": tokens.round(), "memory_bytes": held.min(budget).round(), "weights_bytes": weights.round(),
        "disk_bytes": end.round(), "peak_disk_bytes": peak.round(), "spills": spills, "floor_secs": total,
    }));
    Ok(())
}

/// Bytes of an example that is held, with a few values around it.
const KEPT_BYTES: f64 = 90.0;
/// Firings at a token, where all are kept and nothing is known of the dictionary yet.
const L0: f64 = 64.0;
/// Bytes of a firing on the disk.
const FIRING_BYTES: f64 = 8.0;
/// Bytes of an example on the disk.
const TABLE_BYTES: f64 = 45.0;

/// Says what came out.
pub(super) fn tell(command: &str, run: &Run, printer: &Printer) -> Result<()> {
    let found = run.stage(firings::STAGE).cloned().unwrap_or_default();
    for one in found["dictionaries"].as_array().into_iter().flatten() {
        let name = one["name"].as_str().map_or(String::new(), |name| format!("{name}: "));
        printer.line(format!(
            "{name}{} of {} latents fired, L0 {:.1} over {} tokens of {}, {} sinks passed over",
            one["alive"],
            one["n_latents"],
            one["l0"].as_f64().unwrap_or(f64::NAN),
            one["tokens"],
            one["site"].as_str().unwrap_or_default(),
            one["sinks"]
        ));
    }
    printer.json(&json!({"run": run.dir().display().to_string(), "stages": run.manifest().stages}));
    printer.line(format!("{}: done run={}", command, run.dir().display()));
    Ok(())
}
