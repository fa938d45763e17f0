//! Which files of a repository make a model that can be opened here.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::{HubError, Result};
use crate::names::{check_path, is_commit};

pub(crate) const CONFIG: &str = "config.json";
pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
/// Taken where a repository has them.
const COMPANIONS: [&str; 5] = [
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];

/// What the hub says of a repository at a revision.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Description {
    pub(crate) commit: String,
    pub(crate) files: BTreeSet<String>,
}

/// Why a description cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum BadDescription {
    /// It is not what the hub sends.
    Form(String),
    /// It names a file that could leave the cache.
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
}

#[derive(Deserialize)]
struct Wire {
    sha: String,
    #[serde(default)]
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads the hub's answer; every name in it is safe as a path below a snapshot.
pub(crate) fn read_description(json: &[u8]) -> Result<Description, BadDescription> {
    let wire: Wire = serde_json::from_slice(json)
        .map_err(|e| BadDescription::Form(format!("a description of the repository that cannot be read ({e})")))?;
    if !is_commit(&wire.sha) {
        return Err(BadDescription::Form(format!("the commit {:?}, which is none", shorten(&wire.sha))));
    }
    let files: BTreeSet<String> = wire.siblings.into_iter().map(|sibling| sibling.rfilename).collect();
    for name in &files {
        check_path(name).map_err(|detail| BadDescription::Name { name: shorten(name), detail })?;
    }
    Ok(Description { commit: wire.sha, files })
}

/// The small files of a model in the order of download, the index of its shards among them.
///
/// The error says what the repository lacks.
pub(crate) fn small_files(files: &BTreeSet<String>) -> Result<Vec<&str>, String> {
    if !files.contains(CONFIG) {
        return Err(format!("has no {CONFIG}, so it is no model in the Hugging Face layout{}", gguf_hint(files)));
    }
    if !files.contains(SINGLE) && !files.contains(INDEX) {
        let pickled = files.iter().find(|name| [".bin", ".pt", ".pth", ".ckpt"].iter().any(|end| name.ends_with(end)));
        let pickles = match pickled {
            Some(name) => format!("; {name} is a pickle, which can run any program and is never read"),
            None => String::new(),
        };
        return Err(format!(
            "has no {SINGLE} and no {INDEX}{pickles}; look for a revision or a repository with safetensors{}",
            gguf_hint(files)
        ));
    }
    let index = files.contains(INDEX) && !files.contains(SINGLE);
    let wanted = std::iter::once(CONFIG).chain(COMPANIONS).chain(index.then_some(INDEX));
    Ok(wanted.filter(|name| files.contains(*name)).collect())
}

/// The weights: the single file, which goes before shards as it does when a model is opened, or the index's shards.
///
/// # Errors
/// An index that cannot be read, or that names what no shard can be called.
pub(crate) fn weight_files(has_single: bool, snapshot: &Path) -> Result<BTreeSet<String>> {
    if has_single {
        return Ok(BTreeSet::from([SINGLE.to_owned()]));
    }
    let path = snapshot.join(INDEX);
    let text = fs::read(&path).map_err(HubError::io("read", &path))?;
    let bad = |detail: String| HubError::Index { path: path.clone(), detail };
    let index: Index = serde_json::from_slice(&text).map_err(|e| bad(format!("is no index of safetensors ({e})")))?;
    let shards: BTreeSet<String> = index.weight_map.into_values().collect();
    for shard in &shards {
        check_path(shard).map_err(|detail| bad(format!("names a shard {:?}, which {detail}", shorten(shard))))?;
        if !shard.ends_with(".safetensors") {
            return Err(bad(format!("names a shard {:?}, which is no safetensors file", shorten(shard))));
        }
    }
    if shards.is_empty() {
        return Err(bad("names no shard".into()));
    }
    Ok(shards)
}

fn gguf_hint(files: &BTreeSet<String>) -> String {
    match files.iter().find(|name| name.ends_with(".gguf")) {
        Some(name) => format!("; name one of its GGUF files after a colon, such as \":{name}\""),
        None => String::new(),
    }
}

/// A hostile name may be long.
fn shorten(text: &str) -> String {
    text.chars().take(200).collect()
}
