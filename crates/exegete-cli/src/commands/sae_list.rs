//! `exegete sae list`: published dictionaries that are known by name.

use anyhow::{Result, bail};
use exegete_base::names::nearest;
use exegete_sae::formats;
use exegete_sae::releases::{self, Published, Release};
use serde_json::json;

use crate::args::SaeList;
use crate::printer::Printer;

pub(crate) fn run(settings: &SaeList, printer: &Printer) -> Result<()> {
    let all = releases::all();
    let filter = settings.filter.as_deref().unwrap_or_default();
    if let Some(release) = all.iter().find(|release| release.name == filter) {
        tell_release(release, printer);
        return Ok(());
    }
    let asked = filter.to_lowercase();
    let holds = |text: &str| text.to_lowercase().contains(&asked);
    let found: Vec<&Release> = all.iter().filter(|release| holds(release.name) || holds(release.model)).collect();
    if found.is_empty() {
        let near = nearest(filter, all.iter().map(|release| release.name), 3).join(", ");
        bail!("no release and no model has {filter:?} in its name; the nearest releases are {near}");
    }
    printer.json(&json!({ "releases": found.iter().map(|release| json!({
        "release": release.name, "model": release.model, "repository": release.repo, "format": release.format,
        "read": is_read(release), "dictionaries": release.len(),
    })).collect::<Vec<_>>() }));
    let width = |of: fn(&Release) -> usize| found.iter().map(|release| of(release)).max().unwrap_or(0);
    let (name, model) = (width(|release| release.name.len()), width(|release| release.model.len()));
    for release in &found {
        let Release { name: called, model: of, format, .. } = release;
        let unread = if is_read(release) { "" } else { ", not read yet" };
        printer.line(format!("{called:name$}  {of:model$}  {:4}  {format}{unread}", release.len()));
    }
    let n: usize = found.iter().map(|release| release.len()).sum();
    printer.line(format!("{} releases, {n} dictionaries; exegete sae list RELEASE shows those of one", found.len()));
    Ok(())
}

fn is_read(release: &Release) -> bool {
    formats::names().any(|name| name == release.format)
}

fn tell_release(release: &Release, printer: &Printer) {
    let all: Vec<Published> = release.dictionaries().collect();
    printer.json(&json!({
        "release": release.name, "model": release.model, "repository": release.repo, "format": release.format,
        "read": is_read(release), "dictionaries": all.iter().map(|one| json!({
            "id": one.id, "path": one.path, "l0": one.l0, "variance_explained": one.variance_explained,
        })).collect::<Vec<_>>(),
    }));
    for one in &all {
        let stated = [("L0", one.l0), ("variance explained", one.variance_explained)];
        let stated: Vec<String> =
            stated.iter().filter_map(|(what, value)| value.map(|value| format!("{what} {value}"))).collect();
        printer.line(format!("{}/{}  {}", release.name, one.id, stated.join(", ")).trim_end());
    }
}
