//! `exegete sae eval`: how good dictionaries are.

mod compare;
mod told;

use std::path::Path;

use anyhow::{Context, Result, bail};
use exegete_base::Site;
use exegete_base::settings::TextSettings;
use exegete_base::stats::{Estimate, mean_of};
use exegete_harvest::measure::{self, Measured, Placed};
use exegete_harvest::probing::{self, TaskReport};
use exegete_harvest::training::Sites;
use exegete_harvest::windows::text_options;
use exegete_lab::builtin::NAME;
use exegete_sae::formats::{Choices, Saved};
use exegete_sae::metrics::{self, geometry};
use exegete_sae::{AnyDictionary, Dictionary};
use exegete_store::{Task, open_corpus, read_task};
use serde::Serialize;
use serde_json::{Value, json};

use super::{measured, training_run};
use crate::args::Common;
use crate::args_eval::SaeEval;
use crate::printer::Printer;
use crate::{builtin, interrupt, open_dictionary};

/// Most latents whose decoder rows are all compared with each other: the work grows with the square.
const MOST_COMPARED: usize = 1 << 15;

/// A dictionary with everything that was measured of it.
struct Evaluated {
    name: String,
    saved: Saved,
    sites: Sites,
    measured: Measured,
    geometry: Vec<(&'static str, Estimate)>,
    tasks: Vec<TaskReport>,
}

/// A number by which dictionaries are compared.
#[derive(Clone, Serialize)]
struct Headline {
    name: String,
    #[serde(flatten)]
    estimate: Estimate,
    /// Numerator and denominator of each document; none where the number is no ratio over documents.
    #[serde(skip)]
    pairs: Vec<(f64, f64)>,
}

pub(crate) fn run(settings: &SaeEval, common: &Common, printer: &Printer) -> Result<()> {
    settings.probes.check().map_err(anyhow::Error::msg)?;
    interrupt::listen();
    let mut text_settings = settings.place.text_settings(settings.tokens);
    let text = training_run::text_of(&settings.model, &settings.text, &mut text_settings)?;
    let choices = Choices { format: settings.format.clone(), k: settings.k, ..Choices::default() };
    let named: Vec<&String> = settings.saes.iter().chain(&settings.against).collect();
    let mut saved = Vec::new();
    for name in &named {
        saved.push(open_dictionary::load(name, &choices, printer).with_context(|| format!("dictionary {name}"))?);
    }
    let tasks =
        settings.probe.iter().map(|spec| task(spec, settings, &text_settings)).collect::<Result<Vec<Task>>>()?;
    let model = measured::open_model(&settings.model, &saved.iter().collect::<Vec<&Saved>>(), common, printer)?;
    let corpus = open_corpus(&builtin::texts(&text)?, &text_options(&text_settings))?;
    let sites = |(name, saved): (&&String, &Saved)| {
        measured::sites(&model, saved, &settings.place).with_context(|| format!("dictionary {name}"))
    };
    let sites = named.iter().zip(&saved).map(sites).collect::<Result<Vec<Sites>>>()?;
    let placed: Vec<Placed> = saved.iter().zip(&sites).map(|(saved, sites)| (&*saved.dictionary, sites)).collect();
    let measured = measure::measure(&model, &placed, &corpus, &text_settings, printer)?;
    let mut all = Vec::new();
    for (((name, saved), sites), measured) in named.into_iter().zip(saved).zip(sites).zip(measured) {
        let geometry = directions(&saved);
        all.push(Evaluated { name: name.clone(), saved, sites, measured, geometry, tasks: Vec::new() });
    }
    for task in &tasks {
        let asked: Vec<(&dyn Dictionary, &[Site])> =
            all.iter().map(|e| (&*e.saved.dictionary, &e.sites.reads[..])).collect();
        let splits = probing::examples(&model, &asked, task, &text_settings, &settings.probes, common.seed, printer)?;
        for (evaluated, split) in all.iter_mut().zip(&splits) {
            let dictionary = &*evaluated.saved.dictionary;
            let report = probing::run(task, split, dictionary, &settings.probes, common.seed, printer)?;
            evaluated.tasks.push(report);
        }
    }
    let (own, other) = all.split_at(settings.saes.len());
    let comparison = compare::compare(own, other, common.seed)?;
    for evaluated in &all {
        told::tell(evaluated, settings, printer);
    }
    comparison.tell(printer);
    let dictionaries: Vec<Value> = all.iter().map(|evaluated| as_json(evaluated, settings)).collect();
    printer.json(&json!({
        "metrics_version": metrics::VERSION, "seed": common.seed, "dictionaries": dictionaries, "comparison": comparison,
    }));
    Ok(())
}

/// Reads a task, by its path or as what is built in.
fn task(spec: &str, settings: &SaeEval, text: &TextSettings) -> Result<Task> {
    let path = builtin::texts(&[spec.to_owned()])?;
    let mut task = read_task(&path[0], &settings.probes.probe_group)?;
    if spec == NAME {
        // Where its files lie is nobody's business.
        task.name = spec.into();
        if !text.special_tokens {
            bail!("--probe {spec} is text with special tokens: give --special-tokens, if the model knows them");
        }
    }
    Ok(task)
}

/// Means over latents of cosines of their directions, with intervals over latents.
fn directions(saved: &Saved) -> Vec<(&'static str, Estimate)> {
    let AnyDictionary::Sae(sae) = &saved.dictionary else { return Vec::new() };
    let mean = |cosines: Vec<f32>| mean_of(&cosines.iter().map(|c| f64::from(*c)).collect::<Vec<f64>>());
    let mut all = Vec::new();
    if let Some(cosines) = geometry::encoder_decoder_cosines(sae) {
        all.push(("encoder-decoder cosine", mean(cosines)));
    }
    if sae.n_latents() > 1 && sae.n_latents() <= MOST_COMPARED {
        let cosines = geometry::max_decoder_cosines(&sae.w_dec_FD, sae.d_out);
        all.push(("maximal decoder cosine", mean(cosines)));
    }
    all
}

fn as_json(evaluated: &Evaluated, settings: &SaeEval) -> Value {
    let sae = &evaluated.saved.dictionary;
    let compat: Vec<Value> = settings
        .compat
        .iter()
        .map(|tool| json!({"tool": tool.tool(), "numbers": evaluated.measured.batches.numbers(tool.tool())}))
        .collect();
    let geometry: Vec<Value> =
        evaluated.geometry.iter().map(|(name, estimate)| json!({"name": name, "estimate": estimate})).collect();
    json!({
        "name": evaluated.name, "kind": sae.kind(), "n_latents": sae.n_latents(), "d_in": sae.d_in(), "d_out": sae.d_out(),
        "sites": evaluated.sites.recorded(),
        "measured": evaluated.measured, "geometry": geometry, "compat": compat, "tasks": evaluated.tasks,
    })
}

impl Evaluated {
    /// The numbers by which it is compared with others, in the order in which they are told.
    fn headlines(&self) -> Vec<Headline> {
        let plain = |name: String, estimate: Estimate| Headline { name, estimate, pairs: Vec::new() };
        let numbers = self.measured.numbers.iter();
        let mut all: Vec<Headline> =
            numbers.map(|n| Headline { name: n.name.into(), estimate: n.estimate, pairs: n.pairs.clone() }).collect();
        all.push(plain("dead share".into(), self.measured.dead));
        for task in &self.tasks {
            let name =
                Path::new(&task.task).file_name().map_or(task.task.as_str().into(), |name| name.to_string_lossy());
            let sparse = task.means.iter().filter(|mean| !mean.is_shuffled);
            for (mean, k) in sparse.filter_map(|mean| Some((mean, mean.k?))) {
                all.push(plain(format!("{name}: k = {k} accuracy"), mean.score.accuracy));
                all.push(plain(format!("{name}: k = {k} F1"), mean.score.f1));
            }
            // A mean over too few letters is told, and not compared.
            if let Some(mean) = task.absorption.as_ref().filter(|a| a.is_enough).and_then(|a| a.mean) {
                all.push(plain(format!("{name}: absorption fraction"), mean.fraction));
                all.push(plain(format!("{name}: full absorption"), mean.full));
            }
        }
        all
    }
}
