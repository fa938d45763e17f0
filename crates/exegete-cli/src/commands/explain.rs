//! `exegete explain`: latents of a run explain themselves.

use anyhow::{Context, Result, bail};
use exegete_base::LatentId;
use exegete_base::settings::SelfExplainSettings;
use exegete_harvest::Progress;
use exegete_methods::self_explain::{NAME, SelfExplainer, SelfExplanation};
use exegete_sae::Dictionary;
use exegete_store::{Curves, Explanation, Notes, Run, harvested};
use serde_json::{Value, json};

use super::numbers;
use crate::args::{Common, Explain};
use crate::interrupt;
use crate::printer::Printer;
use crate::{open_model, run_dictionary};

/// Where a run keeps explanations.
pub(crate) const NOTES: &str = "run.sqlite";

pub(crate) fn run(settings: &Explain, common: &Common, printer: &Printer) -> Result<()> {
    interrupt::listen();
    let run = Run::open_to_write(&settings.run)?;
    let recorded = run.manifest().settings["model"].as_str().map(str::to_owned);
    let path = settings.model.clone().or(recorded).context("the run names no model; give --model")?;
    let latents = numbers::parse(&settings.latents)?;
    let of = harvested::dictionary(&run, settings.dictionary.as_deref())?;
    let dictionary = run_dictionary::weights(&run, &of, printer)?;
    if let Some(latent) = latents.iter().find(|l| **l as usize >= dictionary.n_latents()) {
        bail!("latent {latent} does not exist; the dictionary has latents 0..={}", dictionary.n_latents() - 1);
    }
    let model = open_model::open_plain(&path, common, printer)?;
    let explainer = SelfExplainer::new(&model, &settings.self_explain)?;
    let mut notes = Notes::open(&run.path(&of.part(NOTES)))?;
    printer.begin("explain", latents.len() as u64, "latents", 0);
    let mut results = Vec::new();
    for (i, latent) in latents.iter().enumerate() {
        printer.check()?;
        let explained = explainer.explain(dictionary.decoder_row(*latent as usize))?;
        keep(&mut notes, LatentId(*latent), &explained, &settings.self_explain)?;
        printer.at(i as u64 + 1, "");
        let texts: Vec<&str> = explained.answers.iter().map(|a| a.text.as_str()).collect();
        results.push(json!({"latent": latent, "abstained": explained.abstained, "texts": texts}));
        let shown = if explained.abstained { "(abstained)".into() } else { texts.join(" | ") };
        printer.line(format!("{latent:>6}  {shown}"));
    }
    printer.end(&format!("{} latents", latents.len()));
    printer.json(&Value::Array(results));
    Ok(())
}

/// Writes an explanation into the run's notes.
pub(crate) fn keep(
    notes: &mut Notes,
    latent: LatentId,
    explained: &SelfExplanation,
    settings: &SelfExplainSettings,
) -> Result<()> {
    let settings = serde_json::to_value(settings)?;
    let row = |rank: usize, text: &str, scale: f64, score: f64| Explanation {
        method: NAME.into(),
        rank: rank as u32,
        text: text.into(),
        scale,
        score,
        abstained: explained.abstained,
        settings: settings.clone(),
    };
    let texts: Vec<Explanation> = match explained.abstained {
        true => vec![row(0, "", 0.0, explained.best_similarity)],
        false => explained.answers.iter().enumerate().map(|(i, a)| row(i, &a.text, a.scale, a.merit)).collect(),
    };
    let c = &explained.curves;
    let curves = [
        ("self-similarity", &c.self_similarity),
        ("entropy", &c.entropy),
        ("cross-entropy to the mean embedding", &c.cross_entropy),
    ];
    let curves = curves.into_iter().map(|(name, values)| (name.to_owned(), values.clone())).collect();
    notes.put_explanations(latent, NAME, &texts, &Curves { scales: c.scales.clone(), curves })?;
    Ok(())
}
