//! `exegete report`: how well the latents of a run are explained, by scorer, beside controls, and how far people agree with each scorer.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Result, bail};
use exegete_base::LatentId;
use exegete_base::ranks::{bootstrap, spearman};
use exegete_base::stats::{Estimate, mean_of};
use exegete_store::harvested::{self, LATENTS};
use exegete_store::{CONTROLS, Notes, RANDOM, Rating, Run, Score, control_of, is_control, read_latents};
use serde_json::{Value, json};

use super::explain::NOTES;
use super::report_scales;
use crate::args_show::Report;
use crate::printer::Printer;

/// Seed of the samples that intervals are of.
const SEED: u64 = 0;

pub(crate) fn run(settings: &Report, printer: &Printer) -> Result<()> {
    let explained = Explained::open(&settings.run, settings.dictionary.as_deref())?;
    let untrained = settings.untrained.as_deref().map(|run| Explained::open(run, None)).transpose()?;
    let mut told = Vec::new();
    for key in explained.keys() {
        let other = untrained.as_ref().map(|other| other.first_values(key));
        told.push(tell(&explained, key, other.as_deref(), printer));
    }
    if told.is_empty() {
        printer.line("no text of this dictionary is scored yet");
    }
    let judges = tell_judges(&explained.scores, printer);
    let ratings = explained.notes.ratings()?;
    let agreement = agreement(&explained.notes, &ratings, &explained.scores)?;
    let told_ratings = tell_agreement(&ratings, &agreement, printer);
    let scales = match &settings.scales {
        Some(scorer) => Some(report_scales::tell(&explained.notes, scorer, printer)?),
        None => None,
    };
    printer.json(&json!({
        "scores": told, "judges": judges, "ratings": ratings.len(), "agreement": told_ratings, "scales": scales,
    }));
    Ok(())
}

/// A scorer, what it was told apart from, and who judged.
type Key<'a> = (&'a str, &'a str, &'a str);

/// A dictionary with what is said of it.
struct Explained {
    notes: Notes,
    scores: Vec<Score>,
    /// The first text of each latent, which no score has chosen.
    first: BTreeMap<LatentId, String>,
    /// The first text of each method, by method and latent.
    by_method: BTreeMap<String, BTreeMap<u32, String>>,
    /// How often each latent fires.
    rates: BTreeMap<u32, f64>,
}

impl Explained {
    fn open(path: &Path, dictionary: Option<&str>) -> Result<Self> {
        let run = Run::open(path)?;
        let dictionary = harvested::dictionary(&run, dictionary)?;
        let notes = run.path(&dictionary.part(NOTES));
        if !notes.exists() {
            bail!("{} holds no explanations yet: `exegete explain {}` makes them", notes.display(), path.display());
        }
        let notes = Notes::open_read_only(&notes)?;
        let rows = read_latents(&run.path(&dictionary.part(LATENTS)))?;
        let rates = rows.iter().map(|row| (row.latent.0, row.firing_rate.value)).collect();
        let first: BTreeMap<LatentId, String> = notes.first_texts()?.into_iter().collect();
        let mut by_method: BTreeMap<String, BTreeMap<u32, String>> = BTreeMap::new();
        for latent in first.keys() {
            for e in notes.explanations_of(*latent)?.into_iter().filter(|e| e.rank == 0 && !e.abstained) {
                by_method.entry(e.method).or_default().insert(latent.0, e.text);
            }
        }
        by_method.remove(RANDOM);
        Ok(Self { scores: notes.scores()?, first, by_method, notes, rates })
    }

