//! How the training of a run's dictionaries stands, read afresh from its manifest and its logs.

use std::path::{Component, Path};
use std::time::SystemTime;

use exegete_store::{DensityRow, Run, StepLog, StoreError, read_density, read_steps};
use serde::Deserialize;
use serde_json::Value;

use crate::curves::Stretches;
use crate::summary::{estimate_of, model_name};
use crate::wire::{Density, DensityBin, LoggedStep, Progress, TrainedDictionary, TrainingResult, TrainingView};
use crate::{Result, WebError};

/// Where dictionaries lie in a run.
const DIR: &str = "sae";
/// Name of a run's only dictionary's stage; those of a grid's are behind it.
const STAGE: &str = "train";
/// Dictionaries whose curves are drawn together.
pub(crate) const DRAWN: usize = 12;
/// Dictionaries that are listed together.
const LISTED: usize = 8 * DRAWN;
/// Seconds without a word after which a training counts as quiet. It writes every 20 to 60.
const QUIET_SECS: u64 = 90;

/// What is asked of a training, as it stands in the address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct TrainingQuery {
    /// The first dictionary that is drawn. Text, so that what is mistyped is the first and no error.
    pub(crate) from: String,
    /// The only one that is; empty for all.
    pub(crate) only: String,
}

/// Whether a run's dictionaries are trained in it, or were.
pub(crate) fn is_there(run: &Run) -> bool {
    !paths(run).is_empty()
}

/// How a training stands.
///
/// # Errors
/// [`WebError::Absent`] where the only dictionary asked for is not in the run.
pub(crate) fn view(run: &Run, query: &TrainingQuery) -> Result<TrainingView> {
    let paths = paths(run);
    if paths.is_empty() {
        return Err(WebError::Absent("No dictionary is trained in this run.".into()));
    }
    let is_only = !query.only.is_empty();
    let at = match is_only {
        true => {
            let absent = || WebError::Absent(format!("There is no dictionary {:?} in this run.", query.only));
            paths.iter().position(|path| name_of(path) == query.only).ok_or_else(absent)?
        }
        false => query.from.parse().unwrap_or(0).min(paths.len().saturating_sub(1)),
    };
    let (listed, drawn) = match is_only {
        true => (at..at + 1, at..at + 1),
        false => {
            let part = |len: usize| at - at % len..(at - at % len + len).min(paths.len());
            (part(LISTED), part(DRAWN))
        }
    };
    let mut dictionaries: Vec<(TrainedDictionary, Option<StepLog>)> =
        paths[listed.clone()].iter().map(|path| dictionary(run, path)).collect();
    let drawn = drawn.start - listed.start..drawn.end - listed.start;
    let logs = dictionaries[drawn.clone()].iter().filter_map(|(_, log)| Some(&log.as_ref()?.rows[..]));
    let stretches = Stretches::over(logs);
    for (dictionary, log) in &mut dictionaries[drawn.clone()] {
        dictionary.curves = log.as_ref().map(|log| stretches.means(&log.rows));
        match read_there(run, &format!("{}/density.parquet", dictionary.path), read_density) {
            Ok(rows) => dictionary.density = rows.and_then(|rows| last_stretch(&rows)),
            Err(error) => dictionary.problem = dictionary.problem.take().or(Some(error.to_string())),
        }
    }
    let has_steps = dictionaries.iter().any(|(dictionary, _)| dictionary.step.is_some());
    let finished = paths.iter().filter(|path| run.stage(&stage_of(path)).is_some()).count();
    let since = run.changed().and_then(|at| Some(SystemTime::now().duration_since(at).ok()?.as_secs()));
    Ok(TrainingView {
        model: model_name(run),
        progress: match since.is_none_or(|secs| secs < QUIET_SECS) {
            _ if finished == paths.len() && finished > 0 => Progress::Finished,
            true if has_steps => Progress::Running,
            true => Progress::Waiting,
            false => Progress::Quiet,
        },
        written_secs_ago: since,
        activation_parts: run.parts_under("cache/").len(),
        total: paths.len(),
        finished,
        first: listed.start,
        dictionaries: dictionaries.into_iter().map(|(dictionary, _)| dictionary).collect(),
        drawn,
        steps: stretches.middles(),
        steps_a_point: stretches.each,
    })
}

