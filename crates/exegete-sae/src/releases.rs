//! Published dictionaries by the names that SAELens gives them, `RELEASE/ID`: where each lies, what layout it has, and what
//! its publisher states.
//!
//! `refs/releases/make.py` writes the table, and says how it is laid out.

use exegete_base::Site;
use exegete_base::names::nearest;
use serde_json::{Value, json};

use crate::formats::{self, Choices, Saved};
use crate::{InputNorm, Result, SaeError};

const TABLE: &str = include_str!("../../../refs/releases/table.tsv");
/// Convention of a model that TransformerLens centred.
const CENTRED_WRITING: &str = "centred-writing";

/// Dictionaries that were published together.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its name.
    pub name: &'static str,
    /// The repository on the Hugging Face hub, `org/name`.
    pub repo: &'static str,
    /// The model, as the release names it.
    pub model: &'static str,
    /// The layout of its dictionaries: one of [`formats::names`], or one that is not read.
    pub format: &'static str,
    site: &'static str,
    conventions: &'static str,
    lines: Vec<&'static str>,
}

/// One published dictionary.
#[derive(Debug, Clone, PartialEq)]
pub struct Published {
    /// The release.
    pub release: &'static str,
    /// Its name in the release.
    pub id: String,
    /// The repository on the Hugging Face hub, `org/name`.
    pub repo: &'static str,
    /// The file or directory in the repository.
    pub path: String,
    /// The model, as the release names it.
    pub model: &'static str,
    /// The layout.
    pub format: &'static str,
    /// Mean number of active latents, where it is stated.
    pub l0: Option<f64>,
    /// Fraction of variance explained, where it is stated.
    pub variance_explained: Option<f64>,
    /// What inputs were multiplied by, where the files do not state it.
    pub input_factor: Option<f64>,
    /// The site that it reads, where the files do not state it.
    site: Option<String>,
    conventions: &'static str,
}

/// All releases, in the order of their names.
pub fn all() -> Vec<Release> {
    let mut releases: Vec<Release> = Vec::new();
    for line in TABLE.lines() {
        match (line.strip_prefix('\t'), releases.last_mut()) {
            (Some(line), Some(release)) => release.lines.push(line),
            _ => {
                let mut columns = line.split('\t');
                let mut column = || columns.next().unwrap_or_default();
                releases.push(Release {
                    name: column(),
                    repo: column(),
                    model: column(),
                    format: column(),
                    site: column(),
                    conventions: column(),
                    lines: Vec::new(),
                });
            }
        }
    }
    releases
}

/// The dictionary that is called `RELEASE/ID`.
///
/// # Errors
/// No such release or id, with the nearest; one whose layout is not read.
pub fn find(name: &str) -> Result<Published> {
    let (wanted, id) = name.split_once('/').unwrap_or((name, ""));
    let releases = all();
    let Some(release) = releases.iter().find(|release| release.name == wanted) else {
        let near = nearest(wanted, releases.iter().map(|release| release.name), 3).join(", ");
        return Err(SaeError::Unknown(format!(
            "no release of dictionaries is called {wanted:?}; the nearest are {near}; `exegete sae list` shows all"
        )));
    };
    let dictionaries: Vec<Published> = release.dictionaries().collect();
    let Some(found) = dictionaries.iter().find(|one| one.id == id) else {
        let near = nearest(id, dictionaries.iter().map(|one| &one.id), 3).join(", ");
        let n = dictionaries.len();
        return Err(SaeError::Unknown(format!(
            "release {wanted} has no dictionary {id:?}; the nearest are {near}; `exegete sae list {wanted}` shows all {n}"
        )));
    };
    match formats::names().any(|name| name == found.format) {
        true => Ok(found.clone()),
        false => Err(SaeError::Unknown(format!("{name} is of a layout that is not read yet: {}", found.format))),
    }
}

impl Release {
    /// Its dictionaries.
    pub fn dictionaries(&self) -> impl Iterator<Item = Published> + '_ {
        self.lines.iter().flat_map(move |line| {
            let mut columns = line.split('\t');
            let mut column = || columns.next().unwrap_or_default();
            let (id, path, items) = (column(), column(), column());
            let path = if path.is_empty() { id } else { path };
            items.split(' ').map(move |item| self.dictionary(id, path, item))
        })
    }

    /// How many they are.
    pub fn len(&self) -> usize {
        self.lines.iter().map(|line| line.rsplit('\t').next().unwrap_or_default().split(' ').count()).sum()
    }

    /// Whether it has none, which no release in the table has.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    fn dictionary(&self, id: &str, path: &str, item: &str) -> Published {
        let mut parts = item.split(':');
        let keys = parts.next().unwrap_or_default();
        let (a, b) = keys.split_once(',').unwrap_or((keys, ""));
        let filled = |pattern: &str| pattern.replace("{a}", a).replace("{b}", b);
        let mut number = || parts.next().and_then(|text| text.parse().ok());
        let id = filled(id);
        let site = match self.site {
            "" => Some(&id).filter(|id| id.parse::<Site>().is_ok()).cloned(),
            pattern => Some(filled(pattern)),
        };
        Published {
            release: self.name,
            id,
            repo: self.repo,
            path: filled(path),
            model: self.model,
            format: self.format,
            l0: number(),
            variance_explained: number(),
            input_factor: number(),
            site,
            conventions: self.conventions,
        }
    }
}

