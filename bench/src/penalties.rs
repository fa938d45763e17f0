//! The study of penalties and activations at the same numbers of active latents: `exegete-bench penalties DIR`.
//!
//! The program itself trains the grids of `bench/studies` into DIR and measures what comes of them; a study that was
//! stopped goes on. What is told: a table of means over seeds, a figure of FVU against L0, and which dictionaries are not
//! within 5 % of the L0 that they were meant for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use exegete_base::stats::{Estimate, mean_of};
use exegete_figure::{Labels, LineFigure, Series, Size, line};
use serde::Serialize;
use serde_json::Value;

use crate::truth::Truth;
use crate::{held_out, progress};

/// How far off its level the L0 of a dictionary may be.
const NEAR: f64 = 0.05;
/// Numbers of a dictionary that are compared, as `sae eval` names them.
const NUMBERS: [&str; 3] = ["FVU", "L0", "CE recovered"];

/// A model with the text that dictionaries are trained on, that they are measured on, and what latents are asked.
struct Place {
    name: &'static str,
    grid: &'static str,
    model: String,
    train: String,
    eval: String,
    /// What they are measured on, as options.
    measured_on: &'static [&'static str],
    /// Labelled text that latents are asked about.
    probe: String,
    /// Whether it is known what there is to find.
    has_truth: bool,
}

/// A dictionary that was trained.
struct Trained {
    level: f64,
    seed: u64,
    path: PathBuf,
}

/// What was measured of a dictionary of the study.
#[derive(Debug, Clone, Serialize)]
struct Row {
    model: &'static str,
    method: String,
    level: f64,
    seed: u64,
    /// Every number that was measured.
    numbers: BTreeMap<String, f64>,
}

/// Runs the study, as far as it is not done, and writes `penalties.json` and a figure for each model into DIR.
pub(crate) fn study(dir: &Path, only: Option<&str>) -> Result<()> {
    let wanted = |name: &str| only.is_none_or(|only| only == name);
    let mut places = Vec::new();
    if wanted("organism") {
        places.push(organism(&dir.join("organism"))?);
    }
    if wanted("smollm2") {
        match (std::env::var_os("EXEGETE_DATA"), crate::run::model()) {
            (Some(data), Ok(model)) => places.push(smollm2(&dir.join("smollm2"), Path::new(&data), &model)?),
            _ => progress(format_args!(
                "smollm2: not run: EXEGETE_DATA and the model of `cargo xtask models` are needed"
            )),
        }
    }
    let mut rows = Vec::new();
    for place in &places {
        let found = place.rows(&dir.join(place.name))?;
        std::fs::write(dir.join(format!("penalties_{}.svg", place.name)), figure(place.name, &found)?)?;
        rows.extend(found);
    }
    std::fs::write(dir.join("penalties.json"), serde_json::to_vec_pretty(&rows)?)?;
    tell(&rows)
}

/// The organism, with documents of seeds that neither it nor what it carries was made of.
fn organism(dir: &Path) -> Result<Place> {
    let corpus = |name: &str, tokens: &str, seed: &str| -> Result<String> {
        let (out, part) = (dir.join(name), dir.join(format!("{name}.part")));
        if !out.exists() {
            // What was stopped is written anew.
            if part.exists() {
                std::fs::remove_dir_all(&part)?;
            }
            let made =
                program(&["lab", "corpus", "--tokens", tokens, "--seed", seed]).arg("--out").arg(&part).status()?;
            ensure!(made.success(), "the documents of {} were not written", part.display());
            std::fs::rename(&part, &out)?;
        }
        Ok(out.display().to_string())
    };
    let (train, held) = (corpus("train", "250000", "11")?, corpus("held", "60000", "12")?);
    Ok(Place {
        name: "organism",
        grid: include_str!("../studies/penalties_organism.toml"),
        model: "builtin:organism".into(),
        train: format!("{train}/documents"),
        eval: format!("{held}/documents"),
        measured_on: &["--tokens", "16384"],
        probe: held,
        has_truth: true,
    })
}

/// SmolLM2 on speeches and reviews, of which one document in twenty is held out.
fn smollm2(dir: &Path, data: &Path, model: &Path) -> Result<Place> {
    std::fs::create_dir_all(dir)?;
    let data = data.join("corpora");
    let names = ["us_speeches/state_union.jsonl", "movie_reviews/movie_reviews.jsonl"];
    let paths = names.map(|name| data.join(name).display().to_string());
    let [train, eval] = held_out::split(&paths, dir, 20)?;
    let probe = data.join("masc_pos/masc_pos.jsonl").display().to_string();
    let grid = include_str!("../studies/penalties_smollm2.toml");
    let model = model.display().to_string();
    // Speeches are long, and the first would else be all that is measured.
    let measured_on = &["--tokens", "16384", "--document-windows", "1"];
    Ok(Place { name: "smollm2", grid, model, train, eval, measured_on, probe, has_truth: false })
}

