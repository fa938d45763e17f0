//! `cargo xtask bench NAME`: one interleaved run of ours against the Python peer.
//!
//! The benchmark binary gets `NAME --json`, finds the peer's Python in `EXEGETE_BENCH_PYTHON`, and writes one
//! JSON object per row on standard output; progress goes to standard error. Each row is kept in
//! `bench/history.jsonl` with the commit and the time.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::python::environment;
use crate::shell::{command, output, root, show};

/// Runs the benchmark `name`, prints its rows and appends them to the history.
pub(crate) fn run(name: &str, json: bool) -> Result<()> {
    let python = environment("venv-bench", &root().join("bench/requirements.txt"))?;
    let mut cargo = command("cargo", &["run", "--release", "--quiet", "-p", "exegete-bench", "--", name, "--json"]);
    cargo.env("EXEGETE_BENCH_PYTHON", python).stderr(std::process::Stdio::inherit());
    let shown = show(&cargo);
    let out = cargo.output().with_context(|| format!("cannot start `{shown}`"))?;
    if !out.status.success() {
        bail!("`{shown}` failed ({})", out.status);
    }
    let text = String::from_utf8(out.stdout).context("the benchmark's rows are not UTF-8")?;
    let rows: Vec<Map<String, Value>> = text
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("not a row: {line}")))
        .collect::<Result<_>>()?;
    if rows.is_empty() {
        bail!("`{shown}` printed no rows");
    }
    let path = root().join("bench/history.jsonl");
    let mut history = OpenOptions::new().create(true).append(true).open(&path)?;
    for row in rows {
        println!("{}", if json { Value::from(row.clone()).to_string() } else { line(&row) });
        let mut kept = stamp(name)?;
        kept.extend(row);
        writeln!(history, "{}", Value::from(kept))?;
    }
    Ok(())
}

/// What every kept row begins with.
fn stamp(name: &str) -> Result<Map<String, Value>> {
    let commit = output(&mut command("git", &["rev-parse", "--short", "HEAD"]))?;
    let changed = !output(&mut command("git", &["status", "--porcelain", "--untracked-files=no"]))?.is_empty();
    let unix_secs = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    Ok(Map::from_iter([
        ("bench".to_owned(), name.into()),
        ("commit".to_owned(), commit.trim().into()),
        ("changed".to_owned(), changed.into()),
        ("unix_secs".to_owned(), unix_secs.into()),
    ]))
}

/// A row for people: its values by name, floats in four digits.
fn line(row: &Map<String, Value>) -> String {
    let cell = |(key, value): (&String, &Value)| match value {
        Value::String(text) => format!("{key}={text}"),
        Value::Number(n) if n.is_f64() => format!("{key}={:.4}", n.as_f64().unwrap_or(f64::NAN)),
        other => format!("{key}={other}"),
    };
    row.iter().map(cell).collect::<Vec<_>>().join("  ")
}
