//! The organism that the program carries: model, text and dictionary, as files.

use std::path::{Path, PathBuf};

use exegete_base::sampling::pair_hash;
use exegete_store::write_atomic;
use xxhash_rust::xxh3::xxh3_64;

use crate::{LabError, Result};

/// What names it on the command line.
pub const NAME: &str = "builtin:organism";

macro_rules! files {
    ($($name:literal),* $(,)?) => { &[$(($name, include_bytes!(concat!("../organism/", $name)))),*] };
}

/// Path and content of each file.
const FILES: &[(&str, &[u8])] = files![
    "model/config.json",
    "model/model.safetensors",
    "model/organism.json",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    "text/documents/part-00000.parquet",
    "text/concepts.parquet",
];

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

/// The directory of a part. The files are written once, into the user's cache, or the temporary directory where there is
/// none.
///
/// # Errors
/// Neither place can be written.
pub fn path(part: Part) -> Result<PathBuf> {
    let name = match part {
        Part::Model => "model",
        Part::Text => "text/documents",
        Part::Sae => "sae",
    };
    Ok(root()?.join(name))
}

fn root() -> Result<PathBuf> {
    let version = FILES.iter().fold(0, |sum, (name, bytes)| pair_hash(sum, xxh3_64(name.as_bytes()), xxh3_64(bytes)));
    let folder = format!("exegete/organism-{version:016x}");
    let given = |key: &str| std::env::var_os(key).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = given("XDG_CACHE_HOME").or_else(|| Some(given("HOME")?.join(".cache")));
    let mut failed = None;
    for place in cache.into_iter().chain([std::env::temp_dir()]) {
        let root = place.join(&folder);
        match unpack(&root) {
            Ok(()) => return Ok(root),
            Err(error) => failed = Some(error),
        }
    }
    Err(failed.unwrap_or_else(|| LabError::Settings("there is no place for the organism's files".into())))
}

fn unpack(root: &Path) -> Result<()> {
    for (name, bytes) in FILES {
        let path = root.join(name);
        // A file is renamed when it is whole, so its length tells whether it is there.
        if std::fs::metadata(&path).is_ok_and(|m| m.len() == bytes.len() as u64) {
            continue;
        }
        write_atomic(&path, |sink| std::io::Write::write_all(sink, bytes))?;
    }
    Ok(())
}
