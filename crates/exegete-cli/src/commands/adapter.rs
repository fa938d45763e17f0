//! `exegete adapter`: trains a map through which a model says what directions mean.

use std::path::Path;

use anyhow::{Context, Result, bail};
use exegete_harvest::Progress;
use exegete_methods::adapter::{self, Pair, train};
use exegete_methods::direction;
use exegete_methods::self_explain::AT_NORM;
use exegete_model::Model;
use exegete_sae::Dictionary;
use exegete_store::{Notes, RANDOM, is_control, write_atomic};
use serde::Deserialize;
use serde_json::json;

use super::explain::NOTES;
use crate::args::Common;
use crate::args_explain::{AdapterTrain, Of};
use crate::judged::Opened;
use crate::printer::Printer;
use crate::{interrupt, open_model};

pub(crate) fn run(settings: &AdapterTrain, common: &Common, printer: &Printer) -> Result<()> {
    interrupt::listen();
    if settings.out.extension().is_none_or(|ending| ending != "safetensors") {
        bail!("--out {} must end in .safetensors", settings.out.display());
    }
    if settings.pairs.is_dir() {
        let of =
            Of { run: settings.pairs.clone(), model: settings.model.clone(), dictionary: settings.dictionary.clone() };
        let opened = Opened::new(&of, common, printer)?;
        let pairs = from_run(settings, &opened)?;
        return learn(settings, &opened.model, &pairs, common, printer);
    }
    let model = settings.model.as_deref().context("--model is missing: a file of pairs names none")?;
    let model = open_model::open_plain(model, common, printer)?;
    learn(settings, &model, &from_file(&settings.pairs)?, common, printer)
}

fn learn(settings: &AdapterTrain, model: &Model, pairs: &[Pair], common: &Common, printer: &Printer) -> Result<()> {
    let steps = (pairs.len().div_ceil(settings.train.batch.max(1)) * settings.train.epochs) as u64;
    printer.begin("adapter", steps, "steps", 0);
    let mut at = |of: exegete_methods::adapter::Progressed| {
        printer.at(of.step, &format!("loss {:.3}", of.loss));
        !printer.is_cancelled()
    };
    let trained = train(model, &settings.template, pairs, &settings.train, common.seed, &mut at)?;
    let bytes = trained.adapter.to_bytes()?;
    write_atomic(&settings.out, |w| std::io::Write::write_all(w, &bytes))?;
    let [learnt, held] = trained.pairs;
    printer.end(&format!("{} steps on {learnt} pairs", trained.adapter.steps));
    if trained.adapter.steps == 0 {
        printer.note("note: no pass made the pairs held out likelier; the adapter is the one that training began with");
    }
    printer.line(format!(
        "loss of {held} pairs held out, by which the pass was chosen: {:.3} nats a token, {:.3} before, {:.3} with another's direction",
        trained.loss, trained.loss_before, trained.loss_shuffled
    ));
    let scale = trained.adapter.scale().map(|scale| format!(", scale {scale:.2}")).unwrap_or_default();
    printer.line(format!("{}: {} parameters{scale}", settings.out.display(), trained.adapter.n_parameters()));
    printer.json(&json!({
        "out": settings.out, "steps": trained.adapter.steps, "pairs": learnt, "held_out": held, "loss": trained.loss,
        "loss_before": trained.loss_before, "loss_shuffled": trained.loss_shuffled, "scale": trained.adapter.scale(),
        "parameters": trained.adapter.n_parameters(), "settings": settings.train,
    }));
    Ok(())
}

/// Decoder rows with the first text of each, or the best by a scorer.
fn from_run(settings: &AdapterTrain, opened: &Opened) -> Result<Vec<Pair>> {
    let path = opened.run.path(&opened.of.part(NOTES));
    if !path.exists() {
        bail!("{} holds no explanations yet: `exegete explain` makes them", settings.pairs.display());
    }
    let notes = Notes::open_read_only(&path)?;
    let mut pairs = Vec::new();
    for latent in notes.first_texts()?.into_keys() {
        let all = notes.explanations_of(latent)?;
        // What is said of random directions is nobody's, and what an adapter says is what another is to learn from no one.
        let is_said = |method: &str| ![RANDOM, AT_NORM, adapter::NAME].contains(&method);
        let of_method = |method: &str| settings.method.as_deref().map_or(is_said(method), |wanted| wanted == method);
        let mut texts: Vec<&str> = all
            .iter()
            .filter(|e| !e.abstained && !e.text.trim().is_empty() && of_method(&e.method))
            .map(|e| e.text.trim())
            .collect();
        if let Some(scorer) = &settings.scorer {
            let scores = notes.scores_of(latent)?;
            let of = |text: &&str| {
                let of = scores.iter().filter(|s| s.text == **text && s.scorer == *scorer && !is_control(&s.against));
                of.map(|s| s.value.value).fold(f64::NEG_INFINITY, f64::max)
            };
            texts.retain(|text| of(text) >= settings.least);
            texts.sort_by(|a, b| of(b).total_cmp(&of(a)));
        }
        if let Some(text) = texts.first() {
            let direction = opened.dictionary.decoder_row(latent.0 as usize).to_vec();
            pairs.push(Pair { direction, text: (*text).to_owned(), held_out: None, latent: Some(latent.0) });
        }
    }
    if pairs.is_empty() {
        bail!("no explanation of {} is what --method and --scorer ask for", settings.pairs.display());
    }
    Ok(pairs)
}

/// A set of vectors with labels, as the published adapters are trained on.
#[derive(Deserialize)]
struct Set {
    metadata: Metadata,
    vectors: Vec<Labelled>,
}

#[derive(Deserialize)]
struct Metadata {
    filename: String,
}

#[derive(Deserialize)]
struct Labelled {
    index: usize,
    labels: Vec<String>,
    #[serde(default)]
    split: Option<String>,
}

fn from_file(path: &Path) -> Result<Vec<Pair>> {
    let named = || path.display().to_string();
    let text = std::fs::read_to_string(path).with_context(named)?;
    let sets: Vec<Set> = serde_json::from_str(&text).with_context(named)?;
    let mut pairs = Vec::new();
    for set in sets {
        // A file of vectors lies beside the one that names it.
        let file = path.with_file_name(&set.metadata.filename);
        let (rows, d) = direction::table(&file).with_context(named)?;
        for labelled in set.vectors {
            let row = rows.chunks_exact(d).nth(labelled.index);
            let row = row.with_context(|| {
                format!(
                    "{}: vector {} is not in {}, which has {}",
                    named(),
                    labelled.index,
                    file.display(),
                    rows.len() / d
                )
            })?;
            let held_out = labelled.split.map(|split| split != "train");
            for text in labelled.labels.into_iter().filter(|label| !label.trim().is_empty()) {
                pairs.push(Pair { direction: row.to_vec(), text, held_out, latent: None });
            }
        }
    }
    Ok(pairs)
}
