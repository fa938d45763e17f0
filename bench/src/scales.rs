//! A study of the choice of scales: `exegete-bench scales DIR`.
//!
//! SmolLM2-135M reads the direction of every word of `refs/words.tsv` (residual of ` The WORD` after layer 8, less the mean over the
//! words) at 64 scales to 400, and the organism that of every word of its language (where the word ends in a question about it, after
//! two layers, less the mean). Curves and texts go into `DIR/words.jsonl` and `DIR/organism.jsonl`, once; a study that was stopped goes
//! on. Then rules are set against each other on what is stored alone (`exegete_methods::self_explain::study`). A scale is worth 1 where
//! its text says the word or an accepted answer, or is the word's definition.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use exegete_base::sampling::pair_hash;
use exegete_base::settings::SelfExplainSettings;
use exegete_base::stats::Estimate;
use exegete_base::{Site, SiteKind};
use exegete_lab::builtin::{self, Part};
use exegete_lab::language::{Language, probes};
use exegete_methods::direction::at_last_token;
use exegete_methods::self_explain::plateaus::Background;
use exegete_methods::self_explain::study::{Comparison, Item, compare};
use exegete_methods::self_explain::{Curves, SelfExplainer};
use exegete_model::Model;
use serde::{Deserialize, Serialize};

use crate::progress;
use crate::run::model;

/// Scales of a word.
const SCALES: usize = 64;

/// A direction as it was measured.
#[derive(Serialize, Deserialize)]
struct Measured {
    word: String,
    accepted: Vec<String>,
    curves: Curves,
    /// What the model says at each scale.
    texts: Vec<String>,
    /// The layer after which the direction was read.
    #[serde(default)]
    layer: usize,
}

/// A direction to be measured.
struct Wanted {
    word: String,
    accepted: Vec<String>,
    layer: usize,
    direction: Vec<f32>,
}

/// Measures what is not there yet, and tells how the rules compare.
pub(crate) fn study(dir: &Path) -> Result<()> {
    std::fs::create_dir_all(dir)?;
    let settings = SelfExplainSettings { scales: SCALES, ..Default::default() };
    let (words, background) = measured(&dir.join("words.jsonl"), settings, &words)?;
    say(format_args!("words of SmolLM2-135M-Instruct"));
    tell(&compare(&items(&words, says), &background));
    let settings = SelfExplainSettings {
        scales: SCALES,
        max_scale: ORGANISM_MAX,
        insert_layer: ORGANISM_INSERT,
        ..Default::default()
    };
    let (definitions, background) = measured(&dir.join("organism.jsonl"), settings, &definitions)?;
    say(format_args!("definitions of the organism"));
    let is = |text: &str, accepted: &[String]| accepted.iter().any(|a| a == text);
    tell(&compare(&items(&definitions, is), &background));
    Ok(())
}

fn items(all: &[Measured], hits: impl Fn(&str, &[String]) -> bool) -> Vec<Item> {
    let item = |m: &Measured| Item {
        about: hash(&m.word),
        curves: m.curves.clone(),
        texts: m.texts.clone(),
        worth: m.texts.iter().map(|text| Some(f64::from(u8::from(hits(text, &m.accepted))))).collect(),
        nothing: 0.0,
    };
    all.iter().map(item).collect()
}

fn hash(word: &str) -> u64 {
    word.bytes().fold(0, |hash, byte| pair_hash(hash, byte.into(), 1))
}

/// The words of the tests with the answers that are accepted.
fn words() -> Result<(Model, Vec<Wanted>)> {
    const LAYER: usize = 8;
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../refs/words.tsv");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let line = |line: &str| {
        let (word, rest) = line.split_once('\t').unwrap_or((line, ""));
        let accepted = std::iter::once(word).chain(rest.split(',')).filter(|w| !w.is_empty()).map(str::to_lowercase);
        (word.to_owned(), accepted.collect())
    };
    let words: Vec<(String, Vec<String>)> =
        text.lines().filter(|l| !l.starts_with('#') && !l.is_empty()).map(line).collect();
    let model = Model::open(&model()?)?;
    let wanted = less_mean(&model, &words, LAYER, |word| format!(" The {word}"))?;
    Ok((model, wanted))
}

/// Largest scale of the organism's directions, and the layer before which they go in.
const ORGANISM_MAX: f64 = 60.0;
const ORGANISM_INSERT: usize = 1;

