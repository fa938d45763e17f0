//! A study of the choice of scales: `exegete-bench scales DIR`.
//!
//! Of every word of `refs/words.tsv` the direction (residual of ` The WORD` after layer 8, less the mean over the words) is read by
//! SmolLM2-135M at 64 scales to 400: the curves, and what the model says at each. These go into `DIR/words.jsonl`, once; a study that
//! was stopped goes on. Then rules are set against each other on the stored curves alone. The label of a scale is whether its text
//! says the word or an accepted answer, so nothing depends on taste. Words are split in two by their hash: settings are chosen on one
//! half, what is told is of the other, with intervals by drawing words again, differences over the same words.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use exegete_base::ranks::bootstrap;
use exegete_base::sampling::pair_hash;
use exegete_base::settings::{ScaleRule, SelfExplainSettings};
use exegete_base::stats::Estimate;
use exegete_base::{Site, SiteKind};
use exegete_methods::direction::at_last_token;
use exegete_methods::self_explain::choice::{Choice, different, rank};
use exegete_methods::self_explain::{Curves, SelfExplainer};
use exegete_model::Model;
use serde::{Deserialize, Serialize};

use crate::progress;
use crate::run::model;

/// Scales of a word.
const SCALES: usize = 64;
const MAX_SCALE: f64 = 400.0;
/// The layer after which words are read.
const LAYER: usize = 8;
/// Texts that a rule may give.
const TEXTS: usize = 3;
/// Seed of the split and of the intervals.
const SEED: u64 = 0;
/// Weights that are tried where a rule has one.
const ALPHAS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// A word as it was measured.
#[derive(Serialize, Deserialize)]
struct Measured {
    word: String,
    accepted: Vec<String>,
    curves: Curves,
    /// What the model says at each scale.
    texts: Vec<String>,
}

/// Measures what is not there yet, and tells how the rules compare.
pub(crate) fn study(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join("words.jsonl");
    let mut all: BTreeMap<String, Measured> = BTreeMap::new();
    if path.exists() {
        for line in BufReader::new(File::open(&path)?).lines() {
            // A line that a stop has cut is measured again.
            if let Ok(measured) = serde_json::from_str::<Measured>(&line?) {
                all.insert(measured.word.clone(), measured);
            }
        }
    }
    measure(&path, &mut all)?;
    let all: Vec<Measured> = all.into_values().collect();
    let is_tuned = |m: &&Measured| hash(&m.word).is_multiple_of(2);
    let (tuning, test): (Vec<&Measured>, Vec<&Measured>) = all.iter().partition(is_tuned);
    say(format_args!("{} words, settings chosen on {}, told of the other {}", all.len(), tuning.len(), test.len()));
    tell(&tuning, &test);
    Ok(())
}

fn hash(word: &str) -> u64 {
    word.bytes().fold(SEED, |hash, byte| pair_hash(hash, byte.into(), 1))
}

/// Words with their accepted answers.
fn words() -> Result<Vec<(String, Vec<String>)>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../refs/words.tsv");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let line = |line: &str| {
        let (word, rest) = line.split_once('\t').unwrap_or((line, ""));
        let accepted = std::iter::once(word).chain(rest.split(',')).filter(|w| !w.is_empty()).map(str::to_lowercase);
        (word.to_owned(), accepted.collect())
    };
    Ok(text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(line).collect())
}

fn measure(path: &Path, all: &mut BTreeMap<String, Measured>) -> Result<()> {
    let words = words()?;
    if words.iter().all(|(word, _)| all.contains_key(word)) {
        return Ok(());
    }
    let model = Model::open(&model()?)?;
    let site = Site::at(SiteKind::ResidPost, LAYER);
    let residuals: Vec<Vec<f32>> =
        words.iter().map(|(word, _)| at_last_token(&model, &format!(" The {word}"), site)).collect::<Result<_, _>>()?;
    let n = residuals.len() as f32;
    let mean: Vec<f32> = (0..model.spec.d_model).map(|i| residuals.iter().map(|r| r[i]).sum::<f32>() / n).collect();
    let settings = SelfExplainSettings { scales: SCALES, max_scale: MAX_SCALE, ..SelfExplainSettings::default() };
    let explainer = SelfExplainer::new(&model, &settings)?;
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    for (i, ((word, accepted), resid)) in words.into_iter().zip(&residuals).enumerate() {
        if all.contains_key(&word) {
            continue;
        }
        let direction: Vec<f32> = resid.iter().zip(&mean).map(|(r, m)| r - m).collect();
        let unit = explainer.base(&direction)?;
        let curves = explainer.curves(&unit)?;
        let texts = explainer.texts(&unit, &curves.scales)?;
        ensure!(texts.len() == SCALES, "{} texts of {SCALES} scales", texts.len());
        let measured = Measured { word: word.clone(), accepted, curves, texts };
        writeln!(file, "{}", serde_json::to_string(&measured)?)?;
        all.insert(word, measured);
        if i % 10 == 9 {
            progress(format_args!("{} words of {n}", i + 1));
        }
    }
    Ok(())
}

