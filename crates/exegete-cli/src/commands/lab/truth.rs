//! `exegete lab truth`: which concepts a run's dictionary found, against three controls.

use anyhow::{Context, Result, bail};
use exegete_base::settings::{StoredAs, TextSettings, TrainSettings};
use exegete_base::{Site, SiteKind};
use exegete_harvest::training::{Job, Subject};
use exegete_harvest::{Progress, cache, rows, training, windows};
use exegete_lab::language::Language;
use exegete_lab::organism;
use exegete_lab::truth::{
    Count, LabelledTokens, Matched, Neurons, RandomDirections, Source, SparseLatents, Truth, TruthSettings,
    activations, match_concepts, report,
};
use exegete_model::{Model, Residence};
use exegete_sae::Dictionary;
use exegete_sae::Sae;
use exegete_store::{Run, Source as SourceFile, open_corpus};
use serde_json::json;

use super::abilities::interval;
use crate::args::{Common, Dtype, LabTruth};
use crate::commands::training_run::{self, PROGRAM, model_files};
use crate::interrupt;
use crate::open_model;
use crate::printer::Printer;

/// The stage's name in the manifest.
pub(crate) const STAGE: &str = "truth";
/// Where a run keeps the report.
const REPORT: &str = "truth.json";
/// Where a run keeps the dictionary of the untrained organism.
const UNTRAINED: &str = "control-untrained";
/// Labelled documents are of another seed than those of the run.
const OTHER_SEED: u64 = 0x7472_7574;

pub(crate) fn run(settings: &LabTruth, common: &Common, printer: &Printer) -> Result<()> {
    settings.truth.check()?;
    interrupt::listen();
    let mut run = Run::open_to_write(&settings.run)?;
    let recorded = run.manifest().settings["model"].as_str().map(str::to_owned);
    // The dictionary is of activations as the run computed them.
    let as_run = match run.manifest().settings["dtype"].as_str() {
        Some("bf16") => Common { dtype: Dtype::Bf16, ..common.clone() },
        _ => {
            common.refuse_dtype("the run's model is in f32, and its dictionary is of such activations")?;
            common.clone()
        }
    };
    let model = open_model::open_plain(&recorded.context("the run names no model")?, &as_run, printer)?;
    let truth = compare(&mut run, &model, &settings.truth, common.seed, printer)?;
    tell(&truth, settings.missing, printer);
    let [dictionary, untrained, random, neurons] = truth.counts.as_slice() else { bail!("a control is missing") };
    printer.json(&json!({
        "concepts": truth.concepts, "recovered": dictionary.recovered, "control_untrained": untrained.recovered,
        "control_random": random.recovered, "control_neurons": neurons.recovered,
    }));
    let above = |c: &Count| Some(format!("{} (by {})", c.name, interval(&c.difference?, 0)));
    let too_good: Vec<String> = truth.not_surpassed().into_iter().filter_map(above).collect();
    if settings.strict && !too_good.is_empty() {
        bail!("the dictionary does not surely recover more than its controls: {}", too_good.join(", "));
    }
    Ok(())
}

/// Compares the dictionary of a run and all controls with the concepts, and keeps the report in the run.
pub(crate) fn compare(
    run: &mut Run,
    model: &Model,
    settings: &TruthSettings,
    seed: u64,
    printer: &Printer,
) -> Result<Truth> {
    let dictionary = training::dictionary(run)?;
    let site: Site = run.manifest().settings["site"].as_str().context("the run names no site")?.parse()?;
    let language = Language::new();
    organism::check_speaks(model)?;
    check_inputs(run, &model_files(&model.path)?)?;
    let untrained_dictionary = untrained(run, model, printer)?;
    printer.begin(STAGE, 4, "dictionaries and controls", 0);
    let longest = model.spec.max_positions;
    let tokens = LabelledTokens::new(&language, model.tokenizer()?, seed ^ OTHER_SEED, settings.truth_tokens, longest)?;
    let n = language.concepts().all().len();
    let matched = |name: &'static str, done: u64, source: &dyn Source| -> Result<(&'static str, usize, Vec<Matched>)> {
        printer.check()?;
        let found = match_concepts(source, &tokens, n, settings.least_tokens);
        printer.at(done, name);
        Ok((name, source.n(), found))
    };
    let acts = activations(model, site, &tokens)?;
    let d = dictionary.d_in();
    let latents = dictionary.n_latents();
    let own = matched("dictionary", 1, &SparseLatents::new(&dictionary, &acts)?)?;
    let random = matched("random", 2, &RandomDirections::new(&acts, d, latents, seed))?;
    drop(acts);
    let layers = layers_before(site, model.spec.n_layers);
    let neurons = matched("neurons", 3, &Neurons::new(model, &tokens, layers, latents, seed)?)?;
    let model = organism::untrained(&model.path, run_seed(run), residence(run))?;
    let acts = activations(&model, site, &tokens)?;
    let blind = matched("untrained", 4, &SparseLatents::new(&untrained_dictionary, &acts)?)?;
    let truth = report(&[own, blind, random, neurons], &tokens, language.concepts(), settings, seed);
    let json = serde_json::to_vec_pretty(&truth)?;
    run.commit_part(REPORT, truth.concepts, |w| std::io::Write::write_all(w, &json))?;
    let summary = json!({"settings": settings, "counts": truth.counts, "concepts": truth.concepts, "seed": seed});
    run.finish_stage(STAGE, summary)?;
    printer.end(&format!("{} of {} concepts recovered", truth.counts[0].recovered, truth.concepts));
    Ok(truth)
}

