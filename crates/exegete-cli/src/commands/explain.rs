//! `exegete explain`: latents of a run explain themselves, or a judge explains them.

use anyhow::{Result, bail};
use exegete_base::LatentId;
use exegete_base::settings::SelfExplainSettings;
use exegete_explain::ExplainError;
use exegete_explain::amplify::Amplifier;
use exegete_explain::examples::{Against, Use};
use exegete_explain::explainers::{self, EXPLAINERS, Explainer, Given};
use exegete_harvest::Progress;
use exegete_methods::self_explain::{NAME, SelfExplainer, SelfExplanation};
use exegete_sae::Dictionary;
use exegete_store::{Curves, Explanation, Notes};
use exegete_web::plain;
use serde_json::{Value, json};

use super::numbers;
use crate::args::Common;
use crate::args_explain::Explain;
use crate::interrupt;
use crate::judged::{self, Opened, Texts};
use crate::printer::Printer;

/// Where a run keeps explanations.
pub(crate) const NOTES: &str = "run.sqlite";

pub(crate) fn run(settings: &Explain, common: &Common, printer: &Printer) -> Result<()> {
    interrupt::listen();
    let latents = numbers::parse(&settings.latents)?;
    let judged = EXPLAINERS.iter().find(|explainer| explainer.name == settings.method);
    if judged.is_none() && settings.method != NAME {
        let known: Vec<&str> = EXPLAINERS.iter().map(|explainer| explainer.name).collect();
        bail!("--method: {:?} is none; there are {NAME}, {}", settings.method, known.join(", "));
    }
    let opened = Opened::new(&settings.of, common, printer)?;
    opened.check(&latents)?;
    let mut notes = Notes::open(&opened.run.path(&opened.of.part(NOTES)))?;
    match judged {
        None => by_itself(settings, &latents, (&opened, &mut notes), printer),
        Some(explainer) => by_judge(settings, explainer, &latents, (&opened, &mut notes), common, printer),
    }
}

/// The model says what a direction means.
fn by_itself(
    settings: &Explain,
    latents: &[u32],
    (opened, notes): (&Opened, &mut Notes),
    printer: &Printer,
) -> Result<()> {
    let explainer = SelfExplainer::new(&opened.model, &settings.self_explain)?;
    printer.begin("explain", latents.len() as u64, "latents", 0);
    let mut results = Vec::new();
    for (i, latent) in latents.iter().enumerate() {
        printer.check()?;
        let explained = explainer.explain(opened.dictionary.decoder_row(*latent as usize))?;
        keep(notes, LatentId(*latent), &explained, &settings.self_explain)?;
        printer.at(i as u64 + 1, "");
        let texts: Vec<&str> = explained.answers.iter().map(|a| a.text.as_str()).collect();
        results.push(json!({"latent": latent, "abstained": explained.abstained, "texts": texts}));
        let shown = if explained.abstained { "(abstained)".into() } else { texts.join(" | ") };
        printer.line(format!("{latent:>6}  {}", plain(&shown)));
    }
    printer.end(&format!("{} latents", latents.len()));
    printer.json(&Value::Array(results));
    Ok(())
}

/// A judge says what excerpts, or promoted words, have in common.
fn by_judge(
    settings: &Explain,
    explainer: &Explainer,
    latents: &[u32],
    (opened, notes): (&Opened, &mut Notes),
    common: &Common,
    printer: &Printer,
) -> Result<()> {
    let other = judged::other_model(&settings.judge, opened, common, printer)?;
    let judge = judged::judge(&settings.judge, opened, other.as_ref(), false)?;
    let (subject, rows) = (opened.subject()?, opened.rows()?);
    let amplifier = Amplifier::new(&subject);
    let texts = match explainer.shown.activating || explainer.shown.contrast {
        true => Some(Texts::new(opened, &subject, &settings.excerpts, common.seed)?),
        false => None,
    };
    let source = texts.as_ref().map(|texts| texts.source(&subject, &settings.excerpts, common.seed));
    printer.begin("explain", latents.len() as u64, "latents", 0);
    let (mut results, mut without) = (Vec::new(), 0);
    for (i, latent) in latents.iter().enumerate() {
        printer.check()?;
        let Some(row) = rows.iter().find(|row| row.latent.0 == *latent) else { continue };
        let (mut firing, mut silent) = (Vec::new(), Vec::new());
        if let Some(source) = &source {
            firing = source.firing(*latent, Use::Explain, settings.shown)?;
            if explainer.shown.contrast {
                silent = source.silent(row, &firing, Against::Random, Use::Explain, settings.shown / 2);
            }
        }
        let given = Given { row, firing: &firing, silent: &silent, amplifier: &amplifier };
        let how = (settings.texts.max(1), common.seed);
        let said = match explainers::explain(explainer, &subject, &*judge, &given, how) {
            Ok(said) => said,
            // A latent of which there is nothing to show is told of, and the others go on.
            Err(ExplainError::Request(why)) => {
                without += 1;
                printer.line(format!("{latent:>6}  ({why})"));
                results.push(json!({"latent": latent, "texts": [], "why": why}));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let made = json!({
            "judge": judge.name(), "prompt": said.version, "shown": firing.len(), "silent": silent.len(), "failed": said.failed,
            "seed": common.seed, "excerpt_tokens": settings.excerpts.excerpt_tokens, "amplified": said.amplified,
        });
        let row = |(rank, text): (usize, &String)| Explanation {
            method: explainer.name.into(),
            rank: rank as u32,
            text: text.clone(),
            scale: f64::NAN,
            score: f64::NAN,
            abstained: false,
            settings: made.clone(),
        };
        let kept: Vec<Explanation> = said.texts.iter().enumerate().map(row).collect();
        if kept.is_empty() {
            // What was said before stays: no answer is no reason to lose it.
            printer.line(format!("{latent:>6}  (none of {} answers made sense)", said.failed));
            results.push(json!({"latent": latent, "texts": [], "failed": said.failed}));
            continue;
        }
        notes.put_explanations(LatentId(*latent), explainer.name, &kept, &Curves::default())?;
        printer.at(i as u64 + 1, "");
        printer.line(format!("{latent:>6}  {}", plain(&said.texts.join(" | "))));
        results.push(json!({"latent": latent, "texts": said.texts, "failed": said.failed}));
    }
    let nothing = if without > 0 { format!(", of {without} there was nothing to show") } else { String::new() };
    printer.end(&format!("{} latents{nothing}", latents.len()));
    printer.json(&json!({"explained": results, "cost": judge.cost()}));
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
