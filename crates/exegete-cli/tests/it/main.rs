//! Tests of the command, run as a user runs it.
mod bad_input;
mod crash;
mod generate;
mod harvest;
// The hub of the hub's own tests; what it can do wrong is for those.
#[allow(dead_code)]
#[path = "../../../exegete-hub/tests/it/server.rs"]
mod hub_server;
mod interop;
mod lab_bimt;
mod lab_organism;
mod lab_superposition;
mod model;
mod sae;
mod sae_eval;
mod sae_releases;
mod sae_train;
mod serve;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The program.
fn exegete() -> Command {
    Command::new(env!("CARGO_BIN_EXE_exegete"))
}

/// stories260K, if the data pack is here.
fn stories() -> Option<PathBuf> {
    exegete_testkit::data_dir().map(|dir| dir.join("models/stories260K/stories260K.bin"))
}

const NO_DATA: &str = "EXEGETE_DATA is not set: stories260K is not here";

/// A tour small enough for a test.
fn small_tour(model: &Path, text: &Path, out: &Path) -> Command {
    let mut command = exegete();
    command.args(["tour", "--no-serve", "--model"]).arg(model).arg("--text").arg(text).arg("--out").arg(out);
    let flags = "--max-tokens 12000 --window 48 --record-bytes 1500 --latents 256 --k 8 --batch 64 --epochs 2 \
        --checkpoint-steps 15 --aux-weight 0.03 --dead-after-tokens 2000 --explain 5 --scales 5 --explanation-tokens 4 \
        --insert-layer 1 --abstain-below -1 --threads 2 --seed 5";
    command.args(flags.split_whitespace());
    command
}

/// Standard error as text.
fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
