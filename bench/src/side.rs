//! One side of a comparison: a process that runs its case once for each line `run`.
//!
//! The lines are those of `bench/peer.py`: `ready JSON` first, then `run` -> seconds, `peak` -> KiB,
//! `result PATH` -> an empty line once the file is written; ours also `memory` -> JSON. It ends when its input does.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Threads of both sides.
pub(crate) const THREADS: usize = 2;

/// Resident memory of a process, in MiB.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Memory {
    /// All.
    pub(crate) total: f64,
    /// Its own.
    pub(crate) anonymous: f64,
    /// Pages of mapped files.
    pub(crate) mapped: f64,
}

/// A running side.
pub(crate) struct Side {
    /// What it is, for the row.
    pub(crate) name: String,
    /// What it said about its case.
    pub(crate) ready: Value,
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Side {
    /// Starts a side and waits until it is ready.
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        command.env("RAYON_NUM_THREADS", THREADS.to_string()).env("OMP_NUM_THREADS", THREADS.to_string());
        command.env("TQDM_DISABLE", "1").env("HF_HUB_OFFLINE", "1");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().context("no standard output")?);
        let mut side = Self { name: name.into(), ready: Value::Null, child, input, output };
        let line = side.read()?;
        let text = line.strip_prefix("ready ").with_context(|| format!("{name} said {line:?}, not ready"))?;
        side.ready = serde_json::from_str(text)?;
        if let Some(program) = side.ready["peer"].as_str() {
            side.name = format!("{program} {name}");
        }
        Ok(side)
    }

    /// Runs the case once; its seconds.
    pub(crate) fn run(&mut self) -> Result<f64> {
        Ok(self.ask("run")?.parse()?)
    }

    /// Peak resident memory since it was ready, in MiB.
    pub(crate) fn peak_mib(&mut self) -> Result<f64> {
        Ok(self.ask("peak")?.parse::<f64>()? / 1024.0)
    }

    /// Resident memory now.
    pub(crate) fn memory(&mut self) -> Result<Memory> {
        Ok(serde_json::from_str(&self.ask("memory")?)?)
    }

    /// The values that its last run computed.
    pub(crate) fn result(&mut self, folder: &Path) -> Result<Vec<f32>> {
        let path = folder.join("result.f32");
        self.ask(&format!("result {}", path.display()))?;
        let bytes = std::fs::read(&path)?;
        Ok(bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect())
    }

    fn ask(&mut self, line: &str) -> Result<String> {
        let input = self.input.as_mut().context("the input is closed")?;
        writeln!(input, "{line}")?;
        input.flush()?;
        self.read()
    }

    fn read(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            bail!("{} ended ({})", self.name, self.child.wait()?);
        }
        Ok(line.trim_end().into())
    }
}

impl Drop for Side {
    fn drop(&mut self) {
        // Closing the input is how a side is told to end.
        self.input.take();
        let _ = self.child.wait();
    }
}
