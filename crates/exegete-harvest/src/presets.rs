//! Settings of published recipes, by name: the table is `presets.toml`.

use serde_json::{Map, Value};

use crate::{HarvestError, Result};

const TABLE: &str = include_str!("presets.toml");

/// A published recipe.
#[derive(Debug, Clone)]
pub struct Preset {
    /// Its name.
    pub name: String,
    /// What it is, with its source.
    pub about: String,
    /// The settings, by their names.
    pub settings: Map<String, Value>,
}

/// All presets.
///
/// # Errors
/// None in a program that passed its tests.
pub fn all() -> Result<Vec<Preset>> {
    let table: Map<String, Value> =
        toml::from_str(TABLE).map_err(|e| HarvestError::Request(format!("presets: {e}")))?;
    let one = |(name, value): (String, Value)| {
        let Value::Object(mut settings) = value else { return None };
        let about = settings.remove("about")?.as_str()?.to_owned();
        Some(Preset { name, about, settings })
    };
    Ok(table.into_iter().filter_map(one).collect())
}

/// The settings of a preset.
///
/// # Errors
/// A name that is not known; those that are stand in the message.
pub fn named(name: &str) -> Result<Map<String, Value>> {
    let all = all()?;
    let known: Vec<String> = all.iter().map(|preset| format!("{} ({})", preset.name, preset.about)).collect();
    let found = all.into_iter().find(|preset| preset.name == name).map(|preset| preset.settings);
    found.ok_or_else(|| HarvestError::Request(format!("there is no preset {name:?}; there are {}", known.join(", "))))
}

#[cfg(test)]
mod tests {
    use exegete_base::settings::TrainSettings;

    use super::*;

    #[test]
    fn every_preset_is_made_of_settings_that_hold() {
        let Value::Object(defaults) = serde_json::to_value(TrainSettings::default()).unwrap() else { panic!() };
        let all = all().unwrap();
        assert_eq!(all.len(), 10);
        for Preset { name, about, settings } in all {
            assert!(!about.is_empty() && settings.keys().all(|key| defaults.contains_key(key)), "{name}");
            let mut whole = defaults.clone();
            whole.extend(settings);
            let settings: TrainSettings = serde_json::from_value(Value::Object(whole)).unwrap();
            settings.check().unwrap_or_else(|e| panic!("{name}: {e}"));
        }
        let error = named("gao").unwrap_err().to_string();
        assert!(error.contains("\"gao\"") && error.contains("gao-2024 (TopK"), "{error}");
    }
}