    /// What there are scores of, controls aside.
    fn keys(&self) -> Vec<Key<'_>> {
        let of = self.scores.iter().filter(|s| !is_control(&s.against));
        let mut keys: Vec<Key> = of.map(|s| (s.scorer.as_str(), s.against.as_str(), s.judge.as_str())).collect();
        keys.dedup();
        keys
    }

    fn of<'a>(&'a self, (scorer, against, judge): Key<'a>) -> impl Iterator<Item = &'a Score> {
        self.scores.iter().filter(move |s| s.scorer == scorer && s.against == against && s.judge == judge)
    }

    /// The scores of first texts, by latent; of latents that have no text of their own, as the intruder's, any.
    fn first(&self, key: Key) -> BTreeMap<u32, f64> {
        let is_first = |s: &&Score| s.text.is_empty() || self.first.get(&LatentId(s.latent)) == Some(&s.text);
        let finite = self.of(key).filter(is_first).filter(|s| s.value.value.is_finite());
        finite.map(|s| (s.latent, s.value.value)).collect()
    }

    fn first_values(&self, key: Key) -> Vec<f64> {
        self.first(key).into_values().collect()
    }

    /// The scores of a control, by latent.
    fn control(&self, (scorer, against, judge): Key, name: &str) -> BTreeMap<u32, &Score> {
        let finite = self.scores.iter().filter(|s| s.value.value.is_finite());
        // Told apart from the same excerpts, or the difference would be theirs.
        let is_its = |s: &&Score| control_of(&s.against).is_some_and(|(of, from)| of == name && from == against);
        let of = finite.filter(|s| s.scorer == scorer && s.judge == judge).filter(is_its);
        of.map(|s| (s.latent, s)).collect()
    }
}

/// What a scorer says of a dictionary: the first text of each latent, the best, both by how often latents fire, and controls.
fn tell(explained: &Explained, key: Key, untrained: Option<&[f64]>, printer: &Printer) -> Value {
    let (scorer, against, judge) = key;
    let all: Vec<&Score> = explained.of(key).collect();
    let mut best: BTreeMap<u32, f64> = BTreeMap::new();
    for score in all.iter().filter(|score| score.value.value.is_finite()) {
        let value = best.entry(score.latent).or_insert(f64::NEG_INFINITY);
        *value = value.max(score.value.value);
    }
    let first = explained.first(key);
    let failed = all.iter().map(|score| score.failed).sum::<u64>();
    let unjudged = all.iter().filter(|score| !score.value.value.is_finite()).count();
    let chance = all.iter().map(|s| s.chance).filter(|c| c.is_finite()).collect::<Vec<_>>();
    let chance = mean_of(&chance).value;
    printer.line(format!("{scorer} against {against}, judged by {judge}"));
    let (first_told, best_told) = (distribution(&first), distribution(&best));
    line("first text", &first_told, printer);
    if best.len() > 1 || best != first {
        line("best text (chosen by this score, so too high)", &best_told, printer);
    }
    let methods = by_method(explained, key);
    if methods.len() > 1 {
        let told = methods.iter().map(|(method, e)| format!("{method} {:.3} (n = {})", e.value, e.n));
        printer.line(format!("  first text of each method: {}", told.collect::<Vec<_>>().join(", ")));
    }
    let more = if unjudged > 0 { format!(", {unjudged} with too few examples for a score") } else { String::new() };
    printer.line(format!("  chance {chance:.2}; {} scores{more}; {failed} examples not judged", all.len()));
    if let Some(places) = all.iter().rev().find_map(|s| s.settings["yes_by_place"].as_array()) {
        let told: Vec<String> = places.iter().filter_map(Value::as_f64).map(|p| format!("{p:.2}")).collect();
        printer
            .line(format!("  share of yes by an example's place in its prompt: {} (places are drawn)", told.join(" ")));
    }
    let density = by_density(&first, &explained.rates);
    if density.len() > 1 {
        let told = density.iter().map(|(power, e)| format!("1e{power}: {:.3} (n = {})", e.value, e.n));
        printer.line(format!("  first text by firing rate  {}", told.collect::<Vec<_>>().join("  ")));
    }
    let controls: Vec<Value> = CONTROLS
        .iter()
        .filter_map(|name| {
            let of = explained.control(key, name);
            (!of.is_empty()).then(|| tell_control(name, &of, &first, printer))
        })
        .collect();
    if let Some(other) = untrained {
        let of: Vec<f64> = first.values().copied().collect();
        tell_untrained(&of, other, printer);
    }
    json!({
        "scorer": scorer, "against": against, "judge": judge, "texts": all.len(), "first": first_told, "best": best_told,
        "chance": chance, "failed": failed, "too_few": unjudged, "controls": controls,
        "by_method": methods.iter().map(|(method, e)| json!({"method": method, "mean": e})).collect::<Vec<_>>(),
        "by_firing_rate": density.iter().map(|(power, e)| json!({"from": format!("1e{power}"), "mean": e})).collect::<Vec<_>>(),
        "untrained": untrained.map(mean_over),
    })
}