impl Published {
    /// What its files do not say, and what was typed over that.
    pub fn choices(&self, typed: &Choices) -> Choices {
        let norm = InputNorm::NAMES.iter().find(|(name, _)| self.conventions.split(' ').any(|word| word == *name));
        Choices {
            format: typed.format.clone().or(Some(self.format.into())),
            k: typed.k,
            input_factor: typed.input_factor.or(self.input_factor),
            norm: typed.norm.or(norm.map(|(_, norm)| *norm)),
        }
    }

    /// Adds what is stated to what was read from the files, which go before it, but for the variance explained, of which only
    /// files of our own training know.
    pub fn complete(&self, saved: &mut Saved) {
        saved.published_l0 = saved.published_l0.or(self.l0);
        saved.published_variance = self.variance_explained.or(saved.published_variance);
        let metadata = &mut saved.metadata;
        metadata.insert("release".into(), format!("{}/{}", self.release, self.id).into());
        metadata.entry("model_name").or_insert(self.model.into());
        if let (Some(site), None | Some(Value::Null)) = (&self.site, metadata.get("hook_name")) {
            metadata.insert("hook_name".into(), site.as_str().into());
        }
        if self.conventions.split(' ').any(|word| word == CENTRED_WRITING) {
            // In the words of SAELens, so that it stays known where the dictionary is written again.
            let kwargs = metadata.entry("model_from_pretrained_kwargs").or_insert(json!({}));
            if !kwargs.is_object() {
                *kwargs = json!({});
            }
            kwargs["center_writing_weights"] = true.into();
        }
    }
}

impl Saved {
    /// Whether the model it was trained on had its writing weights centred, as TransformerLens does.
    pub fn wants_centred_writing(&self) -> bool {
        self.metadata.get("model_from_pretrained_kwargs").is_some_and(|k| k["center_writing_weights"] == true)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_line_is_read_and_every_name_is_its_own() {
        let releases = all();
        let every: Vec<Published> = releases.iter().flat_map(Release::dictionaries).collect();
        assert_eq!((releases.len(), every.len()), (170, 13_857));
        assert_eq!(releases.iter().map(Release::len).sum::<usize>(), every.len());
        let names: BTreeSet<(&str, &str)> = every.iter().map(|one| (one.release, one.id.as_str())).collect();
        assert_eq!(names.len(), every.len());
        for one in &every {
            let text = format!("{one:?}");
            assert!(!text.contains("{a}") && !text.contains("{b}"), "{text}");
            assert!(one.repo.split('/').count() == 2 && !one.path.is_empty() && !one.model.is_empty(), "{text}");
            let read = formats::names().any(|name| name == one.format);
            assert!(read || ["temporal", "cross-layer-transcoder"].contains(&one.format), "{text}");
            // Other layouts would not use it.
            assert!(
                one.input_factor.is_none() || ["saelens", "llama-scope", "temporal"].contains(&one.format),
                "{text}"
            );
        }
    }

    #[test]
    fn names_lead_to_repositories_and_paths() {
        for (name, repo, path, format, l0) in [
            (
                "gpt2-small-res-jb/blocks.8.hook_resid_pre",
                "jbloom/GPT2-Small-SAEs-Reformatted",
                "blocks.8.hook_resid_pre",
                "saelens",
                Some(60.0),
            ),
            (
                "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical",
                "google/gemma-scope-2b-pt-res",
                "layer_12/width_16k/average_l0_82",
                "gemma-scope",
                None,
            ),
            (
                "llama_scope_lxr_8x/l15r_8x",
                "fnlp/Llama3_1-8B-Base-LXR-8x",
                "Llama3_1-8B-Base-L15R-8x",
                "llama-scope",
                Some(50.0),
            ),
            (
                "goodfire-llama-3.1-8b-instruct/layer_19",
                "Goodfire/Llama-3.1-8B-Instruct-SAE-l19",
                "Llama-3.1-8B-Instruct-SAE-l19.pth",
                "linear-layers",
                Some(91.0),
            ),
        ] {
            let found = find(name).unwrap();
            let there = (found.repo, found.path.as_str(), found.format, found.l0);
            assert_eq!(there, (repo, path, format, l0), "{name}");
        }
        assert_eq!(find("goodfire-llama-3.1-8b-instruct/layer_19").unwrap().site.unwrap(), "blocks.19.hook_resid_post");
        let mistral = find("mistral-7b-res-wg/blocks.8.hook_resid_pre").unwrap();
        assert_eq!(mistral.choices(&Choices::default()).norm, Some(InputNorm::ConstantNormRescale));
        assert_eq!(find("gemma-2b-res-jb/blocks.12.hook_resid_post").unwrap().input_factor, Some(0.213819384));
    }

    #[test]
    fn unknown_names_are_answered_with_the_nearest() {
        for (name, parts) in [
            ("gpt2-smal-res-jb/blocks.8.hook_resid_pre", ["nearest are gpt2-small-res-jb", "`exegete sae list`"]),
            (
                "gpt2-small-res-jb/blocks.8.hook_resid_pr",
                ["blocks.8.hook_resid_pre", "sae list gpt2-small-res-jb` shows all 13"],
            ),
            ("gpt2-small-res-jb", ["has no dictionary \"\"", "shows all 13"]),
            ("temporal-sae-gemma-2-2b/blocks.12.hook_resid_post", ["not read yet", "temporal"]),
        ] {
            let said = find(name).unwrap_err().to_string();
            assert!(parts.iter().all(|part| said.contains(part)), "{said}");
        }
    }
}
