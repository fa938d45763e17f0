//! Runs the rows of a benchmark, in f32 or bf16 on two threads.
//!
//! Peer: `bench/peer.py`, in evaluation and inference mode, on the same GGUF file dequantised.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

use crate::compare::{compare, memory};
use crate::machine::{self, Machine};
use crate::resident;
use crate::rows::{BENCHES, Peer, Row};
use crate::side::Side;
use crate::worker::{write_activations, write_dashboards, write_organism};
use crate::{Options, print, progress};

/// What `exegete_tensor::alloc::keep_freed_memory` sets, said to the C library from outside.
const KEEP_FREED: [(&str, &str); 3] =
    [("MALLOC_MMAP_MAX_", "0"), ("MALLOC_TRIM_THRESHOLD_", "-1"), ("MALLOC_TOP_PAD_", "67108864")];

/// Rounds of `--quick`.
const QUICK: usize = 3;

/// Runs the benchmark `name`: a row of the table, or `allocator`, which compares ours with ours under the allocator's
/// defaults in every row that has a Python peer.
pub(crate) fn bench(name: &str, options: &Options) -> Result<()> {
    let allocator = name == "allocator";
    let mut rows: Vec<&Row> = BENCHES.iter().filter(|b| allocator || b.0 == name).flat_map(|b| b.1).collect();
    if allocator {
        rows.retain(|row| matches!(row.peer, Peer::Python(_)));
    }
    if rows.is_empty() {
        let names: Vec<&str> = BENCHES.iter().map(|b| b.0).chain(["allocator"]).collect();
        bail!("there is no benchmark {name:?}, only {}", names.join(", "));
    }
    rows.retain(|row| options.only.as_ref().is_none_or(|only| row.name.starts_with(only.as_str())));
    let bench = Bench::new(allocator, rows.iter().any(|row| row.bf16))?;
    let mut failed = Vec::new();
    for row in rows {
        let rounds = options.rounds.unwrap_or(if options.quick { QUICK } else { row.rounds });
        // One row that goes wrong should not cost the others their time.
        match bench.row(row, rounds) {
            Ok(done) => {
                print(&done, options.json)?;
                memory(row, &done).map_or(Ok(()), |told| print(&told, options.json))?;
            }
            Err(error) => {
                progress(format_args!("{}: {error:#}", row.name));
                failed.push(row.name);
            }
        }
    }
    ensure!(failed.is_empty(), "no figures for {}", failed.join(", "));
    Ok(())
}

struct Bench {
    model: PathBuf,
    folder: tempfile::TempDir,
    machine: Machine,
    allocator: bool,
}

impl Bench {
    fn new(allocator: bool, bf16: bool) -> Result<Self> {
        Ok(Self { model: model()?, folder: tempfile::tempdir()?, machine: Machine::new(bf16)?, allocator })
    }

    fn row(&self, row: &Row, rounds: usize) -> Result<Map<String, Value>> {
        if row.bf16 && !machine::multiplies_bf16() {
            let value = json!({"row": row.name, "peer": "n/a", "why": "this CPU has no avx512_bf16"});
            return value.as_object().cloned().context("a row is an object");
        }
        if row.name.starts_with("dashboards_") {
            write_dashboards(self.folder.path(), &self.model)?;
        } else if row.name.starts_with("train_organism") {
            write_organism(self.folder.path())?;
        } else if row.name.starts_with("train_") || row.name.starts_with("encode_") {
            write_activations(row.name, self.folder.path())?;
        }
        let start = || Side::start("ours", &mut self.worker(row.name)?);
        if matches!(row.peer, Peer::FileSize) {
            return resident::row(row, rounds, &self.model, start);
        }
        let ours = start()?;
        compare(row, ours, self.candidates(row)?, rounds, &self.machine, self.folder.path())
    }

    fn candidates(&self, row: &Row) -> Result<Vec<Side>> {
        if self.allocator {
            let mut command = self.worker(row.name)?;
            return Ok(vec![Side::start("ours, default malloc", command.arg("--default-malloc"))?]);
        }
        let (variants, mallocs): (&[&str], &[bool]) = match row.peer {
            Peer::Own(case) => return Ok(vec![Side::start(&format!("self: {case}"), &mut self.worker(case)?)?]),
            Peer::FileSize => bail!("the size of a file does not run"),
            Peer::Python(variants) => (variants, &[true, false]),
            Peer::PythonCold(ref variant) => (std::slice::from_ref(variant), &[false]),
        };
        let python = std::env::var_os("EXEGETE_BENCH_PYTHON")
            .context("EXEGETE_BENCH_PYTHON does not name the peer's Python; `cargo xtask bench` sets it up")?;
        let mut candidates = Vec::new();
        for variant in variants {
            for kept in mallocs {
                let mut command = Command::new(&python);
                command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peer.py"));
                command.args([row.name, variant]).args([self.folder.path(), &self.model]);
                command.envs(KEEP_FREED.into_iter().filter(|_| *kept));
                let name = format!("{variant}, {} malloc", if *kept { "same" } else { "default" });
                candidates.push(Side::start(&name, &mut command)?);
            }
        }
        Ok(candidates)
    }

    fn worker(&self, case: &str) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["worker", case]).args([self.folder.path(), &self.model]);
        Ok(command)
    }
}

pub(crate) fn model() -> Result<PathBuf> {
    let home = std::env::var_os("HOME").context("HOME is not set, so there is no place for ~/.cache/exegete")?;
    let path = PathBuf::from(home).join(".cache/exegete/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    ensure!(path.is_file(), "{} is not there: run cargo xtask models", path.display());
    Ok(path)
}