/// The words of the organism's language with their definitions, read after two layers.
fn definitions() -> Result<(Model, Vec<Wanted>)> {
    const LAYERS: [usize; 2] = [1, 2];
    let model = Model::open(&builtin::path(Part::Model)?)?;
    let quoted = |text: &str| -> Vec<String> { text.split('"').skip(1).step_by(2).map(str::to_owned).collect() };
    let mut words: Vec<(String, Vec<String>)> = Vec::new();
    for item in probes::definitions(&Language::new()) {
        let all = quoted(&format!("{}{}", item.prompt, item.answer));
        let (Some(word), Some(meaning)) = (all.first(), all.last()) else { continue };
        words.push((word.clone(), vec![meaning.clone()]));
    }
    let mut wanted = Vec::new();
    for layer in LAYERS {
        wanted.extend(less_mean(&model, &words, layer, |word| {
            format!("<|user|>\nWhat is the meaning of the word \"{word}")
        })?);
    }
    Ok((model, wanted))
}

/// The residuals at the ends of texts, less their mean.
fn less_mean(
    model: &Model,
    words: &[(String, Vec<String>)],
    layer: usize,
    text: impl Fn(&str) -> String,
) -> Result<Vec<Wanted>> {
    let site = Site::at(SiteKind::ResidPost, layer);
    let residuals: Vec<Vec<f32>> =
        words.iter().map(|(word, _)| at_last_token(model, &text(word), site)).collect::<Result<_, _>>()?;
    let n = residuals.len() as f32;
    let mean: Vec<f32> = (0..model.spec.d_model).map(|i| residuals.iter().map(|r| r[i]).sum::<f32>() / n).collect();
    let wanted = |((word, accepted), resid): (&(String, Vec<String>), &Vec<f32>)| Wanted {
        word: word.clone(),
        accepted: accepted.clone(),
        layer,
        direction: resid.iter().zip(&mean).map(|(r, m)| r - m).collect(),
    };
    Ok(words.iter().zip(&residuals).map(wanted).collect())
}

/// All directions as they are in the file, those that were not yet measured first; and what is said of random ones.
fn measured(
    path: &Path,
    settings: SelfExplainSettings,
    wanted: &dyn Fn() -> Result<(Model, Vec<Wanted>)>,
) -> Result<(Vec<Measured>, Background)> {
    let mut all: BTreeMap<(String, usize), Measured> = BTreeMap::new();
    if path.exists() {
        for line in BufReader::new(File::open(path)?).lines() {
            // A line that a stop has cut is measured again.
            if let Ok(measured) = serde_json::from_str::<Measured>(&line?) {
                all.insert((measured.word.clone(), measured.layer), measured);
            }
        }
    }
    let (model, wanted) = wanted()?;
    let explainer = SelfExplainer::new(&model, &settings)?;
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let n = wanted.len();
    for (i, Wanted { word, accepted, layer, direction }) in wanted.into_iter().enumerate() {
        let key = (word.clone(), layer);
        if all.contains_key(&key) {
            continue;
        }
        let base = explainer.base(&direction)?;
        let curves = explainer.curves(&base)?;
        let texts = explainer.texts(&base, &curves.scales)?;
        ensure!(texts.len() == SCALES, "{} texts of {SCALES} scales", texts.len());
        let measured = Measured { word, accepted, curves, texts, layer };
        writeln!(file, "{}", serde_json::to_string(&measured)?)?;
        all.insert(key, measured);
        if i % 10 == 9 {
            progress(format_args!("{} directions of {n}", i + 1));
        }
    }
    let background = explainer.background()?.clone();
    Ok((all.into_values().collect(), background))
}

/// Whether a text says an accepted answer, as a whole word.
fn says(text: &str, accepted: &[String]) -> bool {
    let text = text.to_lowercase();
    text.split(|c: char| !c.is_alphanumeric()).any(|word| accepted.iter().any(|a| a == word))
}

/// Writes a line of the result; a reader who has gone is no reason to fail.
fn say(line: std::fmt::Arguments) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn shown(e: &Estimate) -> String {
    format!("{:.3} ({:.3} to {:.3})", e.value, e.low, e.high)
}

fn tell(told: &Comparison) {
    say(format_args!(
        "weights chosen on {} directions, told of {} others, of {} words",
        told.tuned_on, told.items, told.about
    ));
    for rule in &told.rules {
        let alpha = rule.alpha.map(|alpha| format!(", alpha {alpha}")).unwrap_or_default();
        let (first, three) = (shown(&rule.first), shown(&rule.best_of_three));
        say(format_args!("{:<27} top 1 {first}  top 3 {three}  {} abstained{alpha}", rule.rule, rule.abstained));
    }
    say(format_args!("{:<27} {}; any scale {}", "best scale", shown(&told.oracle), shown(&told.any)));
    for rule in &told.rules {
        if let Some([first, three]) = &rule.last_less {
            say(format_args!("plateaus less {:<27} top 1 {}  top 3 {}", rule.rule, shown(first), shown(three)));
        }
    }
}
