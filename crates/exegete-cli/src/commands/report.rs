//! `exegete report`: how well the latents of a run are explained, by scorer, and how far people agree with each scorer.

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use exegete_base::ranks::{bootstrap, spearman};
use exegete_base::stats::{Estimate, mean_of};
use exegete_store::{Notes, Rating, Run, Score, harvested};
use serde_json::{Value, json};

use crate::args_show::Report;
use crate::printer::Printer;

use super::explain::NOTES;

/// Seed of the samples that intervals are of.
const SEED: u64 = 0;

pub(crate) fn run(settings: &Report, printer: &Printer) -> Result<()> {
    let run = Run::open(&settings.run)?;
    let dictionary = harvested::dictionary(&run, settings.dictionary.as_deref())?;
    let path = run.path(&dictionary.part(NOTES));
    if !path.exists() {
        bail!("{} holds no explanations yet: `exegete explain {}` makes them", path.display(), settings.run.display());
    }
    let notes = Notes::open_read_only(&path)?;
    let (scores, ratings) = (notes.scores()?, notes.ratings()?);
    let by_scorer = by_scorer(&scores);
    let mut judged = Vec::new();
    for ((scorer, against, judge), of) in &by_scorer {
        judged.push(told(scorer, against, judge, of, printer));
    }
    if by_scorer.is_empty() {
        printer.line("no text of this dictionary is scored yet");
    }
    let agreement = agreement(&notes, &ratings, &scores)?;
    let told_ratings = tell_agreement(&ratings, &agreement, printer);
    printer.json(&json!({ "scores": judged, "ratings": ratings.len(), "agreement": told_ratings }));
    Ok(())
}

type Key<'a> = (&'a str, &'a str, &'a str);

fn by_scorer(scores: &[Score]) -> BTreeMap<Key<'_>, Vec<&Score>> {
    let mut by: BTreeMap<Key, Vec<&Score>> = BTreeMap::new();
    for score in scores {
        by.entry((&score.scorer, &score.against, &score.judge)).or_default().push(score);
    }
    by
}

/// The distribution of a scorer's values over latents, the best text of each counting.
fn told(scorer: &str, against: &str, judge: &str, of: &[&Score], printer: &Printer) -> Value {
    let mut best: BTreeMap<u32, f64> = BTreeMap::new();
    for score in of.iter().filter(|score| score.value.value.is_finite()) {
        let value = best.entry(score.latent).or_insert(f64::NEG_INFINITY);
        *value = value.max(score.value.value);
    }
    let mut values: Vec<f64> = best.values().copied().collect();
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| values.get(((values.len().max(1) - 1) as f64 * q).round() as usize).copied();
    let (mean, failed) = (mean_of(&values), of.iter().map(|score| score.failed).sum::<u64>());
    let chance = of.first().map_or(f64::NAN, |score| score.chance);
    let quartiles = [0.25, 0.5, 0.75].map(|q| quantile(q).unwrap_or(f64::NAN));
    printer.line(format!("{scorer} against {against}, judged by {judge}"));
    printer.line(format!(
        "  best text of {} latents: mean {}, quartiles {:.3} {:.3} {:.3}, chance {chance:.2}; {} texts, {failed} examples not judged",
        best.len(),
        shown(&mean),
        quartiles[0],
        quartiles[1],
        quartiles[2],
        of.len(),
    ));
    json!({
        "scorer": scorer, "against": against, "judge": judge, "latents": best.len(), "texts": of.len(), "mean": mean,
        "quartiles": quartiles, "chance": chance, "failed": failed,
    })
}

fn shown(of: &Estimate) -> String {
    format!("{:.3} ({:.3} to {:.3}, n = {})", of.value, of.low, of.high, of.n)
}

/// Of each scorer the grades of people beside its values: of the methods' own scores, and of every stored one.
fn agreement(notes: &Notes, ratings: &[Rating], scores: &[Score]) -> Result<BTreeMap<String, Vec<(f64, f64)>>> {
    let mut pairs: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    // 0 stands for "cannot tell".
    for rating in ratings.iter().filter(|rating| rating.grade > 0) {
        let grade = f64::from(rating.grade);
        let own = notes.explanations_of(exegete_base::LatentId(rating.latent))?;
        let own = own.iter().find(|e| e.method == rating.method && e.text == rating.text && e.score.is_finite());
        if let Some(own) = own {
            pairs.entry(format!("{}'s own score", rating.method)).or_default().push((grade, own.score));
        }
        let of = scores.iter().filter(|s| s.latent == rating.latent && s.text == rating.text);
        for score in of.filter(|s| s.value.value.is_finite()) {
            let name = format!("{} against {}, {}", score.scorer, score.against, score.judge);
            pairs.entry(name).or_default().push((grade, score.value.value));
        }
    }
    Ok(pairs)
}

fn tell_agreement(
    ratings: &[Rating],
    agreement: &BTreeMap<String, Vec<(f64, f64)>>,
    printer: &Printer,
) -> BTreeMap<String, Estimate> {
    match ratings.len() {
        0 => printer.line("nobody has rated a text yet: the page /rate of `exegete serve` asks"),
        n => printer.line(format!("{n} ratings; rank correlation (Spearman) of grades and scores:")),
    }
    let estimates = agreement.iter().map(|(name, pairs)| (name.clone(), bootstrap(pairs, SEED, spearman)));
    let estimates: BTreeMap<String, Estimate> = estimates.collect();
    for (name, estimate) in &estimates {
        printer.line(format!("  {name}: {}", shown(estimate)));
    }
    estimates
}
