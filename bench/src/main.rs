//! Benchmarks against peers: `exegete-bench NAME [--json] [--only ROW] [--rounds N] [--quick]`.
//!
//! Both sides of a row are processes of their own that answer the same lines ([`side`]), so that they take turns
//! within one run and each one's peak memory is its own. Ours is this program again, as `exegete-bench worker`.
//! `penalties DIR`, `scales DIR` and `planted` are studies and no benchmarks ([`penalties`], [`scales`], [`planted`]).
//! `reference` compares what dictionaries become instead ([`mod@reference`]), `explain` what scores cost ([`mod@explain`]).
//! Which rows there are, and what each is held to, stands in one table ([`rows`]); `bench/README.md` explains a row.

mod compare;
mod explain;
mod held_out;
mod machine;
mod penalties;
mod planted;
mod reference;
mod resident;
mod rows;
mod run;
mod scales;
mod side;
mod truth;
mod worker;

use std::io::Write;

use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};

/// What was asked for.
pub(crate) struct Options {
    json: bool,
    quick: bool,
    only: Option<String>,
    rounds: Option<usize>,
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [first, rest @ ..] = args.as_slice()
        && first == "worker"
    {
        return worker::serve(rest);
    }
    if let [first, dir, only @ ..] = args.as_slice()
        && first == "penalties"
    {
        return penalties::study(std::path::Path::new(dir), only.first().map(String::as_str));
    }
    if let [first, dir] = args.as_slice()
        && first == "scales"
    {
        return scales::study(std::path::Path::new(dir));
    }
    if let [first, n @ ..] = args.as_slice()
        && first == "planted"
    {
        return planted::study(n.first().map(|n| n.parse()).transpose()?);
    }
    let mut names = Vec::new();
    let mut options = Options { json: false, quick: false, only: None, rounds: None };
    let mut args = args.into_iter();
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--json" => options.json = true,
            "--quick" => options.quick = true,
            "--only" => options.only = Some(args.next().context("--only needs the beginning of a row's name")?),
            "--rounds" => options.rounds = Some(args.next().context("--rounds needs a number")?.parse()?),
            _ => names.push(arg),
        }
    }
    let [name] = names.as_slice() else { bail!("expected one benchmark, got {names:?}") };
    if name == "explain" {
        return explain::bench(&options);
    }
    if name == "reference" {
        return reference::bench(&options);
    }
    run::bench(name, &options)
}

/// Writes a finished row on standard output: as JSON, or as aligned cells.
pub(crate) fn print(row: &Map<String, Value>, json: bool) -> Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", Value::from(row.clone()))?;
    } else {
        let cell = |(key, value): (&String, &Value)| match value {
            Value::String(text) if key == "row" => format!("{text:<24}"),
            Value::String(text) => format!("{key} {text}"),
            Value::Number(n) if n.is_f64() => format!("{key} {:.4}", n.as_f64().unwrap_or(f64::NAN)),
            other => format!("{key} {other}"),
        };
        writeln!(out, "{}", row.iter().map(cell).collect::<Vec<_>>().join("  "))?;
    }
    Ok(out.flush()?)
}

/// Says on standard error how far the run has come.
pub(crate) fn progress(line: std::fmt::Arguments) {
    // Losing a progress line is no reason to lose the run.
    let _ = writeln!(std::io::stderr(), "{line}");
}