/// A dictionary of the same shape, trained in the same way on the same text, of an organism that was never trained.
fn untrained(run: &Run, model: &Model, printer: &Printer) -> Result<Sae> {
    let (dir, seed) = (run.path(UNTRAINED), run_seed(run));
    let settings = &run.manifest().settings;
    let text_settings: TextSettings = serde_json::from_value(settings["windows"].clone())?;
    let train_settings: TrainSettings = serde_json::from_value(settings["train"].clone())?;
    let text: Vec<String> = serde_json::from_value(settings["text"].clone())?;
    let site = settings["site"].as_str().unwrap_or_default().to_owned();
    let recorded = json!({"command": "lab truth", "of": settings, "seed": seed});
    let jobs = [Job { name: None, settings: train_settings, seed }];
    let mut control = Run::create_or_resume(&dir, PROGRAM, recorded, &[])?;
    if control.stage(training::STAGE).is_none() {
        let text = crate::builtin::texts(&text)?;
        let corpus = open_corpus(&text, &windows::text_options(&text_settings))?;
        check_inputs(run, &corpus.sources)?;
        let blind = organism::untrained(&model.path, seed, residence(run))?;
        let reader = windows::run(&mut control, &blind, &corpus, (&text_settings, None), printer)?;
        let rows = rows::window_rows(&reader)?;
        let name = "untrained organism".into();
        let subject = Subject { model: &blind, name, windows: &rows, seed, buffer_tokens: 0 };
        let how = (text_settings.window, StoredAs::F32);
        let acts = training_run::cached(&mut control, &subject, &[site.parse()?], how, printer)?;
        training::run(&mut control, &acts, &subject, &jobs, training_run::every(0), printer)?;
    }
    training::remove_checkpoints(&mut control, &jobs)?;
    cache::remove(&mut control)?;
    Ok(training::dictionary(&control)?)
}

/// The seed of a run: the control is trained as its dictionary was, whatever the documents of the comparison.
fn run_seed(run: &Run) -> u64 {
    run.manifest().settings["seed"].as_u64().unwrap_or_default()
}

/// How a run kept its model's weights: the control's are kept alike.
fn residence(run: &Run) -> Residence {
    match run.manifest().settings["dtype"].as_str() {
        Some("bf16") => Residence::Bf16,
        _ => Residence::F32,
    }
}

/// Checks that files are those that the run was made from.
fn check_inputs(run: &Run, files: &[SourceFile]) -> Result<()> {
    for file in files {
        let same = |input: &&SourceFile| input.path.file_name() == file.path.file_name() && input.sha256 == file.sha256;
        if run.manifest().inputs.iter().find(same).is_none() {
            bail!("{} is not what the run was made from; put that back, or make another run", file.path.display());
        }
    }
    Ok(())
}

/// The report that a run keeps, if it was made with these settings.
pub(crate) fn kept(run: &Run, settings: &TruthSettings, seed: u64) -> Option<Truth> {
    let summary = run.stage(STAGE)?;
    if summary["settings"] != json!(settings) || summary["seed"] != json!(seed) {
        return None;
    }
    serde_json::from_slice(&std::fs::read(run.path(REPORT)).ok()?).ok()
}

/// Layers whose MLPs have written to the residual stream before a site.
fn layers_before(site: Site, n_layers: usize) -> usize {
    match (site.layer, site.kind) {
        (None, SiteKind::Embed) => 0,
        (None, _) => n_layers,
        (Some(layer), SiteKind::ResidPost | SiteKind::MlpOut) => layer + 1,
        (Some(layer), _) => layer,
    }
}

/// Tells what was found.
pub(crate) fn tell(truth: &Truth, n_missing: usize, printer: &Printer) {
    printer.line(format!(
        "{} concepts with enough tokens, {} without; {} tokens to choose, {} to score",
        truth.concepts,
        truth.not_measured.len(),
        truth.tokens.0,
        truth.tokens.1
    ));
    printer.line("");
    printer.line(
        "            features  recovered (F1 of 0.8 or more)  the dictionary's less these [95 %]  split  absorbed",
    );
    for count in &truth.counts {
        let difference = count.difference.as_ref().map(|d| interval(d, 0)).unwrap_or_default();
        let Count { name, features, recovered, by, split, absorbed, .. } = count;
        let found = format!("{recovered} concepts by {by} latents");
        printer.line(format!("{name:<10}  {features:<8}  {found:<29}  {difference:<34}  {split:<5}  {absorbed}"));
    }
    other_sizes(&truth.counts).iter().for_each(|note| printer.line(note));
    printer.line("");
    printer.line(format!("{} of {} concepts are missing; the nearest:", truth.missing.len(), truth.concepts));
    for m in truth.missing.iter().take(n_missing) {
        printer.line(format!("  {:<24} F1 {:.2}: {}", m.concept, m.f1, m.why));
    }
}

/// Which controls have another number of features than the dictionary: fewer have fewer chances.
fn other_sizes(counts: &[Count]) -> Vec<String> {
    let Some((own, controls)) = counts.split_first() else { return vec![] };
    let others = controls.iter().filter(|count| count.features != own.features);
    let note = |count: &Count| {
        format!("{}: {} features, all that there are; the dictionary has {}", count.name, count.features, own.features)
    };
    others.map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_of_another_size_are_told_of() {
        let count = |name: &str, features| {
            let name = name.to_owned();
            Count { name, features, recovered: 0, by: 0, difference: None, split: 0, absorbed: 0 }
        };
        let told = other_sizes(&[count("dictionary", 4096), count("random", 4096), count("neurons", 3072)]);
        assert_eq!(told, ["neurons: 3072 features, all that there are; the dictionary has 4096"]);
    }
}
