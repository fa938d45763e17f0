//! The dictionaries of a run that were harvested, and where their parts lie.

use std::path::{Component, Path};

use serde_json::Value;

use crate::error::{Result, StoreError};
use crate::run::Run;

/// The table without which a dictionary has nothing to show.
pub const LATENTS: &str = "latents.parquet";

/// What the stage `harvest` says of a dictionary's map: which share of the variance of its rows' directions each axis holds.
pub const MAP_VARIANCE: &str = "map_variance";

/// A dictionary of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Harvested {
    /// Its name; empty where a run with one does not tell it.
    pub name: String,
    /// What stands before the names of its parts.
    pub prefix: String,
    /// The site that it reads.
    pub site: Option<String>,
}

impl Harvested {
    /// A part of it.
    pub fn part(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

/// The dictionaries of a run that have latents, in its order.
pub fn dictionaries(run: &Run) -> Vec<Harvested> {
    let mut found = listed(run);
    found.retain(|dictionary| run.part_done(&dictionary.part(LATENTS)));
    found
}

/// Which share of the variance each axis of a dictionary's map holds; none where the run does not tell, as older ones do not.
pub fn map_variance(run: &Run, of: &Harvested) -> Option<[f64; 2]> {
    let listed = run.stage("harvest")?.get("dictionaries")?.as_array()?;
    let own = listed.iter().find(|one| harvested(one).is_some_and(|one| one.prefix == of.prefix))?;
    let shares: [f64; 2] = serde_json::from_value(own.get(MAP_VARIANCE)?.clone()).ok()?;
    shares.iter().all(|share| (0.0..=1.0).contains(share)).then_some(shares)
}

/// The dictionaries of which a run tells, those included whose latents are not there.
fn listed(run: &Run) -> Vec<Harvested> {
    let listed = run.stage("harvest").and_then(|stage| stage.get("dictionaries")).and_then(Value::as_array);
    let mut found: Vec<Harvested> = listed.into_iter().flatten().filter_map(harvested).collect();
    if found.is_empty() {
        found.push(Harvested { name: String::new(), prefix: String::new(), site: None });
    }
    found
}

/// The dictionary of this name; without one, a run's only one.
///
/// # Errors
/// [`StoreError::Missing`] where the run has no latents, [`StoreError::Choice`] where the name is missing or unknown.
pub fn dictionary(run: &Run, name: Option<&str>) -> Result<Harvested> {
    let mut all = listed(run);
    let at = match name {
        Some(name) => all.iter().position(|one| one.name == name),
        None => (all.len() == 1).then_some(0),
    };
    match at {
        Some(at) if run.part_done(&all[at].part(LATENTS)) => Ok(all.swap_remove(at)),
        Some(_) => {
            let cure = "let its harvest finish first";
            Err(StoreError::Missing { path: run.dir().to_owned(), what: "latents (latents.parquet)", cure })
        }
        None => Err(StoreError::Choice {
            path: run.dir().to_owned(),
            asked: name.map(str::to_owned),
            names: all.into_iter().map(|one| one.name).collect(),
        }),
    }
}

fn harvested(listed: &Value) -> Option<Harvested> {
    let text = |key: &str| listed.get(key).and_then(Value::as_str).map(str::to_owned);
    let prefix = text("prefix").unwrap_or_default();
    // A manifest is no reason to read outside of the run.
    let is_inside = prefix.is_empty() || prefix.ends_with('/');
    let is_plain = Path::new(&prefix).components().all(|part| matches!(part, Component::Normal(_)));
    let site = text("site").filter(|site| !site.is_empty());
    (is_inside && is_plain).then(|| Harvested { name: text("name").unwrap_or_default(), prefix, site })
}
