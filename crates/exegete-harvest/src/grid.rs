//! A grid of dictionaries in a TOML file: several are trained in one pass over the activations.
//!
//! Keys are those of [`TrainSettings`], `seed`, and `preset`. At the top they hold for all; each `[[dictionary]]` has its `name` and
//! its own. A list sweeps a key: one dictionary for each of its values, and for each pair where two keys have lists.

use exegete_base::settings::TrainSettings;
use serde_json::{Map, Value};

use crate::training::Job;
use crate::{HarvestError, Result, presets};

/// Dictionaries that a grid may have.
const MOST: usize = 4096;

/// The jobs of a grid. Whatever it leaves out is as in `base`.
///
/// # Errors
/// Text that is no TOML, keys that are not known, values that do not fit, names that are missing or meet twice.
pub fn jobs(text: &str, base: &TrainSettings, seed: u64) -> Result<Vec<Job>> {
    let fail = |detail: String| HarvestError::Request(format!("grid: {detail}"));
    let mut all: Map<String, Value> = toml::from_str(text).map_err(|e| fail(e.to_string()))?;
    let own = match all.remove("dictionary") {
        Some(Value::Array(own)) if !own.is_empty() => own,
        _ => return Err(fail("there is no [[dictionary]] in it".into())),
    };
    let Value::Object(defaults) = serde_json::to_value(base).map_err(|e| fail(e.to_string()))? else {
        return Err(fail("settings that are no table".into()));
    };
    let mut jobs: Vec<Job> = Vec::new();
    for (i, own) in own.into_iter().enumerate() {
        let Value::Object(mut own) = own else { return Err(fail(format!("dictionary {} of it is no table", i + 1))) };
        let Some(Value::String(name)) = own.remove("name") else {
            return Err(fail(format!("dictionary {} of it has no name: give it one, name = \"...\"", i + 1)));
        };
        let mut settings = all.clone();
        settings.extend(own);
        // A recipe stands below whatever is said beside its name.
        if let Some(preset) = settings.remove("preset") {
            let preset = preset.as_str().ok_or_else(|| fail(format!("dictionary {name:?}: a preset is a name")))?;
            let mut with = presets::named(preset).map_err(|e| fail(format!("dictionary {name:?}: {e}")))?;
            with.extend(settings);
            settings = with;
        }
        let known: Vec<&str> = defaults.keys().map(String::as_str).chain(["seed", "preset"]).collect();
        if let Some(key) = settings.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(fail(format!("dictionary {name:?}: {key:?} is no setting; there are {}", known.join(", "))));
        }
        let is_empty =
            |(key, value): &(&String, &Value)| *key != "prefixes" && value.as_array().is_some_and(Vec::is_empty);
        if let Some((key, _)) = settings.iter().find(is_empty) {
            return Err(fail(format!("dictionary {name:?}: the list of {key:?} is empty")));
        }
        for (name, mut settings) in swept(name, settings) {
            let seed = match settings.remove("seed") {
                None => seed,
                Some(value) => value.as_u64().ok_or_else(|| fail(format!("{name:?}: a seed is a whole number")))?,
            };
            let mut whole = defaults.clone();
            whole.extend(settings);
            let read = |map: &Map<String, Value>| serde_json::from_value::<TrainSettings>(Value::Object(map.clone()));
            let settings = read(&whole).map_err(|e| {
                // The reader does not say which key it was.
                let alone = |(key, value): &(&String, &Value)| {
                    let mut map = defaults.clone();
                    map.insert((*key).clone(), (*value).clone());
                    read(&map).is_err()
                };
                let key = whole.iter().find(alone).map(|(key, _)| format!("key {key:?}: ")).unwrap_or_default();
                fail(format!("dictionary {name:?}: {key}{e}"))
            })?;
            let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.=".contains(c);
            if name.is_empty() || name.starts_with('.') || !name.chars().all(is_plain) {
                return Err(fail(format!("{name:?} is no name for a directory: letters, digits, - _ . = are")));
            }
            if jobs.iter().any(|job| job.name.as_ref() == Some(&name)) {
                return Err(fail(format!("there are two dictionaries {name:?}")));
            }
            jobs.push(Job { name: Some(name), settings, seed });
            if jobs.len() > MOST {
                return Err(fail(format!("more than {MOST} dictionaries")));
            }
        }
    }
    Ok(jobs)
}

