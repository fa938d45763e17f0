//! The dictionaries that are served: those of the run, and of the runs beside it.

use exegete_store::Run;
use exegete_store::harvested::{self, Harvested};

use crate::wire::DictionaryName;

/// A dictionary that is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// Its name here; empty where a run with one does not tell it.
    pub(crate) name: String,
    /// What it is in its run.
    pub(crate) of: Harvested,
    /// Of which run it is: of the one that is served (0), or of one beside it.
    pub(crate) run: usize,
}

impl Named {
    pub(crate) fn told(&self) -> DictionaryName {
        DictionaryName { name: self.name.clone(), site: self.of.site.clone() }
    }
}

/// The dictionaries that have latents, in the order of the run; those of one that is beside another are named after it too.
pub(crate) fn of(run: &Run, (at, beside): (usize, &str)) -> Vec<Named> {
    let name = |of: &Harvested| match (at, of.name.as_str()) {
        (0, name) => name.to_owned(),
        (_, "") => beside.to_owned(),
        (_, name) => format!("{name} of {beside}"),
    };
    harvested::dictionaries(run).into_iter().map(|of| Named { name: name(&of), of, run: at }).collect()
}
