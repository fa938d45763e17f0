//! `cargo xtask fuzz`: runs the targets of `fuzz/` from their seeds, and says how far they got.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use anyhow::{Context, Result, bail};

use crate::shell::{command, root, show};

/// Seconds of a target where none are given, by how its name begins: a container is read by many layouts.
const DEFAULTS: [(&str, u32); 2] = [("container_", 1200), ("layout_", 300)];
const OTHERS: u32 = 60;

fn default_secs(target: &str) -> u32 {
    DEFAULTS.iter().find(|(start, _)| target.starts_with(start)).map_or(OTHERS, |(_, secs)| *secs)
}

/// Runs one target, all whose names begin so, or all, with what earlier runs found in `fuzz/corpus/`; each for `secs`
/// seconds, or for its own time.
pub(crate) fn run(target: Option<&str>, secs: Option<u32>, sanitizer: &str) -> Result<()> {
    let all = targets()?;
    let is_chosen = |name: &str| match target {
        Some(target) if all.iter().any(|one| one == target) => name == target,
        Some(start) => name.starts_with(start),
        None => true,
    };
    let chosen: Vec<&String> = all.iter().filter(|name| is_chosen(name)).collect();
    if chosen.is_empty() {
        bail!("there is no target {:?}; there are {}", target.unwrap_or_default(), all.join(", "));
    }
    let mut rows = Vec::new();
    let mut failed = Vec::new();
    for name in chosen {
        let secs = secs.unwrap_or_else(|| default_secs(name));
        let (progress, ok) = run_one(name, secs, sanitizer)?;
        rows.push(format!(
            "{name:30} {secs:>6} {:>10} {:>8} {:>8} {:>12}{}",
            progress.executions,
            progress.edges,
            progress.features,
            progress.corpus,
            if ok { "" } else { "  stopped: see fuzz/artifacts/" }
        ));
        if !ok {
            failed.push(name.as_str());
        }
    }
    let [target, secs, executions, edges, features, corpus] =
        ["target", "secs", "executions", "edges", "features", "corpus"];
    println!("{target:30} {secs:>6} {executions:>10} {edges:>8} {features:>8} {corpus:>12}");
    rows.iter().for_each(|row| println!("{row}"));
    if !failed.is_empty() {
        bail!("fuzz: an input was found that stops {}", failed.join(", "));
    }
    Ok(())
}

/// The targets, by their files.
fn targets() -> Result<Vec<String>> {
    let dir = root().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|stem| stem.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn run_one(name: &str, secs: u32, sanitizer: &str) -> Result<(Progress, bool)> {
    let folder = |kind: &str| root().join("fuzz").join(kind);
    let (corpus, made) = (folder("corpus").join(name), folder("corpus").join(format!("{name}-seeds")));
    let kept = folder("seeds").join(name);
    let mut cargo = command("cargo", &["fuzz", "run", "-s", sanitizer, name]);
    for dir in [&corpus, &made] {
        std::fs::create_dir_all(dir)?;
        cargo.arg(dir);
    }
    if kept.is_dir() {
        cargo.arg(kept);
    }
    // Inputs are kilobytes; what takes ten seconds hangs; a model of a golden needs far less than 3 GB.
    cargo.args(["--", "-timeout=10", "-rss_limit_mb=3000", "-max_len=65536", "-len_control=0", "-reload=0"]);
    cargo.arg(format!("-max_total_time={secs}"));
    // Coverage needs flags that a stable compiler takes only from those who ask for it by name. The target itself
    // writes the seeds that it makes from the goldens.
    cargo.env("RUSTC_BOOTSTRAP", "1").env("EXEGETE_FUZZ_SEEDS", &made).stderr(Stdio::piped());
    let shown = show(&cargo);
    let mut child = cargo.spawn().with_context(|| format!("cannot start `{shown}`"))?;
    let mut progress = None;
    for line in BufReader::new(child.stderr.take().context("cargo has no stderr")?).split(b'\n') {
        let line = String::from_utf8_lossy(&line?).into_owned();
        progress = Progress::of(&line).or(progress);
        eprintln!("{line}");
    }
    let status = child.wait()?;
    match progress {
        Some(progress) => Ok((progress, status.success())),
        None => bail!("`{shown}` failed ({status}) before it began; is cargo-fuzz there (cargo install cargo-fuzz)?"),
    }
}

/// How far a run has got.
#[derive(Debug, PartialEq)]
struct Progress {
    executions: u64,
    edges: u64,
    features: u64,
    /// Inputs and their size.
    corpus: String,
}

impl Progress {
    /// From a line of libFuzzer: `#6267 DONE cov: 8159 ft: 21754 corp: 766/3189Kb lim: 65536 exec/s: 241 rss: 512Mb`.
    fn of(line: &str) -> Option<Self> {
        let executions = line.strip_prefix('#')?.split_whitespace().next()?.parse().ok()?;
        let words: Vec<&str> = line.split_whitespace().collect();
        let behind = |key: &str| words.iter().position(|w| *w == key).and_then(|i| words.get(i + 1).copied());
        Some(Self {
            executions,
            edges: behind("cov:")?.parse().ok()?,
            features: behind("ft:")?.parse().ok()?,
            corpus: behind("corp:")?.into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_a_run_are_read() {
        let line = "#6267\tDONE   cov: 8159 ft: 21754 corp: 766/3189Kb lim: 65536 exec/s: 241 rss: 512Mb";
        let progress = Progress::of(line).unwrap();
        assert_eq!((progress.executions, progress.edges, progress.features), (6267, 8159, 21754));
        assert_eq!(progress.corpus, "766/3189Kb");
        assert_eq!(Progress::of("INFO: Seed: 12"), None);
        assert_eq!(Progress::of("#2\tINITED exec/s: 0 rss: 102Mb"), None);
    }

    #[test]
    fn every_target_is_found() {
        let all = targets().unwrap();
        assert!(all.contains(&"gguf".to_owned()) && all.contains(&"config_json".to_owned()), "{all:?}");
        let of = |secs: u32| all.iter().filter(|name| default_secs(name) == secs).count();
        assert_eq!((of(1200), of(300)), (3, 14), "{all:?}");
    }
}