impl Place {
    /// Trains the grid and measures each dictionary of it.
    fn rows(&self, dir: &Path) -> Result<Vec<Row>> {
        std::fs::create_dir_all(dir)?;
        let grid = dir.join("grid.toml");
        std::fs::write(&grid, self.grid)?;
        let run = dir.join("run");
        let mut train = program(&["sae", "train", &self.model, "--text", &self.train, "--max-tokens", "0"]);
        train.arg("--grid").arg(&grid).arg("--out").arg(&run);
        ensure!(train.status()?.success(), "the training of {} failed", self.name);
        // All dictionaries of a method are measured together, for what the model does without them is then computed once.
        let mut methods: BTreeMap<String, Vec<Trained>> = BTreeMap::new();
        for entry in std::fs::read_dir(run.join("sae"))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let (mut parts, mut level, mut seed) = (Vec::new(), None, None);
            for part in name.split('-') {
                match part.split_once('=') {
                    Some(("seed", value)) => seed = Some(value.parse()?),
                    Some(("target_l0" | "k" | "level", value)) => level = Some(value.parse()?),
                    _ => parts.push(part),
                }
            }
            let (level, seed) = level.zip(seed).with_context(|| format!("{name}: no level or no seed"))?;
            methods.entry(parts.join("-")).or_default().push(Trained { level, seed, path: entry.path() });
        }
        let truth = self.has_truth.then(|| self.truth(&run)).transpose()?;
        let mut rows = Vec::new();
        for (method, mut trained) in methods {
            trained.sort_by(|a, b| a.level.total_cmp(&b.level).then(a.seed.cmp(&b.seed)));
            let mut measured = self.measured(&method, &trained, &dir.join("eval"))?;
            if let Some(truth) = &truth {
                for (row, one) in measured.iter_mut().zip(&trained) {
                    let [f1, recovered] = truth.scores(&one.path)?;
                    row.numbers.insert("truth F1".into(), f1);
                    row.numbers.insert("truth recovered".into(), recovered);
                }
            }
            rows.extend(measured);
        }
        Ok(rows)
    }

    /// What there is to find at the site of a run.
    fn truth(&self, run: &Path) -> Result<Truth> {
        progress(format_args!("{}: labelled tokens", self.name));
        let manifest: Value = serde_json::from_slice(&std::fs::read(run.join("manifest.json"))?)?;
        Truth::of(manifest["settings"]["site"].as_str().context("the run names no site")?.parse()?)
    }

    /// Measures the dictionaries of a method, unless that is done.
    fn measured(&self, method: &str, trained: &[Trained], folder: &Path) -> Result<Vec<Row>> {
        let kept = folder.join(format!("{method}{}.json", self.measured_on.concat()));
        if !kept.exists() {
            progress(format_args!("{}: {method}", self.name));
            let mut eval = program(&["sae", "eval"]);
            eval.args(trained.iter().map(|one| &one.path)).args(["--model", &self.model, "--json", "--probe-k", "1,5"]);
            eval.args(["--probe-labels", "24", "--probe-examples", "4000"]);
            eval.args(["--text", &self.eval, "--probe", &self.probe]).args(self.measured_on);
            let output = eval.output()?;
            ensure!(output.status.success(), "{method}: {}", String::from_utf8_lossy(&output.stderr));
            std::fs::create_dir_all(folder)?;
            // Whole or not at all: what is there is not measured again.
            let beside = kept.with_extension("part");
            std::fs::write(&beside, output.stdout)?;
            std::fs::rename(&beside, &kept)?;
        }
        let told: Value = serde_json::from_slice(&std::fs::read(&kept)?).with_context(|| kept.display().to_string())?;
        let is_asked_for = |(found, one): (&Value, &Trained)| {
            found["name"].as_str().and_then(|name| Path::new(name).file_name()) == one.path.file_name()
        };
        let all = told["dictionaries"]
            .as_array()
            .filter(|all| all.len() == trained.len() && all.iter().zip(trained).all(is_asked_for));
        let all = all.with_context(|| format!("{}: other dictionaries than asked for: delete it", kept.display()))?;
        all.iter().zip(trained).map(|(found, one)| self.row(method, one, found)).collect()
    }

    fn row(&self, method: &str, trained: &Trained, found: &Value) -> Result<Row> {
        let mut numbers = BTreeMap::new();
        for called in NUMBERS {
            let all = found["measured"]["numbers"].as_array().context("nothing was measured")?;
            let number = all.iter().find(|number| number["name"] == called).context("a number is missing")?;
            numbers.insert(called.to_owned(), number["value"].as_f64().unwrap_or(f64::NAN));
        }
        for mean in found["tasks"][0]["means"].as_array().context("nothing was probed")? {
            let (Some(k), Some(false)) = (mean["k"].as_u64(), mean["is_shuffled"].as_bool()) else { continue };
            numbers.insert(format!("probe, k = {k}"), mean["accuracy"]["value"].as_f64().unwrap_or(f64::NAN));
        }
        Ok(Row { model: self.name, method: method.to_owned(), level: trained.level, seed: trained.seed, numbers })
    }
}

