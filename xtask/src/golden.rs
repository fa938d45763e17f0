//! `cargo xtask golden [CASE]`: runs the generators of the goldens in their pinned environment.

use anyhow::{Result, bail};

use crate::python::{environment, install_alone};
use crate::shell::{check, command, root};

/// Runs `refs/CASE/make.py`, or all of them.
pub(crate) fn run(case: Option<&str>) -> Result<()> {
    let known = cases()?;
    let wanted = match case {
        None => known,
        Some(case) if known.iter().any(|name| name == case) => vec![case.to_owned()],
        Some(case) => bail!("there is no refs/{case}/make.py; the cases are {}", known.join(", ")),
    };
    let python = environment("venv-refs", &root().join("refs/requirements.txt"))?;
    for name in wanted {
        install_alone(&python, &root().join(format!("refs/{name}/no-deps.txt")))?;
        check(&mut command(&python, &[&format!("refs/{name}/make.py")]))?;
    }
    Ok(())
}

/// The folders of `refs/` that hold a generator, sorted.
pub(crate) fn cases() -> Result<Vec<String>> {
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(root().join("refs"))? {
        let entry = entry?;
        if entry.path().join("make.py").is_file() {
            cases.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    cases.sort();
    Ok(cases)
}
