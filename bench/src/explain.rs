//! What scoring explanations costs: many explanations of a latent against one, and against delphi with a server as its judge.
//!
//! The judge is SmolLM2-135M on both sides, from one file. Examples and explanations are the same; what they say does not matter to what
//! they cost. Peer: `bench/peer_delphi.py`, which says what of delphi is changed.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use exegete_explain::judge::Judge;
use exegete_explain::judge::local::{Arrangement, LocalJudge};
use exegete_explain::question::Question;
use exegete_model::Model;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::compare::quantile;
use crate::machine::{Machine, Phase};
use crate::run::model;
use crate::side::Side;
use crate::{Options, print, progress};

/// Examples of either kind, the tokens of each, and explanations.
const EXAMPLES: usize = 50;
const LEN: usize = 32;
pub(crate) const EXPLANATIONS: usize = 32;
/// Rounds against the peer, in which both sides run once.
const ROUNDS: usize = 3;
/// Cost of 32 explanations over that of one, at most.
const BAR_COST: f64 = 2.2;
/// Scores an hour over the peer's, at least.
const BAR_SCORES: f64 = 10.0;

/// What both sides read.
#[derive(Serialize, Deserialize)]
struct Task {
    explanations: Vec<String>,
    firing: Vec<Example>,
    silent: Vec<Example>,
}

#[derive(Serialize, Deserialize)]
struct Example {
    tokens: Vec<String>,
    values: Vec<f32>,
}

/// Runs the rows.
pub(crate) fn bench(options: &Options) -> Result<()> {
    let (path, folder) = (model()?, tempfile::tempdir()?);
    let opened = Model::open(&path)?;
    write_task(folder.path(), &opened)?;
    let wants = |name: &str| options.only.as_ref().is_none_or(|only| name.starts_with(only.as_str()));
    if wants("cost_") {
        for row in costs(folder.path(), &opened)? {
            print(&row, options.json)?;
        }
    }
    if wants("scores_per_hour_vs_delphi") {
        let rounds = options.rounds.unwrap_or(if options.quick { 1 } else { ROUNDS });
        print(&against_delphi(folder.path(), &path, rounds)?, options.json)?;
    }
    Ok(())
}

/// Stretches of a text as examples, and words to be explained by.
fn write_task(folder: &Path, model: &Model) -> Result<()> {
    let data =
        std::env::var_os("EXEGETE_DATA").context("EXEGETE_DATA does not name the data pack, whose text is read")?;
    let text = std::fs::read_to_string(Path::new(&data).join("corpora/wikitext2/test.txt"))?;
    let tokenizer = model.tokenizer()?;
    let mut end = 200_000.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let ids = tokenizer.encode_text(&text[..end])?;
    let example = |(i, ids): (usize, &[u32])| {
        let tokens = ids.iter().map(|id| tokenizer.token_text(*id)).collect();
        let value = |at: usize| if i < EXAMPLES && at == LEN / 2 { 1.0 } else { 0.0 };
        Example { tokens, values: (0..LEN).map(value).collect() }
    };
    let mut all: Vec<Example> = ids.chunks_exact(LEN).step_by(7).take(2 * EXAMPLES).enumerate().map(example).collect();
    ensure!(all.len() == 2 * EXAMPLES, "the text is too short");
    let silent = all.split_off(EXAMPLES);
    let words = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../refs/words.tsv"))?;
    let words = words.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split('\t').next());
    let explanations = words.take(EXPLANATIONS).map(|word| format!("the word {word} and words of its kind")).collect();
    let task = Task { explanations, firing: all, silent };
    Ok(std::fs::write(folder.join("task.json"), serde_json::to_vec(&task)?)?)
}

/// Our side: a latent's examples judged under its explanations.
pub(crate) struct Scores<'m> {
    judge: LocalJudge<'m>,
    question: Question,
    examples: Vec<String>,
    explanations: Vec<String>,
}

impl<'m> Scores<'m> {
    pub(crate) fn open(model: &'m Model, folder: &Path, arrangement: Arrangement) -> Result<Self> {
        let task: Task = serde_json::from_slice(&std::fs::read(folder.join("task.json"))?)?;
        let text = include_str!("../../crates/exegete-explain/prompts/detection.toml");
        let example = |e: &Example| e.tokens.concat();
        Ok(Self {
            judge: LocalJudge::new(model, "SmolLM2-135M")?.arranged(arrangement),
            question: Question::read("detection.toml", text)?,
            examples: task.firing.iter().chain(&task.silent).map(example).collect(),
            explanations: task.explanations,
        })
    }

    /// Scores the first `n` explanations: tokens computed, and seconds.
    pub(crate) fn run(&self, n: usize) -> Result<(u64, f64)> {
        let (before, start) = (self.judge.cost(), Instant::now());
        let verdicts = self.judge.verdicts(&self.question, &self.examples, &self.explanations[..n])?;
        ensure!(verdicts.iter().flatten().all(Option::is_some), "a verdict is missing");
        Ok((self.judge.cost().since(before).computed, start.elapsed().as_secs_f64()))
    }
}

