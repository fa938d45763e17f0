//! `cargo xtask bench NAME`: one interleaved run of ours against the Python peer.
//!
//! The benchmark binary gets `NAME --json`, finds the peer's Python in `EXEGETE_BENCH_PYTHON`, and writes one
//! JSON object per row on standard output; progress goes to standard error. Each row is kept in
//! `bench/history.jsonl` with the commit and the time.

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

use crate::python::environment;
use crate::shell::{check, command, output, release_program, root, show};

/// Runs the benchmark `name`, prints its rows as they come and appends them to the history, unless they are quick ones.
pub(crate) fn run(name: &str, json: bool, quick: bool, only: Option<&str>) -> Result<()> {
    // Makers of dashboards want older libraries than the other peers.
    let (venv, wanted) = match name {
        "harvest" => ("venv-dashboard", "bench/requirements-dashboard.txt"),
        "explain" => ("venv-explain", "bench/requirements-explain.txt"),
        _ => ("venv-bench", "bench/requirements.txt"),
    };
    let python = environment(venv, &root().join(wanted))?;
    // The program itself is measured too, from its start on.
    check(&mut command("cargo", &["build", "--release", "--quiet", "-p", "exegete", "-p", "exegete-bench"]))?;
    // Started as it was built: `cargo run` of one package alone would choose other features of what both share, and
    // build all of it again.
    let mut bench = command(release_program("exegete-bench")?, &[name, "--json"]);
    bench.args(quick.then_some("--quick")).args(only.iter().flat_map(|only| ["--only", only]));
    bench.env("EXEGETE_BENCH_PYTHON", python).stdout(Stdio::piped());
    let shown = show(&bench);
    let mut child = bench.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let rows = child.stdout.take().context("no standard output")?;
    let (mut n_rows, stamp) = (0, stamp(name)?);
    for text in BufReader::new(rows).lines() {
        let text = text.context("the benchmark's rows are not UTF-8")?;
        let row: Map<String, Value> = serde_json::from_str(&text).with_context(|| format!("not a row: {text}"))?;
        println!("{}", if json { text } else { line(&row) });
        n_rows += 1;
        if !quick {
            let mut kept = stamp.clone();
            kept.extend(row);
            let path = root().join("bench/history.jsonl");
            let mut history = OpenOptions::new().create(true).append(true).open(&path)?;
            writeln!(history, "{}", Value::from(kept))?;
        }
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    if n_rows == 0 {
        bail!("`{shown}` printed no rows");
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
