//! How well a model can do what the language teaches.

use std::collections::BTreeMap;

use exegete_base::stats::{Estimate, ratio_of_sums, wilson};
use exegete_harvest::Progress;
use exegete_model::{Batch, Hooks, Logits, Model};
use exegete_tensor::{Tape, f32s};
use serde::Serialize;

use super::Training;
use super::items::{self, Bar, Test};
use super::vocabulary::{self, START};
use crate::language::{Document, KINDS_OF_DOCUMENTS, Language, Split};
use crate::{LabError, Result};

/// Tokens of a run of the model.
const BATCH_TOKENS: usize = 8192;

/// How well one ability is there.
#[derive(Debug, Clone, Serialize)]
pub struct Ability {
    /// Its name.
    pub name: String,
    /// Share of right answers: the answer's every token is the likeliest.
    pub right: Estimate,
    /// What is expected.
    pub bar: Bar,
    /// Whether that holds; none where nothing is asked.
    pub holds: Option<bool>,
    /// Why it does not hold.
    pub missed: Option<&'static str>,
    /// The first wrong answer, for a look: prompt's end, what was right, what was said.
    pub wrong: Option<(String, String, String)>,
}

/// The loss on documents of one kind that training did not see, beside what the generator says is possible.
#[derive(Debug, Clone, Serialize)]
pub struct Loss {
    /// The kind; all of them for the first entry.
    pub kind: String,
    /// Nats a token of the model.
    pub model: Estimate,
    /// Nats a token of the generator's own choices.
    pub generator: f64,
    /// Nats a token between them, with documents as units.
    pub gap: Estimate,
    /// Tokens.
    pub tokens: u64,
    /// Documents that were left out, since they are longer than the model's context.
    pub left_out: u64,
}

/// Ids of a prompt and an answer, and where the answer begins.
fn ids_of(model: &Model, prompt: &str, answer: &str) -> Result<(Vec<u32>, usize)> {
    let tokenizer = model.tokenizer()?;
    let mut ids = vec![START];
    ids.extend(tokenizer.encode_prompt(prompt)?);
    let begins = ids.len();
    let mut all = vec![START];
    all.extend(tokenizer.encode_prompt(&format!("{prompt}{answer}"))?);
    if all.get(..begins) != Some(&ids) || all.len() == begins {
        return Err(LabError::Failed(format!("the tokens of {answer:?} do not go on from its prompt")));
    }
    Ok((all, begins))
}

/// What the model makes of an answer: the tokens that it finds likeliest in its place, and its -log p in nats.
struct Judged {
    said: Vec<u32>,
    nats: f64,
}

fn judge(model: &Model, rows: &[(Vec<u32>, usize)]) -> Result<Vec<Judged>> {
    let (mut inputs, mut asked, mut at) = (Vec::new(), Vec::new(), 0);
    for (ids, begins) in rows {
        asked.extend((begins - 1..ids.len() - 1).map(|t| (at + t) as u32));
        at += ids.len() - 1;
        inputs.push(ids[..ids.len() - 1].to_vec());
    }
    let mut hooks = Hooks::none();
    let tape = Tape::new();
    let logits = model.run(&tape, &Batch::rows(&inputs), None, &mut hooks, Logits::At(asked))?;
    let logits = logits.ok_or_else(|| LabError::Failed("the model gave no logits".into()))?;
    let targets: Vec<u32> = rows.iter().flat_map(|(ids, begins)| ids[*begins..].iter().copied()).collect();
    let losses = tape.cross_entropy(&logits, &targets)?;
    let (logits, losses) = (f32s(logits.tensor())?, f32s(losses.tensor())?);
    let best = |row: &[f32]| {
        row.iter().enumerate().fold((0, f32::NEG_INFINITY), |best, (i, x)| if *x > best.1 { (i, *x) } else { best }).0
            as u32
    };
    let mut each = logits.chunks_exact(model.spec.vocab_size).map(best).zip(losses.iter().map(|l| f64::from(*l)));
    let one = |(ids, begins): &(Vec<u32>, usize)| {
        let (said, nats): (Vec<u32>, Vec<f64>) = each.by_ref().take(ids.len() - begins).unzip();
        Judged { said, nats: nats.iter().sum() }
    };
    Ok(rows.iter().map(one).collect())
}

/// Runs one test.
///
/// # Errors
/// The model's.
pub fn run_test(model: &Model, test: &Test) -> Result<Ability> {
    let mut rows = Vec::new();
    for item in &test.items {
        for answer in [&item.answer].into_iter().chain(&item.others) {
            rows.push(ids_of(model, &item.prompt, answer)?);
        }
    }
    let (mut judged, mut from) = (Vec::new(), 0);
    while from < rows.len() {
        let (mut to, mut tokens) = (from, 0);
        while to < rows.len() && (to == from || tokens + rows[to].0.len() <= BATCH_TOKENS) {
            tokens += rows[to].0.len();
            to += 1;
        }
        judged.extend(judge(model, &rows[from..to])?);
        from = to;
    }
    let (mut at, mut wrong) = (0, None);
    // Right answers and items, by what they are about.
    let mut units: BTreeMap<u64, (f64, f64)> = BTreeMap::new();
    for item in &test.items {
        let of = &judged[at..=at + item.others.len()];
        let is_right = match item.others.is_empty() {
            true => of[0].said == rows[at].0[rows[at].1..],
            false => of[1..].iter().all(|other| of[0].nats < other.nats),
        };
        at += of.len();
        let unit = units.entry(item.about).or_default();
        (unit.0, unit.1) = (unit.0 + f64::from(u8::from(is_right)), unit.1 + 1.0);
        if !is_right && wrong.is_none() {
            let end: String = item.prompt.chars().skip(item.prompt.chars().count().saturating_sub(60)).collect();
            let tokenizer = model.tokenizer()?;
            let spelled = of[0].said.iter().map(|id| tokenizer.token_text(*id)).collect();
            wrong = Some((end, item.answer.clone(), spelled));
        }
    }
    let share = share(test.items.len(), &units.into_values().collect::<Vec<_>>());
    let missed = test.bar.missed(&share);
    let holds = (test.bar != Bar::None).then_some(missed.is_none());
    Ok(Ability { name: test.name.clone(), right: share, bar: test.bar, holds, missed, wrong })
}