/// Values over latents: their mean with its interval, and their quartiles.
fn distribution(of: &BTreeMap<u32, f64>) -> Value {
    let mut values: Vec<f64> = of.values().copied().collect();
    values.sort_by(f64::total_cmp);
    let quantile = |q: f64| values.get(((values.len().max(1) - 1) as f64 * q).round() as usize).copied();
    let quartiles = [0.25, 0.5, 0.75].map(quantile);
    json!({"mean": mean_over(&values), "quartiles": quartiles})
}

/// The mean, with a bootstrap interval over latents: scores are far from normal.
fn mean_over(values: &[f64]) -> Estimate {
    bootstrap(values, SEED, |values| mean_of(values).value)
}

fn line(what: &str, told: &Value, printer: &Printer) {
    let number = |v: &Value| v.as_f64().map_or("-".into(), |v| format!("{v:.3}"));
    let quartiles: Vec<String> = told["quartiles"].as_array().into_iter().flatten().map(number).collect();
    let mean = &told["mean"];
    let interval = match mean["low"].is_number() {
        true => format!(" ({} to {})", number(&mean["low"]), number(&mean["high"])),
        false => String::new(),
    };
    printer.line(format!(
        "  {what}: mean {}{interval} over {} latents, quartiles {}",
        number(&mean["value"]),
        mean["n"],
        quartiles.join(" ")
    ));
}

/// Mean scores of each method's first texts.
fn by_method(explained: &Explained, key: Key) -> Vec<(String, Estimate)> {
    let of = |texts: &BTreeMap<u32, String>| -> Vec<f64> {
        let scores = explained.of(key).filter(|s| s.value.value.is_finite());
        scores.filter(|s| texts.get(&s.latent) == Some(&s.text)).map(|s| s.value.value).collect()
    };
    let all = explained.by_method.iter().map(|(method, texts)| (method.clone(), of(texts)));
    all.filter(|(_, values)| !values.is_empty()).map(|(method, values)| (method, mean_over(&values))).collect()
}

/// Mean scores by the power of ten of the firing rate.
fn by_density(first: &BTreeMap<u32, f64>, rates: &BTreeMap<u32, f64>) -> Vec<(i32, Estimate)> {
    let mut by: BTreeMap<i32, Vec<f64>> = BTreeMap::new();
    for (latent, value) in first {
        if let Some(rate) = rates.get(latent).filter(|rate| **rate > 0.0) {
            by.entry(rate.log10().floor() as i32).or_default().push(*value);
        }
    }
    by.into_iter().map(|(power, values)| (power, mean_over(&values))).collect()
}

/// A control, and whether the scorer tells a latent's own texts from it with this judge.
fn tell_control(name: &str, of: &BTreeMap<u32, &Score>, first: &BTreeMap<u32, f64>, printer: &Printer) -> Value {
    let values: Vec<f64> = of.values().map(|s| s.value.value).collect();
    let at_chance = of.values().filter(|s| s.value.low <= s.chance && s.chance <= s.value.high).count();
    let less: Vec<f64> = of.iter().filter_map(|(latent, s)| Some(first.get(latent)? - s.value.value)).collect();
    let (mean, less) = (mean_over(&values), mean_over(&less));
    let verdict = match less {
        less if less.n < 2 => "too few latents to compare",
        less if less.low > 0.0 => "this judge tells a latent's own texts from it",
        _ => "this judge does not tell a latent's own texts from it: its scores say nothing",
    };
    printer.line(format!(
        "  control {name}: mean {}, at chance within its interval for {at_chance} of {}; first text less control {}: {verdict}",
        shown(&mean),
        of.len(),
        shown(&less)
    ));
    json!({"name": name, "mean": mean, "at_chance": at_chance, "latents": of.len(), "first_less_control": less})
}

