//! `builtin:organism` in place of a path.

use std::path::PathBuf;

use anyhow::{Result, bail};
use exegete_lab::builtin::{NAME, Part, path};

/// Whether something is named that the program carries.
pub(crate) fn is_builtin(name: &str) -> bool {
    name.starts_with("builtin:")
}

/// The directory of a part of what is named.
pub(crate) fn resolve(name: &str, part: Part) -> Result<PathBuf> {
    match name == NAME {
        true => Ok(path(part)?),
        false => bail!("{name} is not built in; {NAME} is"),
    }
}

/// Texts, with those that are built in as directories.
pub(crate) fn texts(names: &[String]) -> Result<Vec<String>> {
    let text = |name: &String| match is_builtin(name) {
        true => Ok(resolve(name, Part::Text)?.to_string_lossy().into_owned()),
        false => Ok(name.clone()),
    };
    names.iter().map(text).collect()
}
