//! From what was gathered to the tables of a run: parts are merged, some latents at a time, so that memory depends neither on the
//! length of the text nor on the number of parts.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use exegete_base::LatentId;
use exegete_store::profile::N_POSITIONS;
use exegete_store::run::part_name;
use exegete_store::sampled::{correlations, read_sampled};
use exegete_store::{
    Accumulators, Activation, ActivationReader, LatentRow, Run, sketch, write_activations, write_examples,
    write_latents,
};
use serde_json::{Value, json};

use super::LATENTS;
use crate::{HarvestError, Progress, Result};

/// Latents that are merged together, and lie in a part of the examples.
const TOGETHER: usize = 4096;
/// Tokens kept of those that a latent fires on.
const N_FIRED: usize = 10;

/// What was gathered of one dictionary.
pub(crate) struct Parts {
    pub(crate) states: Vec<PathBuf>,
    pub(crate) sampled: Vec<PathBuf>,
    /// Every firing, where they are kept.
    pub(crate) fired: Vec<PathBuf>,
}

impl Parts {
    /// Those of a run, in a folder of it.
    pub(crate) fn of(run: &Run, place: &str) -> Self {
        let kind = |kind: &str| run.parts_under(&format!("{place}/{kind}-"));
        Self { states: kind("state"), sampled: kind("sampled"), fired: kind("fired") }
    }
}

/// Writes examples and latents of one dictionary, and returns what there is to say about them. `rows` is the number of tokens that
/// had activations; `describe` fills in what the decoder's rows say.
pub(crate) fn write(
    run: &mut Run,
    prefix: &str,
    parts: &Parts,
    rows: u64,
    describe: &mut dyn FnMut(&mut [LatentRow]) -> Result<()>,
    progress: &dyn Progress,
) -> Result<Value> {
    let none = || HarvestError::Request("nothing was gathered; remove the run and start again".into());
    let head = Accumulators::read_range(parts.states.first().ok_or_else(none)?, 0..0)?;
    let (n_latents, settings) = (head.n_latents(), head.settings());
    let mut tokens = [0u64; N_POSITIONS];
    for path in &parts.states {
        let state = Accumulators::read_range(path, 0..0)?;
        tokens.iter_mut().zip(state.tokens_by_position()).for_each(|(sum, n)| *sum += n);
    }
    let n_tokens: u64 = tokens.iter().sum();
    let (mut latents, mut hashes) = (Vec::with_capacity(n_latents), Vec::with_capacity(n_latents));
    progress.begin("merge", n_latents as u64, "latents", 0);
    for (i, from) in (0..n_latents).step_by(TOGETHER).enumerate() {
        progress.check()?;
        let range = from as u32..(from + TOGETHER).min(n_latents) as u32;
        let mut merged = Accumulators::new(n_latents, settings);
        for path in &parts.states {
            merged.merge(Accumulators::read_range(path, range.clone())?)?;
        }
        let mut examples = Vec::new();
        for latent in range.map(LatentId) {
            let mut row = LatentRow::new(latent, merged.stats(latent), n_tokens);
            let sketch = merged.sketch(latent);
            let (fired, distinct) = sketch::tokens_of(sketch, N_FIRED);
            row.profile.fired_tokens = fired;
            row.profile.distinct_tokens = distinct;
            row.profile.n_sampled = sketch.len() as u32;
            row.profile.position_information = sketch::position_information(&row.stats.positions, &tokens);
            hashes.push(sketch.iter().map(|s| s.hash).collect::<Vec<u64>>());
            examples.extend(merged.examples(latent));
            latents.push(row);
        }
        let name = part_name(&format!("{prefix}examples"), i);
        run.commit_part(&name, examples.len() as u64, |w| write_examples(w, &examples))?;
        progress.at((from + TOGETHER).min(n_latents) as u64, "");
    }
    for (row, near) in latents.iter_mut().zip(sketch::cofiring(&hashes, settings.sketch)) {
        row.profile.cofiring = near;
    }
    drop(hashes);
    let n_correlated = correlate(parts, &mut latents)?;
    describe(&mut latents)?;
    run.commit_part(&format!("{prefix}{LATENTS}"), latents.len() as u64, |w| write_latents(w, &latents))?;
    let firings: u64 = latents.iter().map(|row| row.stats.count).sum();
    let alive = latents.iter().filter(|row| row.stats.count > 0).count();
    progress.end(&format!("{alive} of {n_latents} latents fired on {n_tokens} tokens"));
    Ok(json!({
        "prefix": prefix, "tokens": n_tokens, "sinks": rows.saturating_sub(n_tokens), "firings": firings, "alive": alive,
        "n_latents": n_latents, "l0": firings as f64 / n_tokens.max(1) as f64, "sketch": settings.sketch,
        "correlation_tokens": n_correlated,
    }))
}

/// Every firing of a run, or of a shard of it.
pub(crate) struct Fired {
    reader: ActivationReader,
    /// Places of the shard's windows among those of the whole.
    places: Option<Vec<u32>>,
}

impl Fired {
    /// What a run has gathered; none where firings were not kept.
    pub(crate) fn of(parts: &[PathBuf], places: Option<Vec<u32>>) -> Result<Option<Self>> {
        match parts.is_empty() {
            true => Ok(None),
            false => Ok(Some(Self { reader: ActivationReader::open(parts)?, places })),
        }
    }

    fn range(&self, latents: RangeInclusive<u32>) -> Result<Vec<Activation>> {
        let mut found = self.reader.range(latents)?;
        if let Some(places) = &self.places {
            let strange = || HarvestError::Request("a firing is of a window that its shard does not have".into());
            for firing in &mut found {
                firing.row = *places.get(firing.row as usize).ok_or_else(strange)?;
            }
        }
        Ok(found)
    }
}

/// Writes every firing as parts of the run, some latents at a time.
pub(crate) fn write_firings(run: &mut Run, prefix: &str, fired: &[Fired], n_latents: usize) -> Result<()> {
    for (i, from) in (0..n_latents).step_by(TOGETHER).enumerate() {
        let range = from as u32..=((from + TOGETHER).min(n_latents) - 1) as u32;
        let mut all = Vec::new();
        for one in fired {
            all.extend(one.range(range.clone())?);
        }
        let name = part_name(&format!("{prefix}activations"), i);
        run.commit_part(&name, all.len() as u64, |w| write_activations(w, &all))?;
    }
    Ok(())
}

/// Fills in correlations; returns over how many tokens.
fn correlate(parts: &Parts, latents: &mut [LatentRow]) -> Result<usize> {
    let mut drawn = Vec::new();
    for path in &parts.sampled {
        drawn.extend(read_sampled(path)?);
    }
    let found = correlations(&mut drawn, latents.len());
    for (row, found) in latents.iter_mut().zip(found) {
        row.profile.correlated_neurons = found.neurons;
        row.profile.correlated_latents = found.latents;
    }
    Ok(drawn.len())
}