/// The share of right answers, with what each is about as the unit. Where every unit is one answer, or all units are alike,
/// the interval is Wilson's: the linearised one has no width there.
fn share(n_items: usize, units: &[(f64, f64)]) -> Estimate {
    let right: f64 = units.iter().map(|u| u.0).sum();
    if units.len() < 2 || units.len() == n_items {
        return wilson(right as u64, n_items as u64);
    }
    if units.iter().all(|u| u.0 == u.1) || right == 0.0 {
        let n = units.len() as u64;
        return wilson(if right == 0.0 { 0 } else { n }, n);
    }
    let share = ratio_of_sums(units);
    Estimate { low: share.low.max(0.0), high: share.high.min(1.0), ..share }
}

/// All abilities, with up to `n` items each.
///
/// # Errors
/// The model's; [`LabError::Interrupted`].
pub fn abilities(
    model: &Model,
    language: &Language,
    n: usize,
    seed: u64,
    progress: &dyn Progress,
) -> Result<Vec<Ability>> {
    let tests = items::tests(language, n, seed);
    progress.begin("abilities", tests.len() as u64, "tests", 0);
    let mut all = Vec::new();
    for test in &tests {
        if progress.is_cancelled() {
            return Err(LabError::Interrupted);
        }
        all.push(run_test(model, test)?);
        progress.at(all.len() as u64, &test.name);
    }
    let asked = all.iter().filter(|a| a.holds.is_some()).count();
    let hold = all.iter().filter(|a| a.holds == Some(true)).count();
    progress.end(&format!("{hold} of {asked} are as they should be"));
    Ok(all)
}

/// A document that training did not see, unless its seed is the complement of this one.
fn validation(language: &Language, seed: u64, index: u64) -> Document {
    language.document(!seed, index, Split::Train)
}

/// Losses on `n` documents that training did not see, all together and by kind.
///
/// # Errors
/// The model's; [`LabError::Interrupted`].
pub fn losses(model: &Model, language: &Language, n: u64, seed: u64, progress: &dyn Progress) -> Result<Vec<Loss>> {
    if Training::read(&model.path).is_ok_and(|training| training.seed == !seed) {
        let detail = format!("with --seed {seed} the documents are those that this model was trained on; take another");
        return Err(LabError::Failed(detail));
    }
    progress.begin("validation", n, "documents", 0);
    // For each document: kind, nats of the model, nats of the generator, tokens.
    let mut found: Vec<(usize, f64, f64, f64)> = Vec::new();
    let mut left_out: Vec<usize> = Vec::new();
    let (mut rows, mut known, mut tokens) = (Vec::new(), Vec::new(), 0);
    for i in 0..n {
        let doc = validation(language, seed, i);
        let ids = vocabulary::document(model.tokenizer()?, &doc.text)?;
        // One that does not fit is left out: its beginning alone has no -log p of the generator's.
        if ids.len() <= model.spec.max_positions + 1 {
            tokens += ids.len();
            known.push((doc.kind, doc.visible_nats + doc.hidden_nats, ids.len() as f64 - 1.0));
            rows.push((ids, 1));
        } else {
            left_out.push(doc.kind);
        }
        if rows.is_empty() || tokens < BATCH_TOKENS && i + 1 < n {
            continue;
        }
        if progress.is_cancelled() {
            return Err(LabError::Interrupted);
        }
        let judged = judge(model, &rows)?;
        found.extend(known.drain(..).zip(judged).map(|((kind, own, n), judged)| (kind, judged.nats, own, n)));
        rows.clear();
        tokens = 0;
        progress.at(i + 1, "");
    }
    let summary = |name: &str, of: Option<usize>| {
        let is_of = |kind: usize| of.is_none_or(|of| of == kind);
        let of: Vec<_> = found.iter().filter(|d| is_of(d.0)).collect();
        let pairs = |f: &dyn Fn(f64, f64) -> f64| of.iter().map(|d| (f(d.1, d.2), d.3)).collect::<Vec<_>>();
        let tokens: f64 = of.iter().map(|d| d.3).sum();
        Loss {
            kind: name.into(),
            model: ratio_of_sums(&pairs(&|model, _| model)),
            generator: of.iter().map(|d| d.2).sum::<f64>() / tokens,
            gap: ratio_of_sums(&pairs(&|model, own| model - own)),
            tokens: tokens as u64,
            left_out: left_out.iter().filter(|kind| is_of(**kind)).count() as u64,
        }
    };
    let mut all = vec![summary("all", None)];
    all.extend(
        KINDS_OF_DOCUMENTS.iter().enumerate().map(|(i, kind)| summary(kind.name, Some(i))).filter(|l| l.tokens > 0),
    );
    progress.end(&format!("{:.3} nats a token, {:.3} above the generator", all[0].model.value, all[0].gap.value));
    Ok(all)
}