/// Whether a text says an accepted answer, as a whole word.
fn says(text: &str, accepted: &[String]) -> bool {
    let text = text.to_lowercase();
    text.split(|c: char| !c.is_alphanumeric()).any(|word| accepted.iter().any(|a| a == word))
}

/// Whether the first text hits, and any of the first three; neither after abstention.
fn hits(m: &Measured, settings: &SelfExplainSettings) -> [f64; 2] {
    let Choice::Scales(ranked) = rank(&m.curves, settings) else { return [0.0; 2] };
    let texts: Vec<String> = ranked.iter().map(|(i, _)| m.texts[*i].clone()).collect();
    let hit: Vec<bool> = different(&texts, TEXTS).into_iter().map(|at| says(&texts[at], &m.accepted)).collect();
    [hit.first().copied().unwrap_or(false), hit.contains(&true)].map(|hit| f64::from(u8::from(hit)))
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len().max(1) as f64
}

fn shown(e: &Estimate) -> String {
    format!("{:.3} ({:.3} to {:.3})", e.value, e.low, e.high)
}

/// Writes a line of the result; a reader who has gone is no reason to fail.
fn say(line: std::fmt::Arguments) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn tell(tuning: &[&Measured], test: &[&Measured]) {
    let rules = [
        (ScaleRule::SelfSimilarity, "argmax self-similarity", false),
        (ScaleRule::MinEntropy, "argmin entropy", false),
        (ScaleRule::Entropy, "composite c: ss - 0.1 H", false),
        (ScaleRule::CrossEntropy, "composite b: ss, CE", true),
        (ScaleRule::Peaks, "peaks", true),
    ];
    let mut table: Vec<(&str, Vec<[f64; 2]>)> = Vec::new();
    for (rule, name, has_alpha) in rules {
        let settings = |alpha: f64| SelfExplainSettings { rule, alpha, ..SelfExplainSettings::default() };
        let score = |alpha: &f64| {
            let of: Vec<[f64; 2]> = tuning.iter().map(|m| hits(m, &settings(*alpha))).collect();
            mean(&of.iter().map(|h| h[0] + h[1]).collect::<Vec<_>>())
        };
        let tried: &[f64] = if has_alpha { &ALPHAS } else { &[0.4] };
        let alpha = tried.iter().copied().max_by(|a, b| score(a).total_cmp(&score(b))).unwrap_or(0.4);
        let of: Vec<[f64; 2]> = test.iter().map(|m| hits(m, &settings(alpha))).collect();
        let abstained = test.iter().filter(|m| rank(&m.curves, &settings(alpha)) == Choice::Abstain).count();
        let [one, three] = [0, 1].map(|k| bootstrap(&of.iter().map(|h| h[k]).collect::<Vec<_>>(), SEED, mean));
        let chosen = if has_alpha { format!(", alpha {alpha}") } else { String::new() };
        say(format_args!("{name:<24} top 1 {}  top 3 {}  {abstained} abstained{chosen}", shown(&one), shown(&three)));
        table.push((name, of));
    }
    let oracle: Vec<f64> =
        test.iter().map(|m| f64::from(u8::from(m.texts[1..].iter().any(|t| says(t, &m.accepted))))).collect();
    say(format_args!("{:<24} {} of scales, at best", "oracle", shown(&bootstrap(&oracle, SEED, mean))));
    let Some(((_, peaks), others)) = table.split_last() else { return };
    for (name, of) in others {
        let [one, three] = [0, 1].map(|k| {
            let pairs: Vec<f64> = peaks.iter().zip(of).map(|(p, o)| p[k] - o[k]).collect();
            bootstrap(&pairs, SEED, mean)
        });
        say(format_args!("peaks less {name:<24} top 1 {}  top 3 {}", shown(&one), shown(&three)));
    }
}
