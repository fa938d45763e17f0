//! Which files of a repository make a dictionary, before any of them is here.

use std::collections::BTreeSet;

use exegete_base::names::nearest;

use super::{FORMATS, Format};

/// How many names a refusal lists.
const SHOWN: usize = 8;

/// The files of the dictionary at `path`, which is a file or a directory of a repository that holds the files `there`; the
/// repository itself where it is empty. A layout that is known is named, any other found by its files.
///
/// # Errors
/// What is lacking, and what there is instead.
pub fn files_of(path: &str, format: Option<&str>, there: &BTreeSet<String>) -> Result<Vec<String>, String> {
    if there.contains(path) {
        // Dictionaries of a single file may have a configuration of the same name beside them.
        let beside = path.rsplit_once('.').map(|(stem, _)| format!("{stem}_cfg.json"));
        return Ok([path.to_owned()].into_iter().chain(beside.filter(|name| there.contains(name))).collect());
    }
    let folder = if path.is_empty() { String::new() } else { format!("{path}/") };
    let layouts: Vec<&Format> = FORMATS.iter().filter(|f| format.is_none_or(|name| f.name == name)).collect();
    let full = |files: &[&str]| -> Vec<String> {
        files.iter().flat_map(|name| each(&format!("{folder}{name}"), there)).collect()
    };
    let mut ways = layouts.iter().flat_map(|f| f.files).map(|files| full(files));
    if let Some(files) = ways.find(|files| files.iter().all(|name| there.contains(name))) {
        return Ok(files);
    }
    let inside: Vec<&str> = there.iter().filter_map(|name| name.strip_prefix(&folder)).take(SHOWN).collect();
    let looked_for: Vec<&str> = layouts.iter().map(|f| f.looks_like).collect();
    let shown = if path.is_empty() { "the repository itself" } else { path };
    Err(if inside.is_empty() {
        format!("has no {shown:?}; the nearest are {}", nearest(path, places(there), 3).join(", "))
    } else {
        format!(
            "holds no dictionary in {shown:?}: looked for {}; there are {}",
            looked_for.join("; "),
            inside.join(", ")
        )
    })
}

/// The files that a name stands for: itself, or with `{}` those of all layers that are there, of the first at least.
fn each(name: &str, there: &BTreeSet<String>) -> Vec<String> {
    if !name.contains("{}") {
        return vec![name.to_owned()];
    }
    let of = |layer: usize| name.replace("{}", &layer.to_string());
    let more = (1..).map(of).take_while(|name| there.contains(name));
    [of(0)].into_iter().chain(more).collect()
}

/// Files, and the directories that they are in.
fn places(there: &BTreeSet<String>) -> BTreeSet<&str> {
    there.iter().flat_map(|name| name.match_indices('/').map(|(at, _)| &name[..at]).chain([name.as_str()])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_the_files_of_the_layout_are_chosen() {
        let files = there(&[
            "README.md",
            "a/cfg.json",
            "a/sae_weights.safetensors",
            "a/trainer_state.pt",
            "b/params.npz",
            "cfg.json",
            "sae.safetensors",
            "z.pt",
            "z_cfg.json",
        ]);
        assert_eq!(files_of("a", None, &files).unwrap(), ["a/cfg.json", "a/sae_weights.safetensors"]);
        assert_eq!(files_of("b", Some("gemma-scope"), &files).unwrap(), ["b/params.npz"]);
        assert_eq!(files_of("", None, &files).unwrap(), ["cfg.json", "sae.safetensors"]);
        assert_eq!(files_of("z.pt", None, &files).unwrap(), ["z.pt", "z_cfg.json"]);
        assert!(files_of("a", Some("gemma-scope"), &files).unwrap_err().contains("params.npz; there are cfg.json"));
        assert!(files_of("bb", None, &files).unwrap_err().contains("the nearest are b,"));
    }

    #[test]
    fn a_configuration_is_taken_where_there_is_one() {
        let files = there(&["a/config.json", "a/params.safetensors", "b/params.safetensors"]);
        let chosen = |path| files_of(path, Some("gemma-scope-2"), &files).unwrap();
        assert_eq!(chosen("a"), ["a/config.json", "a/params.safetensors"]);
        assert_eq!(chosen("b"), ["b/params.safetensors"]);
    }
}
