//! The dictionaries of a run that were harvested, and where their parts lie.

use std::path::{Component, Path};

use exegete_store::Run;
use serde_json::Value;

use crate::wire::DictionaryName;

/// The table without which a dictionary has nothing to show.
pub(crate) const LATENTS: &str = "latents.parquet";

/// A dictionary of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its name; empty where a run with one does not tell it.
    pub(crate) name: String,
    /// What stands before the names of its parts.
    pub(crate) prefix: String,
    /// The site that it reads.
    pub(crate) site: Option<String>,
    /// Of which run it is: of the one that is served (0), or of one beside it.
    pub(crate) run: usize,
}

impl Named {
    /// A part of it.
    pub(crate) fn part(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn told(&self) -> DictionaryName {
        DictionaryName { name: self.name.clone(), site: self.site.clone() }
    }
}

/// The dictionaries that have latents, in the order of the run; those of one that is beside another are named after it too.
pub(crate) fn of(run: &Run, (at, beside): (usize, &str)) -> Vec<Named> {
    let listed = run.stage("harvest").and_then(|stage| stage.get("dictionaries")).and_then(Value::as_array);
    let mut found: Vec<Named> = listed.into_iter().flatten().filter_map(named).collect();
    if found.is_empty() {
        found.push(Named { name: String::new(), prefix: String::new(), site: None, run: 0 });
    }
    found.retain(|dictionary| run.part_done(&dictionary.part(LATENTS)));
    for dictionary in &mut found {
        dictionary.run = at;
        if at > 0 {
            let is_named = !dictionary.name.is_empty();
            dictionary.name = format!("{}{}{beside}", dictionary.name, if is_named { " of " } else { "" });
        }
    }
    found
}

fn named(listed: &Value) -> Option<Named> {
    let text = |key: &str| listed.get(key).and_then(Value::as_str).map(str::to_owned);
    let prefix = text("prefix").unwrap_or_default();
    // A manifest is no reason to read outside of the run.
    let is_inside = prefix.is_empty() || prefix.ends_with('/');
    let is_plain = Path::new(&prefix).components().all(|part| matches!(part, Component::Normal(_)));
    let name = text("name").unwrap_or_default();
    (is_inside && is_plain).then(|| Named { name, prefix, site: text("site"), run: 0 })
}
