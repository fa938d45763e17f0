//! The row of resident memory: what a model that stays in its file takes, against the size of the file.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::compare::{finish, quantile};
use crate::progress;
use crate::rows::Row;
use crate::side::{Memory, Side};

/// Starts a fresh process each round: memory before loading, after it, and after one run of a small batch.
pub(crate) fn row(
    row: &Row,
    rounds: usize,
    model: &Path,
    start: impl Fn() -> Result<Side>,
) -> Result<Map<String, Value>> {
    let file = std::fs::metadata(model)?.len() as f64 / (1 << 20) as f64;
    let (mut before, mut loaded, mut ran) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut side = start()?;
        before.push(serde_json::from_value::<Memory>(side.ready["before"].clone())?);
        loaded.push(side.memory()?);
        side.run()?;
        ran.push(side.memory()?);
        progress(format_args!("{}: round {round}: {:.1} MiB for a file of {file:.1} MiB", row.name, ran[round].total));
    }
    let median = |all: &[Memory], part: fn(&Memory) -> f64| quantile(&all.iter().map(part).collect::<Vec<_>>(), 0.5);
    let total = median(&ran, |m| m.total);
    let ratios: Vec<f64> = ran.iter().map(|m| file / m.total).collect();
    let value = json!({
        "row": row.name,
        "peer": "file size",
        "ours": total,
        "theirs": file,
        "unit": "MiB",
        "ratio": quantile(&ratios, 0.5),
        "ratio_q1": quantile(&ratios, 0.25),
        "ratio_q3": quantile(&ratios, 0.75),
        "n": rounds,
        "resident_over_file": total / file,
        "mib_before_loading": median(&before, |m| m.total),
        "mib_loaded": median(&loaded, |m| m.total),
        // What is the process's own, and what are pages of mapped files (the model's, the program's).
        "mib_anonymous_loaded": median(&loaded, |m| m.anonymous),
        "mib_anonymous": median(&ran, |m| m.anonymous),
        "mib_mapped": median(&ran, |m| m.mapped),
    });
    Ok(finish(row, value.as_object().cloned().context("a row is an object")?))
}