fn costs(folder: &Path, model: &Model) -> Result<Vec<Map<String, Value>>> {
    let shared = Scores::open(model, folder, Arrangement::Shared)?;
    let naive = Scores::open(model, folder, Arrangement::Naive)?;
    let machine = Machine::new(false)?;
    shared.run(1)?;
    let mut runs: Vec<Vec<(u64, f64)>> = vec![Vec::new(); 3];
    let mut rates = machine.measure();
    for round in 0..ROUNDS {
        for (n, runs) in [1, 8, EXPLANATIONS].into_iter().zip(&mut runs) {
            runs.push(shared.run(n)?);
        }
        rates = rates.best(machine.measure());
        progress(format_args!("cost: round {round}: {:?}", runs.iter().map(|r| r[round]).collect::<Vec<_>>()));
    }
    let naive_one = naive.run(1)?;
    let tokens: Vec<u64> = runs.iter().map(|r| r[0].0).collect();
    let secs: Vec<f64> = runs.iter().map(|r| quantile(&r.iter().map(|x| x.1).collect::<Vec<_>>(), 0.5)).collect();
    let (v, d) = (model.spec.vocab_size as f64, model.spec.d_model as f64);
    let flops = 2.0 * (model.spec.n_parameters() as f64 - v * d) * tokens[2] as f64;
    let floor = rates.floor_secs(&[Phase { flops, ..Phase::default() }]).unwrap_or(f64::NAN);
    // Every explanation of the naive order costs what the first does, but for its own few tokens.
    let naive_all = naive_one.0 * EXPLANATIONS as u64;
    let rows = [
        json!({
            "row": "cost_1_over_32_explanations", "peer": "self", "ours": tokens[2], "theirs": tokens[0], "unit": "tokens",
            "ratio": tokens[0] as f64 / tokens[2] as f64, "n": ROUNDS, "bar": 1.0 / BAR_COST,
            "met": (tokens[2] as f64) <= BAR_COST * tokens[0] as f64, "times_one": tokens[2] as f64 / tokens[0] as f64,
            "tokens_1_8_32": tokens, "secs_1_8_32": secs, "floor_secs_32": floor, "part_of_floor": floor / secs[2],
        }),
        json!({
            "row": "cost_naive_over_shared_32", "peer": "self: a prompt for each pair", "ours": tokens[2], "theirs": naive_all,
            "unit": "tokens", "ratio": naive_all as f64 / tokens[2] as f64, "n": 1, "naive_secs_of_one": naive_one.1,
        }),
    ];
    rows.into_iter().map(|row| row.as_object().cloned().context("a row is an object")).collect()
}

fn against_delphi(folder: &Path, model: &Path, rounds: usize) -> Result<Map<String, Value>> {
    let python = std::env::var_os("EXEGETE_BENCH_PYTHON")
        .context("EXEGETE_BENCH_PYTHON does not name the peer's Python; `cargo xtask bench` sets it up")?;
    let mut peer = Command::new(python);
    peer.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peer_delphi.py")).args([folder, model]);
    let mut theirs = Side::start("detection, 5 examples a prompt", &mut peer)?;
    let mut worker = Command::new(std::env::current_exe()?);
    worker.args(["worker", "detection_scores"]).args([folder, model]);
    let mut ours = Side::start("ours", &mut worker)?;
    ours.run()?;
    theirs.run()?;
    let (mut our_secs, mut their_secs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        our_secs.push(ours.run()?);
        their_secs.push(theirs.run()?);
        progress(format_args!(
            "scores: round {round}: {EXPLANATIONS} in {:.1} s against one in {:.1} s",
            our_secs[round], their_secs[round]
        ));
    }
    let an_hour = |secs: &[f64], n: usize| n as f64 * 3600.0 / quantile(secs, 0.5);
    let ratios: Vec<f64> = our_secs.iter().zip(&their_secs).map(|(a, b)| b * EXPLANATIONS as f64 / a).collect();
    let answered = theirs.result(folder)?;
    let peaks = (ours.peak_mib()?, theirs.peak_mib()?);
    let row = json!({
        "row": "scores_per_hour_vs_delphi", "peer": theirs.name.clone(), "ours": an_hour(&our_secs, EXPLANATIONS),
        "theirs": an_hour(&their_secs, 1), "unit": "scores an hour", "ratio": quantile(&ratios, 0.5),
        "ratio_q1": quantile(&ratios, 0.25), "ratio_q3": quantile(&ratios, 0.75), "n": rounds, "bar": BAR_SCORES,
        "met": quantile(&ratios, 0.5) >= BAR_SCORES, "peak_mib": peaks.0, "peak_mib_theirs_without_server": peaks.1,
        "theirs_answered": answered.first(), "theirs_asked": answered.get(1),
        "peer_changes": "vllm stubbed, OpenRouter client at loopback, temperature 0, max_tokens 64 for 3000",
    });
    row.as_object().cloned().context("a row is an object")
}
