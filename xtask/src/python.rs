//! Python environments with pinned packages, kept in the cache.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::shell::{cache, check, command};

/// The Python of the environment `name`, made or renewed when `requirements` differs from what it was made from.
pub(crate) fn environment(name: &str, requirements: &Path) -> Result<PathBuf> {
    let folder = cache()?.join(name);
    let python = folder.join("bin/python");
    let stamp = folder.join("requirements.txt");
    let wanted = std::fs::read_to_string(requirements).with_context(|| requirements.display().to_string())?;
    if python.exists() && std::fs::read_to_string(&stamp).is_ok_and(|made_from| made_from == wanted) {
        return Ok(python);
    }
    eprintln!("making {} (this fetches PyTorch, some minutes)", folder.display());
    let folder_name = folder.to_string_lossy();
    check(&mut command("python3", &["-m", "venv", "--clear", &folder_name]))
        .context("Python 3 with its venv module is needed (on Debian: apt-get install python3-venv)")?;
    let list = requirements.to_string_lossy();
    check(&mut command(&python, &["-m", "pip", "install", "--quiet", "--requirement", &list]))?;
    install_alone(&python, &requirements.with_extension("no-deps.txt"))?;
    std::fs::write(&stamp, wanted)?;
    Ok(python)
}

/// Installs the packages of a list, where there is one, without what they depend on: it asks for other versions than the pinned
/// ones, or for what cannot be had.
pub(crate) fn install_alone(python: &Path, list: &Path) -> Result<()> {
    if list.is_file() {
        let list = list.to_string_lossy();
        check(&mut command(python, &["-m", "pip", "install", "--quiet", "--no-deps", "--requirement", &list]))?;
    }
    Ok(())
}