/// Where the run's dictionaries lie, in the order of their settings. What its stages and its files tell of counts too: not
/// every run that trains says so in its settings.
fn paths(run: &Run) -> Vec<String> {
    let manifest = run.manifest();
    let mut paths: Vec<String> = Vec::new();
    if let Some(Value::Object(of)) = manifest.settings.get("dictionaries") {
        paths.extend(of.keys().cloned());
    } else if manifest.settings.get("train").is_some_and(Value::is_object) {
        paths.push(DIR.into());
    }
    let staged =
        manifest.stages.keys().filter_map(|stage| stage.strip_prefix(STAGE)).map(|name| format!("{DIR}{name}"));
    let logged = manifest.parts.keys().filter_map(|rel| rel.strip_suffix("/steps.parquet")).map(str::to_owned);
    for path in staged.chain(logged) {
        if !paths.contains(&path) {
            paths.push(path);
        }
    }
    // A manifest is no reason to read outside of the run.
    let in_dir = |path: &str| path.strip_prefix(DIR)?.strip_prefix('/').map(is_plain);
    paths.retain(|path| path == DIR || in_dir(path) == Some(true));
    paths
}

/// Whether a name is that of a file beside others.
fn is_plain(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn stage_of(path: &str) -> String {
    path.replacen(DIR, STAGE, 1)
}

/// What is known of a dictionary, and its log.
fn dictionary(run: &Run, path: &str) -> (TrainedDictionary, Option<StepLog>) {
    let settings = &run.manifest().settings;
    let own = settings.get("dictionaries").and_then(|of| of.get(path));
    let train = own.unwrap_or(settings).get("train");
    let sites = |key: &str| own.and_then(|own| own.get("sites")?.get(key)?.as_array()).map_or(0, Vec::len);
    let shape = match (sites("reads"), sites("writes")) {
        (0 | 1, 0) => "",
        (0 | 1, _) => "transcoder",
        (_, 0) => "crosscoder",
        _ => "cross-layer transcoder",
    };
    let layers = if shape.starts_with("cross-layer") { sites("reads") as u64 } else { 1 };
    let summary = run.stage(&stage_of(path));
    let of_summary = |key: &str| summary.and_then(|summary| summary.get(key));
    let activation = train.and_then(|train| train.get("activation")).or_else(|| of_summary("kind"));
    let each = train.and_then(|train| train.get("latents")?.as_u64()).map(|n| n.saturating_mul(layers));
    let (log, problem) = match read_there(run, &format!("{path}/steps.parquet"), read_steps) {
        Ok(log) => (log, None),
        Err(error) => (None, Some(error.to_string())),
    };
    let log = log.map(|mut log| {
        log.rows.sort_by_key(|row| row.step);
        log
    });
    let last = log.as_ref().and_then(|log| log.rows.last());
    // A checkpoint counts its steps, of which the last are not logged.
    let saved = run.manifest().parts.get(&format!("{path}/checkpoint.bin")).map(|part| part.rows);
    let planned = of_summary("steps").and_then(Value::as_u64).or(log.as_ref().map(|log| log.planned));
    let dictionary = TrainedDictionary {
        name: name_of(path).into(),
        path: path.into(),
        kind: format!("{} {shape}", activation.and_then(Value::as_str).unwrap_or_default()).trim().into(),
        latents: of_summary("n_latents").and_then(Value::as_u64).or(each),
        step: if summary.is_some() { planned } else { saved.max(last.map(|row| row.step.saturating_add(1))) },
        planned,
        last: last.map(|r| LoggedStep { step: r.step, loss: r.loss, fvu: r.fvu, l0: r.l0, dead: r.dead }),
        result: summary.map(|summary| TrainingResult {
            fvu: summary.get("fvu").and_then(estimate_of),
            l0: summary.get("l0").and_then(Value::as_f64),
            silent: summary.get("silent").and_then(Value::as_u64),
            measured_on: summary.get("fvu_measured_on").and_then(Value::as_str).unwrap_or("held-out documents").into(),
        }),
        problem,
        ..TrainedDictionary::default()
    };
    (dictionary, log)
}

/// Reads a file of the run; `None` where it was not written yet. One that was and is gone is an error.
fn read_there<T>(
    run: &Run,
    rel: &str,
    read: impl FnOnce(&Path) -> exegete_store::Result<T>,
) -> exegete_store::Result<Option<T>> {
    match read(&run.path(rel)) {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::Io { source, .. })
            if source.kind() == std::io::ErrorKind::NotFound && !run.manifest().parts.contains_key(rel) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The histogram of the last stretch of steps.
fn last_stretch(rows: &[DensityRow]) -> Option<Density> {
    let last = rows.last()?;
    let of: Vec<&DensityRow> = rows.iter().filter(|row| row.step == last.step).collect();
    let (silent, bins): (Vec<&DensityRow>, Vec<&DensityRow>) = of.into_iter().partition(|row| row.high == 0.0);
    let bin = |row: &DensityRow| DensityBin { low: row.low, high: row.high, latents: row.latents };
    Some(Density {
        step: last.step,
        tokens: last.tokens,
        silent: silent.iter().map(|row| row.latents).fold(0, u64::saturating_add),
        bins: bins.into_iter().map(bin).collect(),
    })
}
