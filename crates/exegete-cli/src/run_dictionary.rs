//! The weights and the site of a run's dictionary, wherever they came from.

use anyhow::{Context, Result, bail};
use exegete_harvest::training;
use exegete_sae::formats::Choices;
use exegete_sae::{AnyDictionary, Sae};
use exegete_store::Run;
use exegete_store::harvested::Harvested;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::open_dictionary;
use crate::printer::Printer;

/// The dictionary's weights: trained in the run, or from where its harvest read them.
///
/// # Errors
/// A run that does not say which dictionary it was made with, and files that are gone or damaged.
pub(crate) fn weights(run: &Run, of: &Harvested, printer: &Printer) -> Result<Sae> {
    let settings = &run.manifest().settings;
    // A harvest records where each came from, and what its files did not say.
    let is_it = |told: &&Value| told.get("name").and_then(Value::as_str).unwrap_or_default() == of.name;
    let recorded = settings.get("dictionaries").and_then(Value::as_array).and_then(|all| all.iter().find(is_it));
    let path = recorded.and_then(|told| told.get("sae")).and_then(Value::as_str);
    match path {
        Some(path) => {
            let said = |key: &str| settings.get(key);
            let choices = Choices {
                format: said("format").and_then(Value::as_str).map(str::to_owned),
                k: said("k").and_then(Value::as_u64).map(|k| k as usize),
                ..Choices::default()
            };
            let dictionary = open_dictionary::load(path, &choices, printer)?.dictionary;
            let was = recorded.and_then(|told| told.get("sha256")).and_then(Value::as_str);
            if was.is_some_and(|was| was != fingerprint(&dictionary)) {
                bail!("{path}: its weights are others than when this run was made; harvest again, or bring them back");
            }
            Ok(dictionary.into_sae()?)
        }
        None => training::dictionary(run).context("the run does not say which dictionary it was made with"),
    }
}

/// The site that it reads, by its name.
///
/// # Errors
/// A run that does not say.
pub(crate) fn site(run: &Run, of: &Harvested) -> Result<String> {
    let cached = || run.stage("cache").and_then(|stage| stage.get("site"));
    let said = || run.manifest().settings.get("site").or_else(cached).and_then(Value::as_str).map(str::to_owned);
    of.site.clone().or_else(said).context("the run does not say which site its dictionary reads")
}

/// The site that it writes, where that is another than the one it reads, and one alone.
pub(crate) fn written(run: &Run, of: &Harvested) -> Option<String> {
    let listed = run.stage("harvest")?.get("dictionaries")?.as_array()?;
    let own = listed.iter().find(|told| told.get("name").and_then(Value::as_str).unwrap_or_default() == of.name)?;
    match &own.get("sites")?.get("writes")?.as_array()?[..] {
        [one] => one.as_str().map(str::to_owned),
        _ => None,
    }
}

/// Checksum of what decides a dictionary's codes.
pub(crate) fn fingerprint(dictionary: &AnyDictionary) -> String {
    let mut hasher = Sha256::new();
    let mut add = |values: &[f32]| {
        for chunk in values.chunks(1 << 14) {
            hasher.update(chunk.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
        }
    };
    for sae in dictionary.encoders() {
        [&sae.w_enc_FD, &sae.b_enc_F, &sae.w_dec_FD, &sae.b_dec_D].into_iter().for_each(|values| add(values));
    }
    for sae in dictionary.encoders() {
        hasher.update(format!("{:?} {} {}", sae.rule, sae.centres_input, sae.norm.name()));
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
