//! `exegete score`: what is said of latents is scored, every text of a latent at once.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use exegete_base::LatentId;
use exegete_base::stats::Estimate;
use exegete_explain::ExplainError;
use exegete_explain::completions::Completions;
use exegete_explain::examples::{Against, Use};
use exegete_explain::scorers::{self, ITSELF, Outcome, SCORERS, Scorer, Task};
use exegete_harvest::Progress;
use exegete_methods::adapter::{Adapter, AdapterExplainer};
use exegete_store::{Notes, RANDOM, RANDOM_DIRECTION, SHUFFLED, Score, control_of, is_control};
use exegete_web::plain;
use serde_json::{Value, json};

use super::explain::NOTES;
use super::numbers;
use crate::args::Common;
use crate::args_explain::Score as Args;
use crate::interrupt;
use crate::judged::{self, Opened, Texts};
use crate::printer::Printer;

pub(crate) fn run(settings: &Args, common: &Common, printer: &Printer) -> Result<()> {
    interrupt::listen();
    let is_server = settings.judge.judge.as_deref().is_some_and(judged::is_address);
    if settings.dry_run && !is_server {
        bail!("--dry-run foretells what a server would be asked; a local judge costs time alone");
    }
    let wanted: Vec<&Scorer> = settings.scorer.iter().map(|name| scorers::named(name)).collect::<Result<_, _>>()?;
    let opened = Opened::new(&settings.of, common, printer)?;
    let other = judged::other_model(&settings.judge, &opened, common, printer)?;
    let judge = judged::judge(&settings.judge, &opened, other.as_ref(), settings.dry_run)?;
    let path = opened.run.path(&opened.of.part(NOTES));
    if !path.exists() {
        bail!("nothing is said of this dictionary's latents yet: `exegete explain` comes first");
    }
    let mut notes = Notes::open(&path)?;
    let said = said(&notes, settings)?;
    let latents: Vec<u32> = said.iter().map(|(latent, _)| *latent).collect();
    opened.check(&latents)?;
    let (subject, rows) = (opened.subject()?, opened.rows()?);
    printer.begin("pool", 1, "pools", 0);
    let texts = Texts::new(&opened, &subject, &settings.excerpts, common.seed)?;
    printer.end(&format!("codes of {} windows", texts.pool.windows.len()));
    let source = texts.source(&subject, &settings.excerpts, common.seed);
    let fire = rows.iter().filter(|row| row.stats.count > 0).map(|row| row.latent.0);
    let completions = Completions::new(&subject, fire, common.seed);
    let mut against: Vec<Against> = settings.against.iter().map(|arg| judged::against(*arg)).collect();
    against.sort_unstable();
    against.dedup();

    let through = match &settings.adapter {
        Some(path) => {
            let trained = Adapter::open(path)?;
            let template = trained.template().to_owned();
            Some(AdapterExplainer::new(&opened.model, &template, trained)?)
        }
        None => None,
    };
    let stretch = scorers::generated_tokens()?;
    printer.begin("score", said.len() as u64, "latents", 0);
    let (mut told, mut few, mut unable) = (Vec::new(), 0, Vec::new());
    for (i, (latent, all)) in said.iter().enumerate() {
        printer.check()?;
        let Some(row) = rows.iter().find(|row| row.latent.0 == *latent) else { continue };
        let firing = source.firing(*latent, Use::Score, settings.firing)?;
        let silent: Vec<_> = against
            .iter()
            .map(|sort| (*sort, source.silent(row, &firing, *sort, Use::Score, settings.silent)))
            .collect();
        // What is said of the next latent that has another text is a control, and so is what is said of a random direction.
        let others = said.iter().cycle().skip(i + 1).take(said.len().saturating_sub(1));
        let shuffled = others.flat_map(|(_, texts)| texts.first()).find(|text| !all.contains(text)).cloned();
        let random = notes.explanations_of(LatentId(*latent))?.into_iter().find(|e| e.method == RANDOM && !e.abstained);
        let random = random.map(|e| e.text).filter(|text| !all.contains(text) && Some(text) != shuffled.as_ref());
        let controls: Vec<(&'static str, String)> = shuffled
            .map(|text| (SHUFFLED, text))
            .into_iter()
            .chain(random.map(|text| (RANDOM_DIRECTION, text)))
            .collect();
        let task = Task {
            latent: *latent,
            texts: all,
            controls: &controls,
            firing: &firing,
            silent: &silent,
            base_rate: texts.pool.base_rate(*latent, stretch),
            subject: &subject,
            completions: &completions,
            adapter: through.as_ref(),
            judge: &*judge,
            seed: common.seed,
        };
        for scorer in &wanted {
            let name = format!("{}, prompt {}", judge.name(), scorer.version);
            // The same sizes and draws: others would be other scores.
            let made = json!({
                "firing": firing.len(), "silent": silent.iter().map(|(sort, all)| (sort.name(), all.len())).collect::<BTreeMap<_, _>>(),
                "excerpt_tokens": settings.excerpts.excerpt_tokens, "seed": common.seed,
            });
            if !settings.again
                && !settings.dry_run
                && is_scored(&notes, (*latent, all, &controls), scorer, (&name, &made))?
            {
                continue;
            }
            printer.check()?;
            let before = judge.cost();
            let places_before = judge.by_place();
            let told_before = unable.iter().find(|(name, _)| *name == scorer.name).map(|(_, why): &(_, String)| why);
            let outcomes =
                match told_before.map_or_else(|| (scorer.score)(&task), |why| Ok(no_score(&task, scorer, why))) {
                    Ok(outcomes) => outcomes,
                    // What one scorer cannot do is told and kept with the result, and the others go on.
                    Err(error) => {
                        let Some(why) = hindrance(&error) else { return Err(error.into()) };
                        printer.note(&format!("{} of latent {latent}: no score: {why}", scorer.name));
                        if matches!(error, ExplainError::Unable { .. }) {
                            unable.push((scorer.name, why.clone()));
                        }
                        no_score(&task, scorer, &why)
                    }
                };
            if settings.dry_run {
                continue;
            }
            let mut told_of = made.clone();
            told_of["texts"] = all.len().into();
            // Of this scorer's prompts alone.
            let before_it = |i: usize| places_before.get(i).copied().unwrap_or_default();
            let by_place: Vec<(f64, u64)> = judge
                .by_place()
                .into_iter()
                .enumerate()
                .map(|(i, (sum, n))| (sum - before_it(i).0, n - before_it(i).1))
                .filter(|(_, n)| *n > 0)
                .collect();
            if !by_place.is_empty() {
                told_of["yes_by_place"] = json!(by_place.iter().map(|(sum, n)| sum / *n as f64).collect::<Vec<_>>());
            }
            told_of["cost"] = json!(judge.cost().since(before));
            let scores: Vec<Score> = outcomes.iter().map(|o| stored(&task, scorer, (&name, &told_of), o)).collect();
            few += outcomes.iter().filter(|o| !o.value.value.is_finite()).count();
            notes.put_scores(&scores)?;
            told.extend(scores);
        }
        printer.at(i as u64 + 1, &rate(&*judge));
    }
    printer.end(&format!("{} scores of {} latents, {}", told.len(), said.len(), rate(&*judge)));
    if settings.dry_run {
        let cost = judge.cost();
        printer.line(format!(
            "{} requests, {} tokens read and at most {} written, {:.4} of money; {} answers are kept from before. Nothing was sent.",
            cost.requests, cost.computed, cost.written, cost.money, cost.remembered
        ));
        printer.json(&json!({ "cost": cost }));
        return Ok(());
    }
    tell(&told, few, printer);
    printer.json(&json!({ "scores": told, "cost": judge.cost() }));
    Ok(())
}

/// Why a scorer has no score of a latent, where the work can go on: not after a refusal, a budget or a full disk.
fn hindrance(error: &ExplainError) -> Option<String> {
    match error {
        ExplainError::Request(_) | ExplainError::Unable { .. } | ExplainError::Model(_) | ExplainError::Method(_) => {
            Some(error.to_string())
        }
        _ => None,
    }
}

/// Scores that are no numbers and say why. They count as failed, so that the same command tries again.
fn no_score(task: &Task, scorer: &Scorer, why: &str) -> Vec<Outcome> {
    let texts = if scorer.of_latent { vec![None] } else { (0..task.texts.len()).map(Some).collect() };
    let none = |text: Option<usize>| Outcome {
        text,
        against: ITSELF.to_owned(),
        value: Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN, n: 0 },
        failed: 1,
        chance: f64::NAN,
        measures: json!({ "why": why }),
    };
    texts.into_iter().map(none).collect()
}

