//! What a run's manifest says, for people.

use std::path::Path;

use exegete_base::stats::Estimate;
use exegete_store::Run;
use serde_json::Value;

/// Directory name of a run.
pub(crate) fn run_name(run: &Run) -> String {
    let dir = std::path::absolute(run.dir()).unwrap_or_else(|_| run.dir().to_owned());
    dir.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy().into_owned())
}

/// The model's name, without the directories it lies in.
pub(crate) fn model_name(run: &Run) -> Option<String> {
    let cached = || run.stage("cache").and_then(|stage| stage.get("model"));
    // The setting first: what is built in is known by its name, and its files by none.
    let model = run.manifest().settings.get("model").or_else(cached).and_then(Value::as_str);
    model.and_then(|m| Path::new(m).file_name()).map(|name| name.to_string_lossy().into_owned())
}

/// A number that a stage's summary holds plainly or as an estimate.
pub(crate) fn estimate_of(value: &Value) -> Option<Estimate> {
    if let Some(value) = value.as_f64() {
        return Some(Estimate { value, low: f64::NAN, high: f64::NAN, n: 0 });
    }
    // JSON has no infinities: an interval without an end is null there.
    let number = |key: &str| value.get(key).map(|v| v.as_f64().unwrap_or(f64::NAN));
    let n = value.get("n").and_then(Value::as_u64).unwrap_or(0);
    Some(Estimate { value: number("value")?, low: number("low")?, high: number("high")?, n })
}