/// One table for each combination of the values of keys that have lists; their names say which.
fn swept(name: String, settings: Map<String, Value>) -> Vec<(String, Map<String, Value>)> {
    let mut all = vec![(name, Map::new())];
    for (key, value) in settings {
        let values = match value {
            // The one setting that is a list itself is swept by a list of lists.
            Value::Array(values) if key != "prefixes" || values.iter().all(Value::is_array) && !values.is_empty() => {
                values
            }
            single => {
                all.iter_mut().for_each(|(_, map)| drop(map.insert(key.clone(), single.clone())));
                continue;
            }
        };
        let with = |(name, map): &(String, Map<String, Value>), value: &Value| {
            let mut map = map.clone();
            map.insert(key.clone(), value.clone());
            let said = value.to_string().replace(['"', '[', ']'], "").replace(',', "_");
            (format!("{name}-{key}={said}"), map)
        };
        all = all.iter().flat_map(|one| values.iter().map(|value| with(one, value)).collect::<Vec<_>>()).collect();
        // Far too many are told of by the caller, before they fill the memory.
        all.truncate(MOST + 1);
    }
    all
}

#[cfg(test)]
mod tests {
    use exegete_base::settings::{Activation, Penalty};

    use super::*;

    #[test]
    fn lists_sweep_and_own_keys_go_before_those_of_all() {
        let text = r#"
            latents = 512
            target_l0 = [8, 16]
            [[dictionary]]
            name = "l1"
            activation = "relu"
            seed = [3, 4]
            [[dictionary]]
            name = "nested"
            preset = "batchtopk-2024"
            target_l0 = 0
            latents = 1024
            prefixes = [64, 128]
        "#;
        let base = TrainSettings { epochs: 2, ..TrainSettings::default() };
        let found = jobs(text, &base, 7).unwrap();
        let names: Vec<&str> = found.iter().filter_map(|job| job.name.as_deref()).collect();
        assert_eq!(names[0], "l1-target_l0=8-seed=3");
        assert!(names.len() == 5 && names[4] == "nested", "{names:?}");
        assert!(found.iter().all(|job| job.settings.epochs == 2));
        assert_eq!((found[1].seed, found[1].settings.target_l0, found[1].settings.latents), (4, 8.0, 512));
        assert_eq!(found[1].settings.resolved_penalty(), Penalty::L1);
        let nested = &found[4];
        assert_eq!((nested.settings.beta2, found[0].settings.beta2), (0.99, 0.999));
        assert_eq!((nested.seed, nested.settings.activation), (7, Activation::BatchTopK));
        assert_eq!((nested.settings.latents, &nested.settings.prefixes[..]), (1024, &[64, 128][..]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refused = |text: &str| jobs(text, &TrainSettings::default(), 0).unwrap_err().to_string();
        for (text, said) in [
            ("latents = ", "grid"),
            ("latents = 5", "[[dictionary]]"),
            ("[[dictionary]]\nk = 5", "no name"),
            ("[[dictionary]]\nname = \"a\"\nkk = 5", "\"kk\""),
            ("[[dictionary]]\nname = \"a\"\nk = \"five\"", "\"a\": key \"k\""),
            ("latents = -1\n[[dictionary]]\nname = \"a\"", "key \"latents\""),
            ("[[dictionary]]\nname = \"a/../b\"", "no name for a directory"),
            ("[[dictionary]]\nname = \"a\"\n[[dictionary]]\nname = \"a\"", "two dictionaries"),
            ("[[dictionary]]\nname = \"a\"\nseed = \"x\"", "seed"),
            ("[[dictionary]]\nname = \"a\"\nk = []", "\"k\" is empty"),
            ("[[dictionary]]\nname = \"a\"\npreset = \"gao\"", "gao-2024"),
            (
                "[[dictionary]]\nname = \"a\"\nk = [1,2,3,4,5,6,7,8,9,10]\nlr = [1,2,3,4,5,6,7,8,9,10]\n\
              batch = [1,2,3,4,5,6,7,8,9,10]\naux_k = [1,2,3,4,5,6,7,8,9,10]",
                "more than",
            ),
        ] {
            let error = refused(text);
            assert!(error.contains(said), "{text}: {error}");
        }
    }
}
