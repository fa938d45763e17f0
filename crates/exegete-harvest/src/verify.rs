//! What a run goes on from, against the checksums of its manifest.

use std::io::ErrorKind;
use std::path::Path;

use exegete_store::attributions::TABLE;
use exegete_store::harvested::LATENTS;
use exegete_store::{Run, StoreError};
use rayon::prelude::*;

use crate::{HarvestError, Result};

/// Checks the parts of a stage, such as `cache`; false where there are none.
///
/// # Errors
/// A part that is missing, or whose content is not what was written.
pub fn parts(run: &Run, stage: &str) -> Result<bool> {
    check(run, &|rel| rel.split_once('/').is_some_and(|(first, _)| first == stage))
}

/// Checks the finished tables of a dictionary, whose parts' names begin with `prefix`.
///
/// # Errors
/// A part that is missing, or whose content is not what was written.
pub fn dictionary(run: &Run, prefix: &str) -> Result<()> {
    let tables = [LATENTS, TABLE, "examples/", "activations/"].map(|t| format!("{prefix}{t}"));
    check(run, &|rel| tables.iter().any(|table| rel.starts_with(table))).map(|_| ())
}

fn check(run: &Run, is_its: &(dyn Fn(&str) -> bool + Sync)) -> Result<bool> {
    let parts: Vec<&String> = run.manifest().parts.keys().filter(|rel| is_its(rel)).collect();
    parts.par_iter().try_for_each(|rel| match run.verify_part(rel) {
        Err(StoreError::Damaged { .. }) => Err(damaged(&run.path(rel), "its content is not what was written")),
        Err(StoreError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            Err(damaged(&run.path(rel), "it is missing"))
        }
        other => Ok(other?),
    })?;
    Ok(!parts.is_empty())
}

pub(crate) fn damaged(path: &Path, detail: &str) -> HarvestError {
    HarvestError::Request(format!(
        "{}: {detail}; remove the run or the activations that it is part of, and start again",
        path.display()
    ))
}