/// The program beside this one.
fn program(args: &[&str]) -> Command {
    let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("exegete")));
    let mut command = Command::new(beside.unwrap_or_else(|| "exegete".into()));
    command.args(args);
    command
}

/// The seeds of each method, in the order of models, levels and FVU.
fn groups(rows: &[Row]) -> Vec<(&'static str, f64, &str, Vec<&Row>)> {
    let mut all: Vec<(&'static str, f64, &str, Vec<&Row>)> = Vec::new();
    for row in rows {
        let same =
            |g: &&mut (&'static str, f64, &str, Vec<&Row>)| (g.0, g.1, g.2) == (row.model, row.level, &*row.method);
        match all.iter_mut().find(same) {
            Some(group) => group.3.push(row),
            None => all.push((row.model, row.level, &row.method, vec![row])),
        }
    }
    let fvu = |rows: &[&Row]| mean(rows, "FVU").map_or(f64::NAN, |e| e.value);
    all.sort_by(|a, b| a.0.cmp(b.0).then(a.1.total_cmp(&b.1)).then(fvu(&a.3).total_cmp(&fvu(&b.3))));
    all
}

fn mean(rows: &[&Row], key: &str) -> Option<Estimate> {
    let values: Vec<f64> = rows.iter().filter_map(|row| row.numbers.get(key)).copied().collect();
    (!values.is_empty()).then(|| mean_of(&values))
}

/// Writes the table in Markdown on standard output.
fn tell(rows: &[Row]) -> Result<()> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let mut before = None;
    for (model, level, method, seeds) in groups(rows) {
        let keys: Vec<&String> = seeds[0].numbers.keys().collect();
        if before != Some(model) {
            writeln!(out, "\n{model}, means over seeds with 95 % intervals\n")?;
            writeln!(
                out,
                "| level | method | {} | n |",
                keys.iter().map(|k| k.as_str()).collect::<Vec<_>>().join(" | ")
            )?;
            writeln!(out, "|{}", "---|".repeat(keys.len() + 3))?;
            before = Some(model);
        }
        let cell = |key: &&String| match mean(&seeds, key) {
            Some(e) if e.low.is_finite() => format!("{:.3} ± {:.3}", e.value, (e.high - e.low) / 2.0),
            Some(e) => format!("{:.3}", e.value),
            None => "-".into(),
        };
        let is_near = |row: &&Row| (row.numbers["L0"] / row.level - 1.0).abs() <= NEAR;
        let mark = if !seeds.iter().all(is_near) { " (off its level)" } else { "" };
        let cells: Vec<String> = keys.iter().map(cell).collect();
        writeln!(out, "| {level} | {method}{mark} | {} | {} |", cells.join(" | "), seeds.len())?;
    }
    Ok(out.flush()?)
}

/// FVU against L0, a line a method.
fn figure(name: &str, rows: &[Row]) -> Result<String> {
    let mut levels: Vec<f64> = rows.iter().map(|row| row.level).collect();
    levels.sort_by(f64::total_cmp);
    levels.dedup();
    let mut methods: Vec<&str> = rows.iter().map(|row| &*row.method).collect();
    methods.sort_unstable();
    methods.dedup();
    let value = |method: &str, level: f64| {
        let own: Vec<&Row> = rows.iter().filter(|row| row.method == method && row.level == level).collect();
        mean(&own, "FVU").map_or(f64::NAN, |e| e.value)
    };
    let series = methods.iter().map(|method| Series {
        name: (*method).to_owned(),
        y: levels.iter().map(|level| value(method, *level)).collect(),
    });
    Ok(line(&LineFigure {
        labels: Labels {
            title: format!("Fraction of variance unexplained by L0: {name}"),
            x: "log2 of the L0 that is aimed at".into(),
            y: "FVU".into(),
        },
        x: levels.iter().map(|level| level.log2()).collect(),
        series: series.collect(),
        size: Size { width: 760, height: 420 },
        ..LineFigure::default()
    })?)
}
