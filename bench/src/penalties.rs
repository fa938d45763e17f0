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

use crate::progress;

/// How far off its level the L0 of a dictionary may be.
const NEAR: f64 = 0.05;
/// Numbers of a dictionary that are compared, by their names in what `sae eval` tells.
const NUMBERS: [(&str, &str); 3] = [("fvu", "FVU"), ("l0", "L0"), ("ce_recovered", "CE recovered")];

/// A model with the text that dictionaries are trained on, that they are measured on, and what latents are asked.
struct Place {
    name: &'static str,
    grid: &'static str,
    model: String,
    train: Vec<String>,
    tokens: u64,
    eval: Vec<String>,
    probes: Vec<(&'static str, String)>,
}

/// A dictionary of the study.
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
    let data = std::env::var_os("EXEGETE_DATA").map(PathBuf::from);
    let text = |names: &[&str]| -> Option<Vec<String>> {
        names.iter().map(|name| Some(data.as_ref()?.join(name).display().to_string())).collect::<Option<_>>()
    };
    let organism = "builtin:organism".to_owned();
    let mut places = vec![Place {
        name: "organism",
        grid: include_str!("../studies/penalties_organism.toml"),
        model: organism.clone(),
        train: vec![organism.clone()],
        tokens: 250_000,
        eval: vec![organism.clone()],
        probes: vec![("truth", organism)],
    }];
    if let (Ok(model), Some(train), Some(eval), Some(probes)) = (
        crate::run::model(),
        text(&["corpora/us_speeches/state_union.jsonl", "corpora/movie_reviews/movie_reviews.jsonl"]),
        text(&["corpora/wikitext2/valid.txt"]),
        text(&["corpora/masc_pos/masc_pos.jsonl"]),
    ) {
        places.push(Place {
            name: "smollm2",
            grid: include_str!("../studies/penalties_smollm2.toml"),
            model: model.display().to_string(),
            train,
            tokens: 1_115_000,
            eval,
            probes: vec![("parts of speech", probes[0].clone())],
        });
    }
    let mut rows = Vec::new();
    for place in places.iter().filter(|place| only.is_none_or(|only| place.name == only)) {
        let found = place.rows(&dir.join(place.name))?;
        std::fs::write(dir.join(format!("penalties_{}.svg", place.name)), figure(place.name, &found)?)?;
        rows.extend(found);
    }
    std::fs::write(dir.join("penalties.json"), serde_json::to_vec_pretty(&rows)?)?;
    tell(&rows)
}

impl Place {
    /// Trains the grid and measures each dictionary of it.
    fn rows(&self, dir: &Path) -> Result<Vec<Row>> {
        std::fs::create_dir_all(dir)?;
        let grid = dir.join("grid.toml");
        std::fs::write(&grid, self.grid)?;
        let run = dir.join("run");
        let mut train = self.program(&["sae", "train", &self.model]);
        train.args(["--max-tokens", &self.tokens.to_string()]).arg("--grid").arg(&grid).arg("--out").arg(&run);
        train.arg("--text").args(&self.train);
        ensure!(train.status()?.success(), "the training of {} failed", self.name);
        let mut names: Vec<String> = Vec::new();
        for entry in std::fs::read_dir(run.join("sae"))? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        names.iter().map(|name| self.row(name, &run, dir)).collect()
    }

    /// Measures a dictionary, unless that is done.
    fn row(&self, name: &str, run: &Path, dir: &Path) -> Result<Row> {
        let kept = dir.join("eval").join(format!("{name}.json"));
        if !kept.exists() {
            progress(format_args!("{}: {name}", self.name));
            let sae = run.join("sae").join(name).display().to_string();
            let mut eval = self.program(&["sae", "eval", &sae, "--model", &self.model, "--json", "--probe-k", "1,5"]);
            eval.args(["--probe-labels", "24", "--probe-examples", "4000"]).arg("--text").args(&self.eval);
            for (_, probe) in &self.probes {
                eval.args(["--probe", probe]);
            }
            let output = eval.output()?;
            ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
            std::fs::create_dir_all(dir.join("eval"))?;
            // Whole or not at all: what is there is not measured again.
            let beside = kept.with_extension("part");
            std::fs::write(&beside, output.stdout)?;
            std::fs::rename(&beside, &kept)?;
        }
        let told: Value = serde_json::from_slice(&std::fs::read(&kept)?).with_context(|| kept.display().to_string())?;
        let found = &told["dictionaries"][0];
        let mut numbers = BTreeMap::new();
        for (key, called) in NUMBERS {
            let all = found["measured"]["numbers"].as_array().context("nothing was measured")?;
            let number = all.iter().find(|number| number["name"] == called).context("a number is missing")?;
            numbers.insert(key.to_owned(), number["value"].as_f64().unwrap_or(f64::NAN));
        }
        for ((called, _), task) in self.probes.iter().zip(found["tasks"].as_array().into_iter().flatten()) {
            for mean in task["means"].as_array().into_iter().flatten() {
                let (Some(k), Some(false)) = (mean["k"].as_u64(), mean["is_shuffled"].as_bool()) else { continue };
                numbers.insert(format!("{called} F1, k = {k}"), mean["f1"]["value"].as_f64().unwrap_or(f64::NAN));
            }
        }
        let mut parts = name.split('-').collect::<Vec<_>>();
        let mut take = |key: &str| -> Result<String> {
            let at =
                parts.iter().position(|part| part.starts_with(key)).with_context(|| format!("{name}: no {key}"))?;
            Ok(parts.remove(at)[key.len()..].to_owned())
        };
        let seed = take("seed=")?.parse()?;
        let level = take("target_l0=").or_else(|_| take("k="))?.parse()?;
        Ok(Row { model: self.name, method: parts.join("-"), level, seed, numbers })
    }

    /// The program beside this one.
    fn program(&self, args: &[&str]) -> Command {
        let beside = std::env::current_exe().ok().and_then(|path| Some(path.parent()?.join("exegete")));
        let mut command = Command::new(beside.unwrap_or_else(|| "exegete".into()));
        command.args(args);
        command
    }
}

/// Means over seeds, in the order of models, levels and methods.
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
    all.sort_by(|a, b| a.0.cmp(b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(b.2)));
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
        let off = |row: &&&Row| (row.numbers["l0"] / row.level - 1.0).abs() > NEAR;
        let mark = if seeds.iter().any(|row| off(&row)) { " (off its level)" } else { "" };
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
        mean(&own, "fvu").map_or(f64::NAN, |e| e.value)
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
        size: Size { width: 640, height: 400 },
        ..LineFigure::default()
    })?)
}
