//! `exegete explain`: latents of a run explain themselves, or a judge explains them.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use exegete_base::LatentId;
use exegete_base::settings::{ScaleRule, SelfExplainSettings};
use exegete_explain::ExplainError;
use exegete_explain::amplify::Amplifier;
use exegete_explain::examples::{Against, Use};
use exegete_explain::explainers::{self, EXPLAINERS, Explainer, Given};
use exegete_harvest::Progress;
use exegete_methods::adapter::{self, Adapter, AdapterExplainer};
use exegete_methods::self_explain::{AT_NORM, Answer, LayerCurve, NAME, SelfExplainer, SelfExplanation};
use exegete_sae::Dictionary;
use exegete_store::{BY_LAYER, CROSS_ENTROPY, Curves, ENTROPY, Explanation, Notes, RANDOM, SAID, SELF_SIMILARITY};
use exegete_web::plain;
use serde_json::{Value, json};

use super::numbers;
use crate::args::Common;
use crate::args_explain::Explain;
use crate::interrupt;
use crate::judged::{self, Opened, Texts};
use crate::printer::Printer;

/// Texts of a latent that are printed.
const SHOWN: usize = 3;

/// Where a run keeps explanations.
pub(crate) const NOTES: &str = "run.sqlite";

pub(crate) fn run(settings: &Explain, common: &Common, printer: &Printer) -> Result<()> {
    interrupt::listen();
    let latents = numbers::parse(&settings.latents)?;
    let judged = EXPLAINERS.iter().find(|explainer| explainer.name == settings.method);
    let is_adapter = settings.method == adapter::NAME;
    if judged.is_none() && ![NAME, RANDOM].contains(&settings.method.as_str()) && !is_adapter {
        let known: Vec<&str> = EXPLAINERS.iter().map(|explainer| explainer.name).collect();
        bail!(
            "--method: {:?} is none; there are {NAME}, {}, {RANDOM}, {}",
            settings.method,
            adapter::NAME,
            known.join(", ")
        );
    }
    if is_adapter != settings.adapter.is_some() {
        bail!("--method {} and --adapter go together: `exegete adapter` trains one", adapter::NAME);
    }
    let opened = Opened::new(&settings.of, common, printer)?;
    opened.check(&latents)?;
    let mut notes = Notes::open(&opened.run.path(&opened.of.part(NOTES)))?;
    match judged {
        None if settings.method == RANDOM => of_random(settings, &latents, (&opened, &mut notes), common, printer),
        None if is_adapter => by_adapter(settings, &latents, (&opened, &mut notes), common, printer),
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
    let asked = asked_of(&settings.self_explain, &opened.model_path)?;
    let (results, there) = each((settings, latents), notes, (NAME, &asked), printer, |notes, latent| {
        let explained = explainer.explain(opened.dictionary.decoder_row(latent as usize))?;
        keep(notes, LatentId(latent), &explained, &asked)?;
        let texts: Vec<&str> = explained.answers.iter().map(|a| a.text.as_str()).collect();
        let first = &texts[..texts.len().min(SHOWN)];
        let line = if explained.abstained { "(abstained)".into() } else { first.join(" | ") };
        let at_norm = &explained.at_norm;
        Ok((line, json!({"latent": latent, "abstained": explained.abstained, "texts": texts, "at_norm": at_norm})))
    })?;
    printer.end(&format!("{} latents{}", latents.len(), before(there)));
    printer.json(&Value::Array(results));
    Ok(())
}

/// The control: what the model says of a direction drawn at random in each latent's place. Scorers that cannot tell it from what is said of
/// the latent are not to be believed.
fn of_random(
    settings: &Explain,
    latents: &[u32],
    (opened, notes): (&Opened, &mut Notes),
    common: &Common,
    printer: &Printer,
) -> Result<()> {
    let explainer = SelfExplainer::new(&opened.model, &settings.self_explain)?;
    // A random direction's text is wanted whatever the rule thinks of it; how often the rule would have kept silent is told.
    let whatever = SelfExplainSettings {
        rule: ScaleRule::Entropy,
        abstain_below: f64::NEG_INFINITY,
        ..settings.self_explain.clone()
    };
    let anyway = SelfExplainer::new(&opened.model, &whatever)?;
    let mut made = asked_of(&settings.self_explain, &opened.model_path)?;
    made["seed"] = common.seed.into();
    let mut abstained = 0;
    let (_, there) = each((settings, latents), notes, (RANDOM, &made), printer, |notes, latent| {
        let mut direction = explainer.random_direction(common.seed, u64::from(latent));
        // As long as the row in whose place it stands, for rows that go in as they are.
        let length = |x: &[f32]| x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let by = length(opened.dictionary.decoder_row(latent as usize)) / length(&direction);
        direction.iter_mut().for_each(|x| *x *= by as f32);
        let mut explained = explainer.explain(&direction)?;
        if explained.abstained {
            abstained += 1;
            explained = anyway.explain(&direction)?;
        }
        let answer = explained.answers.first();
        let row = |a: &Answer| Explanation { scale: a.scale, score: a.merit, ..text_of(RANDOM, 0, &a.text, &made) };
        let kept: Vec<Explanation> = answer.map(row).into_iter().collect();
        notes.put_explanations(LatentId(latent), RANDOM, &kept, &Curves::default())?;
        Ok((answer.map_or_else(|| "(nothing)".into(), |answer| answer.text.clone()), Value::Null))
    })?;
    printer.end(&format!(
        "{} random directions{}; {abstained} of {} would have been met by abstention",
        latents.len(),
        before(there),
        latents.len() - there
    ));
    let rate = exegete_base::stats::wilson(abstained, (latents.len() - there) as u64);
    printer.json(&json!({"random_directions": latents.len(), "abstention_rate": rate}));
    Ok(())
}

/// The model says what a direction means through an adapter: nothing is searched, and no text is better than another.
fn by_adapter(
    settings: &Explain,
    latents: &[u32],
    (opened, notes): (&Opened, &mut Notes),
    common: &Common,
    printer: &Printer,
) -> Result<()> {
    let Some(path) = &settings.adapter else { bail!("--adapter is missing") };
    let trained = Adapter::open(path)?;
    let file = path.file_name().unwrap_or_default().to_string_lossy();
    let of = json!({"file": file, "steps": trained.steps, "loss": trained.best_loss.map(|x| x.to_string()), "parameters": trained.n_parameters()});
    let template = adapter_template(&settings.self_explain, &trained).to_owned();
    let explainer = AdapterExplainer::new(&opened.model, &template, trained)?;
    let tokens = settings.self_explain.explanation_tokens;
    let made = json!({"adapter": of, "run_model": opened.model_path, "template": template, "tokens": tokens, "asked": settings.texts.max(1), "seed": common.seed});
    let (results, there) = each((settings, latents), notes, (adapter::NAME, &made), printer, |notes, latent| {
        let row = opened.dictionary.decoder_row(latent as usize);
        let texts = explainer.texts(row, settings.texts.max(1), tokens, common.seed)?;
        let kept = texts_of(adapter::NAME, &texts, &made);
        notes.put_explanations(LatentId(latent), adapter::NAME, &kept, &Curves::default())?;
        Ok((texts.join(" | "), json!({"latent": latent, "texts": texts})))
    })?;
    printer.end(&format!("{} latents{}", latents.len(), before(there)));
    printer.json(&Value::Array(results));
    Ok(())
}

/// Goes through latents, whatever the method: those that were dealt with are passed over, the others are asked about by `one`, which keeps what
/// is said and gives a line and a result to tell. The results, and how many were dealt with before.
fn each(
    (settings, latents): (&Explain, &[u32]),
    notes: &mut Notes,
    (method, asked): (&str, &Value),
    printer: &Printer,
    mut one: impl FnMut(&mut Notes, u32) -> Result<(String, Value)>,
) -> Result<(Vec<Value>, usize)> {
    printer.begin("explain", latents.len() as u64, "latents", 0);
    let (mut results, mut there) = (Vec::new(), 0);
    for (done, latent) in (1..).zip(latents) {
        printer.check()?;
        if is_there(notes, *latent, method, asked, settings.again)? {
            there += 1;
            printer.at(done, "");
            continue;
        }
        let (line, result) = one(notes, *latent)?;
        printer.at(done, "");
        printer.line(format!("{latent:>6}  {}", plain(&line)));
        results.push(result);
    }
    Ok((results, there))
}

/// A text that no scale and no score belongs to.
fn text_of(method: &str, rank: usize, text: &str, settings: &Value) -> Explanation {
    Explanation {
        method: method.into(),
        rank: rank as u32,
        text: text.into(),
        scale: f64::NAN,
        score: f64::NAN,
        abstained: false,
        settings: settings.clone(),
    }
}

fn texts_of(method: &str, texts: &[String], settings: &Value) -> Vec<Explanation> {
    texts.iter().enumerate().map(|(rank, text)| text_of(method, rank, text, settings)).collect()
}

/// What the answers of self-explanation depend on: settings, model, and a template of one's own to the letter.
pub(crate) fn asked_of(settings: &SelfExplainSettings, model: &str) -> Result<Value> {
    let mut asked = serde_json::to_value(settings)?;
    asked["run_model"] = model.into();
    if settings.template.ends_with(".toml") {
        asked["template_text"] = std::fs::read_to_string(&settings.template).unwrap_or_default().into();
    }
    Ok(asked)
}

/// Whether a method has dealt with a latent with the same settings: what was begun goes on, unless `--again` is given. Keys that only say
/// what came of it are not asked about.
fn is_there(notes: &Notes, latent: u32, method: &str, asked: &Value, again: bool) -> Result<bool> {
    let alike = |of: &Value| match asked.as_object() {
        Some(asked) => asked.iter().all(|(key, value)| of.get(key) == Some(value)),
        None => false,
    };
    Ok(!again && notes.explanations_of(LatentId(latent))?.iter().any(|e| e.method == method && alike(&e.settings)))
}

/// Says how many latents were dealt with before.
fn before(there: usize) -> String {
    if there > 0 { format!(", {there} of them before (--again asks them anew)") } else { String::new() }
}

/// The template that an adapter is asked with: the one it was trained with, unless another is named.
pub(crate) fn adapter_template<'a>(settings: &'a SelfExplainSettings, adapter: &'a Adapter) -> &'a str {
    match settings.template == SelfExplainSettings::default().template {
        true => adapter.template(),
        false => &settings.template,
    }
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
    let asked = json!({
        "judge": judge.name(), "run_model": opened.model_path, "seed": common.seed, "excerpt_tokens": settings.excerpts.excerpt_tokens,
        "asked": settings.texts.max(1), "most_shown": settings.shown, "prompt": explainers::version()?,
    });
    let mut without = 0;
    let (results, there) = each((settings, latents), notes, (explainer.name, &asked), printer, |notes, latent| {
        let row = rows.iter().find(|row| row.latent.0 == latent);
        let row = row.with_context(|| format!("the run knows nothing of latent {latent}"))?;
        let (mut firing, mut silent) = (Vec::new(), Vec::new());
        if let Some(source) = &source {
            firing = source.firing(latent, Use::Explain, settings.shown)?;
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
                return Ok((format!("({why})"), json!({"latent": latent, "texts": [], "why": why})));
            }
            Err(error) => return Err(error.into()),
        };
        let told = json!({"latent": latent, "texts": said.texts, "failed": said.failed});
        if said.texts.is_empty() {
            // What was said before stays: no answer is no reason to lose it.
            return Ok((format!("(none of {} answers made sense)", said.failed), told));
        }
        let mut made = asked.clone();
        made["shown"] = firing.len().into();
        made["silent"] = silent.len().into();
        made["failed"] = said.failed.into();
        made["amplified"] = json!(said.amplified);
        let kept = texts_of(explainer.name, &said.texts, &made);
        notes.put_explanations(LatentId(latent), explainer.name, &kept, &Curves::default())?;
        Ok((said.texts.join(" | "), told))
    })?;
    let nothing = if without > 0 { format!(", of {without} there was nothing to show") } else { String::new() };
    printer.end(&format!("{} latents{nothing}{}", latents.len(), before(there)));
    printer.json(&json!({"explained": results, "cost": judge.cost()}));
    Ok(())
}

