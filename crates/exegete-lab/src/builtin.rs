//! The organism that the program carries: model, text and dictionary, as files.

use std::path::{Path, PathBuf};

use exegete_base::sampling::pair_hash;
use exegete_store::write_atomic;
use rust_embed::RustEmbed;
use xxhash_rust::xxh3::xxh3_64;

use crate::{LabError, Result};

/// What names it on the command line.
pub const NAME: &str = "builtin:organism";

/// The files, in debug builds too: what a test sees is what is released.
#[derive(RustEmbed)]
#[folder = "organism/"]
#[exclude = "README.md"]
struct Files;

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A Hugging Face directory.
    Model,
    /// A directory of labelled documents.
    Text,
    /// A dictionary in the SAELens layout.
    Sae,
}

/// The directory of a part. The files are written once into the user's cache, and again where they have been changed.
///
/// # Errors
/// The cache cannot be written; a build without an organism.
pub fn path(part: Part) -> Result<PathBuf> {
    let name = match part {
        Part::Model => "model",
        Part::Text => "text/documents",
        Part::Sae => "sae",
    };
    if !Files::iter().any(|file| file.starts_with(name)) {
        let detail = "this build carries no organism; train one with `exegete lab train` and name its directory";
        return Err(LabError::Failed(detail.into()));
    }
    Ok(root()?.join(name))
}

fn root() -> Result<PathBuf> {
    let content = |name: &str| Files::get(name).map(|file| xxh3_64(&file.data)).unwrap_or_default();
    let version = Files::iter().fold(0, |sum, name| pair_hash(sum, xxh3_64(name.as_bytes()), content(&name)));
    let folder = format!("exegete/organism-{version:016x}");
    let given = |key: &str| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")));
    let detail = "there is no place for the organism's files; set XDG_CACHE_HOME to a directory";
    let root = cache.ok_or_else(|| LabError::Failed(detail.into()))?.join(folder);
    unpack(&root)?;
    Ok(root)
}

fn unpack(root: &Path) -> Result<()> {
    for name in Files::iter() {
        let path = root.join(&*name);
        let Some(file) = Files::get(&name) else { continue };
        if std::fs::read(&path).is_ok_and(|there| there == *file.data) {
            continue;
        }
        write_atomic(&path, |sink| std::io::Write::write_all(sink, &file.data))?;
    }
    Ok(())
}