/// The same model untrained: what is as good there, training did not put in.
fn tell_untrained(of: &[f64], other: &[f64], printer: &Printer) {
    if other.is_empty() {
        return printer.line("  control untrained: no such scores in that run");
    }
    let tagged: Vec<(bool, f64)> = of.iter().map(|v| (true, *v)).chain(other.iter().map(|v| (false, *v))).collect();
    let less = bootstrap(&tagged, SEED, |drawn| {
        let mean = |which: bool| mean_of(&drawn.iter().filter(|d| d.0 == which).map(|d| d.1).collect::<Vec<_>>()).value;
        mean(true) - mean(false)
    });
    printer.line(format!(
        "  control untrained: mean {}; first text less untrained {}",
        shown(&mean_over(other)),
        shown(&less)
    ));
}

pub(super) fn shown(of: &Estimate) -> String {
    match of.low.is_finite() && of.n > 1 {
        true => format!("{:.3} ({:.3} to {:.3}, n = {})", of.value, of.low, of.high, of.n),
        false if of.value.is_finite() => format!("{:.3} (n = {})", of.value, of.n),
        false => format!("- (n = {})", of.n),
    }
}

/// How far judges of one scorer agree over the same texts: other models, or other arrangements of the same prompts.
fn tell_judges(scores: &[Score], printer: &Printer) -> Vec<Value> {
    // By scorer and comparison, then by judge: values by latent and text.
    type ByJudge<'a> = BTreeMap<&'a str, BTreeMap<(u32, &'a str), f64>>;
    let mut by: BTreeMap<(&str, &str), ByJudge> = BTreeMap::new();
    for s in scores.iter().filter(|s| !is_control(&s.against) && s.value.value.is_finite()) {
        let judges = by.entry((&s.scorer, &s.against)).or_default();
        judges.entry(&s.judge).or_default().insert((s.latent, &s.text), s.value.value);
    }
    let mut told = Vec::new();
    for ((scorer, against), judges) in by {
        let all: Vec<_> = judges.into_iter().collect();
        for (i, (a, of_a)) in all.iter().enumerate() {
            for (b, of_b) in &all[i + 1..] {
                let pairs: Vec<(f64, f64)> =
                    of_a.iter().filter_map(|(key, value)| Some((*value, *of_b.get(key)?))).collect();
                if pairs.len() > 2 {
                    let rho = bootstrap(&pairs, SEED, spearman);
                    let gap = mean_over(&pairs.iter().map(|(a, b)| a - b).collect::<Vec<_>>());
                    printer.line(format!("{scorer} against {against}: {a} and {b} agree"));
                    printer.line(format!("  rank correlation {}, difference {}", shown(&rho), shown(&gap)));
                    told.push(json!({"scorer": scorer, "against": against, "judges": [a, b], "spearman": rho, "difference": gap}));
                }
            }
        }
    }
    told
}

/// Of each scorer the grades of people beside its values: of the methods' own scores, and of every stored one.
fn agreement(notes: &Notes, ratings: &[Rating], scores: &[Score]) -> Result<BTreeMap<String, Vec<(f64, f64)>>> {
    let mut pairs: BTreeMap<String, Vec<(f64, f64)>> = BTreeMap::new();
    // 0 stands for "cannot tell".
    for rating in ratings.iter().filter(|rating| rating.grade > 0) {
        let grade = f64::from(rating.grade);
        let own = notes.explanations_of(LatentId(rating.latent))?;
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
