//! From what was typed to a dictionary.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use exegete_hub::{Hub, Reference};
use exegete_lab::builtin::Part;
use exegete_sae::formats::{self, Choices, Saved, files_of};
use exegete_sae::releases;

use crate::builtin;
use crate::printer::{Printer, tell_download};

/// Reads the dictionary that is named: what is built in, a path, `ORG/NAME[@REVISION]:PATH` on the hub, or `RELEASE/ID`.
///
/// A path that exists goes before everything else of its name. What is on the hub is downloaded, if the cache lacks it, and
/// of it no more than the layout's own files.
pub(crate) fn load(name: &str, choices: &Choices, printer: &Printer) -> Result<Saved> {
    if builtin::is_builtin(name) {
        return Ok(formats::load(&builtin::resolve(name, Part::Sae)?, choices)?);
    }
    let path = Path::new(name);
    if path.exists() || path.is_absolute() || name.starts_with('.') {
        return formats::load(path, choices).map_err(|error| match hint(path) {
            Some(hint) => anyhow!("{error:#}; {hint}"),
            None => error.into(),
        });
    }
    if let Some((repo, inside)) = name.split_once(':') {
        let inside = inside.trim_end_matches('/');
        let inside = if inside == "." { "" } else { inside };
        let file = if inside.is_empty() { String::new() } else { format!(":{inside}") };
        let reference: Reference = format!("{repo}{file}").parse()?;
        return Ok(formats::load(&download(&reference, choices.format.as_deref(), printer)?, choices)?);
    }
    let published = releases::find(name).with_context(|| {
        format!(
            "there is no file or directory {name}; a dictionary on the hub is ORG/NAME:PATH, a published one RELEASE/ID"
        )
    })?;
    let choices = published.choices(choices);
    let reference: Reference = format!("{}:{}", published.repo, published.path).parse()?;
    let mut saved = formats::load(&download(&reference, choices.format.as_deref(), printer)?, &choices)?;
    published.complete(&mut saved);
    Ok(saved)
}

/// What to do with a path that holds no dictionary and belongs to a run.
fn hint(path: &Path) -> Option<&'static str> {
    if path.join("manifest.json").is_file() {
        return Some("this is a run: its dictionary is in RUN/sae, those of a grid in RUN/sae/NAME");
    }
    let unfinished = path.join("checkpoint.bin").is_file();
    unfinished.then_some("its training is not finished: give the command of the training again")
}

/// The local path of a dictionary on the hub: of a file or a directory, as it is there.
fn download(reference: &Reference, format: Option<&str>, printer: &Printer) -> Result<PathBuf> {
    let inside = reference.file.as_deref().unwrap_or_default();
    let choose = |there: &_| files_of(inside, format, there);
    Ok(Hub::from_env()?.files(reference, &choose, &tell_download(printer))?.join(inside))
}