/// The different texts of each latent, the best of each method first.
fn said(notes: &Notes, settings: &Args) -> Result<Vec<(u32, Vec<String>)>> {
    let latents: Vec<u32> = match &settings.latents {
        Some(listed) => numbers::parse(listed)?,
        None => notes.first_texts()?.keys().map(|latent| latent.0).collect(),
    };
    let mut said = Vec::new();
    for latent in latents {
        let mut all: Vec<(u32, String)> = Vec::new();
        for explanation in notes.explanations_of(LatentId(latent))? {
            let text = explanation.text.trim();
            if explanation.method != RANDOM
                && !explanation.abstained
                && !text.is_empty()
                && all.iter().all(|(_, other)| other != text)
            {
                all.push((explanation.rank, text.to_owned()));
            }
        }
        all.sort_by_key(|(rank, _)| *rank);
        all.truncate(settings.most_texts);
        if !all.is_empty() {
            said.push((latent, all.into_iter().map(|(_, text)| text).collect()));
        }
    }
    if said.is_empty() {
        bail!("nothing is said of these latents: `exegete explain` comes first, and a method may abstain");
    }
    Ok(said)
}

/// Whether every text is scored by a scorer with a judge, and nothing failed.
fn is_scored(
    notes: &Notes,
    (latent, texts, controls): (u32, &[String], &[(&'static str, String)]),
    scorer: &Scorer,
    (judge, made): (&str, &Value),
) -> Result<bool> {
    let scores = notes.scores_of(LatentId(latent))?;
    let alike =
        |of: &Value| made.as_object().is_some_and(|made| made.iter().all(|(key, value)| of.get(key) == Some(value)));
    let is = |score: &&Score| {
        score.scorer == scorer.name && score.judge == judge && score.failed == 0 && alike(&score.settings)
    };
    let mine: Vec<&Score> = scores.iter().filter(is).collect();
    Ok(match scorer.of_latent {
        true => !mine.is_empty(),
        // A control that came later is scored with the texts that it is a control of.
        false => {
            let has = |name: Option<&str>, text: &String| {
                mine.iter().any(|s| s.text == *text && control_of(&s.against).map(|(name, _)| name) == name)
            };
            texts.iter().all(|text| has(None, text)) && controls.iter().all(|(name, text)| has(Some(name), text))
        }
    })
}

fn stored(task: &Task, scorer: &Scorer, (judge, made): (&str, &Value), outcome: &Outcome) -> Score {
    let control = control_of(&outcome.against)
        .and_then(|(wanted, _)| task.controls.iter().find(|(name, _)| *name == wanted))
        .map_or("", |(_, text)| text.as_str());
    let text = match outcome.text {
        Some(i) => task.texts[i].as_str(),
        None if scorer.of_latent => "",
        None => control,
    };
    Score {
        latent: task.latent,
        text: text.to_owned(),
        scorer: scorer.name.to_owned(),
        against: outcome.against.clone(),
        judge: judge.to_owned(),
        value: outcome.value,
        failed: outcome.failed,
        chance: outcome.chance,
        measures: outcome.measures.clone(),
        settings: made.clone(),
    }
}

fn rate(judge: &dyn exegete_explain::Judge) -> String {
    let cost = judge.cost();
    let mut told = format!("{} tokens computed", cost.computed + cost.written);
    if cost.requests > 0 {
        told += &format!(", {} requests", cost.requests);
    }
    if cost.money > 0.0 {
        told += &format!(", {:.4} spent", cost.money);
    }
    told
}

/// Prints the best text of each latent by each scorer.
fn tell(scores: &[Score], few: usize, printer: &Printer) {
    for scorer in SCORERS {
        let mut best: BTreeMap<(&str, u32), &Score> = BTreeMap::new();
        let own = scores.iter().filter(|s| !is_control(&s.against));
        for score in own.filter(|s| s.scorer == scorer.name && s.value.value.is_finite()) {
            let entry = best.entry((&score.against, score.latent)).or_insert(score);
            if score.value.value > entry.value.value {
                *entry = score;
            }
        }
        for ((against, latent), score) in best {
            let e = score.value;
            printer.line(format!(
                "{:>6}  {} against {against}: {:.3} [{:.3}, {:.3}], n = {}, chance {:.2}  {}",
                latent,
                scorer.name,
                e.value,
                e.low,
                e.high,
                e.n,
                score.chance,
                plain(&score.text)
            ));
        }
    }
    if few > 0 {
        printer.line(format!("{few} scores have too few examples; the reason stands with each"));
    }
}
