//! `cargo xtask gate`: everything a change must pass, in one command.
//!
//! All steps run even when an early one fails, so that one run shows all there is to mend.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::shell::{cache, check, command};
use crate::{doc_commands, tidy};

/// The one reason that excuses a test where data and model are present.
const ALWAYS_EXCUSED: &str = "no GPU";

/// Runs every step; an error names those that failed.
pub(crate) fn run() -> Result<()> {
    let log = tempfile::NamedTempFile::new()?;
    let mut failed = Vec::new();
    let mut step = |name: &'static str, result: Result<()>| {
        if let Err(error) = result {
            eprintln!("gate: {name}: {error:#}");
            failed.push(name);
        }
    };
    step("fmt", check(&mut command("cargo", &["fmt", "--all", "--check"])));
    step("clippy", check(&mut command("cargo", &["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"])));
    let mut n_tests = 0;
    step("tests", tests(log.path()).map(|n| n_tests = n));
    let mut doc = command("cargo", &["doc", "--workspace", "--no-deps", "--quiet"]);
    step("doc", check(doc.env("RUSTDOCFLAGS", "-D warnings")));
    step("documents", doc_commands::run());
    step("tidy", tidy::run());
    step("not run", report_not_run(n_tests, &std::fs::read_to_string(log.path())?));
    if !failed.is_empty() {
        bail!("gate: failed: {}", failed.join(", "));
    }
    println!("gate: passed");
    Ok(())
}

/// Runs the tests with their output shown, and returns how many there were.
fn tests(log: &Path) -> Result<usize> {
    let mut nextest = command("cargo", &["nextest", "run", "--workspace", "--no-fail-fast"]);
    nextest.env("EXEGETE_NOT_RUN_LOG", log).stderr(Stdio::piped());
    let mut child = nextest.spawn().context("cannot start cargo nextest (cargo install cargo-nextest)")?;
    let mut n_tests = None;
    for line in BufReader::new(child.stderr.take().context("nextest has no stderr")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        n_tests = n_tests.or(tests_run(&line));
        eprintln!("{line}");
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo nextest failed ({status})");
    }
    n_tests.context("cargo nextest printed no summary")
}

/// The count in nextest's closing line: `Summary [ 1.0s] 7 tests run: ...`, or `3/7 tests run` after a stop.
fn tests_run(line: &str) -> Option<usize> {
    let (_, rest) = line.trim_start().strip_prefix("Summary [")?.split_once(']')?;
    rest.trim_start().split([' ', '/']).next()?.parse().ok()
}

/// Prints how many tests ran and why others did not; an error where all they need is here.
fn report_not_run(n_tests: usize, log: &str) -> Result<()> {
    let mut reasons: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in log.lines() {
        let entry: Value = serde_json::from_str(line).with_context(|| format!("in the not-run log: {line}"))?;
        let text = |key: &str| entry[key].as_str().unwrap_or("?").to_owned();
        reasons.entry(text("reason")).or_default().push(text("test"));
    }
    let n_not_run: usize = reasons.values().map(Vec::len).sum();
    println!("ran {}, not run {n_not_run}", n_tests.saturating_sub(n_not_run));
    for (reason, tests) in &reasons {
        println!("  {reason}: {}", tests.join(", "));
    }
    let complete =
        std::env::var_os("EXEGETE_DATA").is_some() && cache()?.join("models/SmolLM2-135M-Instruct.Q4_1.gguf").is_file();
    let unexcused = reasons.keys().filter(|reason| !reason.starts_with(ALWAYS_EXCUSED)).count();
    if complete && unexcused > 0 {
        bail!("data and model are here, so only {ALWAYS_EXCUSED:?} excuses a test");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::tests_run;

    #[test]
    fn the_summary_is_read() {
        assert_eq!(tests_run("     Summary [   0.193s] 7 tests run: 7 passed, 0 skipped"), Some(7));
        assert_eq!(tests_run("     Summary [   0.193s] 3/7 tests run: 2 passed, 1 failed"), Some(3));
        assert_eq!(tests_run("        PASS [   0.085s] (7/7) it"), None);
    }
}
