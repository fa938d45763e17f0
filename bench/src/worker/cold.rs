//! From nothing to the first token: a process of the program each time.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use super::Case;
use crate::side::THREADS;

/// What `bench/peer.py` is given too.
const TEXT: &str = "The capital of France is";

/// `exegete model generate` with one new token, the built program beside this one.
pub(super) struct FirstToken {
    program: PathBuf,
    model: PathBuf,
    ids: Vec<f32>,
}

impl FirstToken {
    pub(super) fn new(model: &Path) -> Result<Self> {
        let program = std::env::current_exe()?.with_file_name(format!("exegete{}", std::env::consts::EXE_SUFFIX));
        ensure!(program.is_file(), "{} is not there: cargo build --release -p exegete", program.display());
        Ok(Self { program, model: model.into(), ids: Vec::new() })
    }
}

impl Case for FirstToken {
    fn run(&mut self) -> Result<f64> {
        let mut command = Command::new(&self.program);
        command.args(["model", "generate"]).arg(&self.model).args(["--prompt", TEXT, "--max-new-tokens", "1"]);
        command.args(["--json", "--threads", &THREADS.to_string()]);
        let start = Instant::now();
        let out = command.output().with_context(|| format!("cannot start {command:?}"))?;
        let secs = start.elapsed().as_secs_f64();
        if !out.status.success() {
            bail!("{command:?} failed: {}", String::from_utf8_lossy(&out.stderr));
        }
        let said: Value = serde_json::from_slice(&out.stdout)?;
        let list = |key: &str| said[key].as_array().with_context(|| format!("no {key} in {said}"));
        let ids = list("prompt_ids")?.iter().chain(list("ids")?);
        self.ids = ids.map(|id| id.as_u64().map(|id| id as f32).context("not an id")).collect::<Result<_>>()?;
        Ok(secs)
    }

    /// The prompt's ids and the new one.
    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(self.ids.clone())
    }
}