/// Writes an explanation into the run's notes: what is said at every scale, and beside it what is said without a search.
pub(crate) fn keep(notes: &mut Notes, latent: LatentId, explained: &SelfExplanation, settings: &Value) -> Result<()> {
    let row = |rank: usize, text: &str, scale: f64, score: f64| Explanation {
        scale,
        score,
        abstained: explained.abstained,
        ..text_of(NAME, rank, text, settings)
    };
    let texts: Vec<Explanation> = match explained.abstained {
        true => vec![row(0, "", 0.0, explained.best_similarity)],
        false => explained.answers.iter().enumerate().map(|(i, a)| row(i, &a.text, a.scale, a.merit)).collect(),
    };
    let c = &explained.curves;
    let curves = [
        (SELF_SIMILARITY, &c.self_similarity),
        (ENTROPY, &c.entropy),
        (CROSS_ENTROPY, &c.cross_entropy),
        ("cross-entropy to random directions", &c.cross_entropy_random),
    ];
    let mut curves: BTreeMap<String, Vec<f64>> =
        curves.into_iter().map(|(name, values)| (name.to_owned(), values.clone())).collect();
    for LayerCurve { layer, self_similarity } in &c.by_layer {
        // Five digits are as many as a 32-bit cosine has, and a third of the room.
        let rounded = self_similarity.iter().map(|x| (x * 1e5).round() / 1e5).collect();
        curves.insert(format!("{BY_LAYER}{layer:03}"), rounded);
    }
    let said = explained.said.iter().map(|rank| rank.map_or(f64::NAN, |rank| rank as f64));
    curves.insert(SAID.into(), said.collect());
    notes.put_explanations(latent, NAME, &texts, &Curves { scales: c.scales.clone(), curves })?;
    let at_norm = text_of(AT_NORM, 0, &explained.at_norm, settings);
    let at_norm: Vec<Explanation> = (!at_norm.text.is_empty()).then_some(at_norm).into_iter().collect();
    notes.put_explanations(latent, AT_NORM, &at_norm, &Curves::default())?;
    Ok(())
}
