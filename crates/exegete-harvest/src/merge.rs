//! Shards of a harvest to the whole: the same files, byte for byte, as one pass over the text would have written.

use std::collections::BTreeMap;
use std::path::Path;

use exegete_base::DocId;
use exegete_store::tokens::read_windows;
use exegete_store::{LatentRow, Run, Window, read_latents, read_vocab, write_vocab};
use serde_json::Value;

use crate::firings::tables::{self, Fired, Parts};
use crate::firings::{self, LATENTS};
use crate::windows::{self, Counts, PART, Shard, VOCAB, write_part};
use crate::{HarvestError, Progress, Result, attribution};

/// Checks that runs are the shards of one harvest, each once, and returns the settings and the inputs of the whole.
///
/// # Errors
/// Runs that are no finished shards, or not of one harvest, and shards that are missing or twice there.
pub fn check(shards: &[Run]) -> Result<Value> {
    let fault = |run: &Run, detail: &str| Err(HarvestError::Request(format!("{}: {detail}", run.dir().display())));
    let mut found: BTreeMap<u64, &Run> = BTreeMap::new();
    let mut whole: Option<(&Run, Value, u64)> = None;
    for run in shards {
        let mut settings = run.manifest().settings.clone();
        let shard: Option<Shard> = serde_json::from_value(settings["shard"].take()).unwrap_or_default();
        let Some(shard) = shard else {
            return fault(run, "it is no shard: `exegete harvest --shard I/N` makes them");
        };
        if run.stage(firings::STAGE).is_none() {
            return fault(run, "it is not finished; give its command again");
        }
        match &whole {
            None => whole = Some((run, settings, shard.of)),
            Some((first, expected, of)) => {
                let mut differences = exegete_store::run::changes(&placeless(expected), &placeless(&settings));
                if shard.of != *of {
                    differences.push(format!("shards: was {of}, now {}", shard.of));
                }
                let (own, other) = (run.manifest(), first.manifest());
                if own.program != other.program {
                    differences.push(format!("program: was {}, now {}", other.program, own.program));
                }
                let content = |run: &Run| -> Vec<(u64, String)> {
                    run.manifest().inputs.iter().map(|input| (input.bytes, input.sha256.clone())).collect()
                };
                if content(run) != content(first) {
                    differences.push("inputs: the checksums of the model's files or of the texts differ".into());
                }
                if !differences.is_empty() {
                    let detail = format!("it is of another harvest than {}", first.dir().display());
                    return fault(run, &format!("{detail}:\n  {}", differences.join("\n  ")));
                }
            }
        }
        if let Some(other) = found.insert(shard.index, run) {
            return fault(run, &format!("shard {} is {} too", shard.index, other.dir().display()));
        }
    }
    let Some((_, settings, of)) = whole else {
        return Err(HarvestError::Request("name the runs that are to be merged".into()));
    };
    let missing: Vec<String> = (1..=of).filter(|i| !found.contains_key(i)).map(|i| format!("{i}/{of}")).collect();
    match missing.is_empty() {
        true => shards.iter().try_for_each(verify).map(|()| settings),
        false => Err(HarvestError::Request(format!("shards are missing: {}", missing.join(", ")))),
    }
}

/// Merges shards, which [`check`] has seen, into a run.
///
/// # Errors
/// Damaged parts; the disk's.
pub fn run(run: &mut Run, shards: &[Run], progress: &dyn Progress) -> Result<()> {
    if run.stage(windows::STAGE).is_none() {
        tokens(run, shards)?;
    }
    if run.stage(firings::STAGE).is_some() {
        return Ok(());
    }
    let stage = |shard: &Run| shard.stage(firings::STAGE).cloned().unwrap_or_default();
    let first = stage(&shards[0]);
    let places = places(shards)?;
    let mut found = Vec::new();
    for (i, one) in first["dictionaries"].as_array().into_iter().flatten().enumerate() {
        let place =
            one["name"].as_str().map_or_else(|| firings::STAGE.into(), |name| format!("{}/{name}", firings::STAGE));
        let mut parts = Parts { states: Vec::new(), sampled: Vec::new(), fired: Vec::new() };
        let mut fired = Vec::new();
        let mut rows = 0;
        for (shard, places) in shards.iter().zip(&places) {
            let own = Parts::of(shard, &place);
            fired.extend(Fired::of(&own.fired, Some(places.clone()))?);
            parts.states.extend(own.states);
            parts.sampled.extend(own.sampled);
            let told = &stage(shard)["dictionaries"][i];
            rows += told["tokens"].as_u64().unwrap_or_default() + told["sinks"].as_u64().unwrap_or_default();
        }
        let prefix = one["prefix"].as_str().unwrap_or_default();
        if !fired.is_empty() {
            let n_latents = one["n_latents"].as_u64().unwrap_or_default() as usize;
            tables::write_firings(run, prefix, &fired, n_latents)?;
        }
        let mut describe = |rows: &mut [LatentRow]| described(&shards[0].path(&format!("{prefix}{LATENTS}")), rows);
        let mut summary = tables::write(run, prefix, &parts, rows, &mut describe, progress)?;
        // What was settled before the first token, and what the dictionary is, does not depend on the shard.
        for (key, value) in one.as_object().into_iter().flatten() {
            if summary.get(key).is_none() {
                summary[key] = value.clone();
            }
        }
        attribution::merge(run, shards, prefix)?;
        found.push(summary);
    }
    if let Some(told) = shards[0].stage(attribution::STAGE) {
        run.finish_stage(attribution::STAGE, told.clone())?;
    }
    let seed = first["seed"].as_u64().unwrap_or_default();
    run.finish_stage(firings::STAGE, firings::stage_summary(&found, seed))?;
    Ok(())
}

/// Settings without the places of files, which another machine has elsewhere: what is in them is held to checksums.
fn placeless(settings: &Value) -> Value {
    let mut settings = settings.clone();
    for key in ["model", "text"] {
        settings[key] = Value::Null;
    }
    for dictionary in settings["dictionaries"].as_array_mut().into_iter().flatten() {
        dictionary["sae"] = Value::Null;
    }
    settings
}

fn verify(shard: &Run) -> Result<()> {
    shard.manifest().parts.keys().try_for_each(|rel| {
        shard.verify_part(rel).map_err(|e| HarvestError::Request(format!("{e}; make this shard again")))
    })
}

/// Lays the windows of all shards together, in the order of the text.
fn tokens(run: &mut Run, shards: &[Run]) -> Result<()> {
    let mut all: Vec<Window> = Vec::new();
    let mut counts = Counts::default();
    for shard in shards {
        for path in shard.parts_under("tokens/part-") {
            all.extend(read_windows(&path)?);
        }
        counts.documents += number(shard, "documents");
    }
    all.sort_by_key(|w| (w.doc, w.window));
    all.iter().for_each(|window| counts.add(window));
    let (mut n_parts, mut part) = (0, Vec::new());
    for window in all {
        part.push(window);
        if part.len() == PART {
            write_part(run, &mut n_parts, &mut part)?;
        }
    }
    if !part.is_empty() {
        write_part(run, &mut n_parts, &mut part)?;
    }
    let vocab = read_vocab(&shards[0].path(VOCAB))?;
    run.commit_part(VOCAB, vocab.len() as u64, |w| write_vocab(w, &vocab))?;
    let told = shards[0].stage(windows::STAGE).cloned().unwrap_or_default();
    let len = told["window_len"].as_u64().unwrap_or_default() as usize;
    run.finish_stage(windows::STAGE, counts.summary(len, told["bos"].as_str()))?;
    Ok(())
}

/// Of each shard the places of its windows among those of all.
fn places(shards: &[Run]) -> Result<Vec<Vec<u32>>> {
    let mut all: Vec<((DocId, u32), usize)> = Vec::new();
    for (i, shard) in shards.iter().enumerate() {
        for path in shard.parts_under("tokens/part-") {
            all.extend(read_windows(&path)?.iter().map(|w| ((w.doc, w.window), i)));
        }
    }
    all.sort_unstable();
    let mut places = vec![Vec::new(); shards.len()];
    all.iter().enumerate().for_each(|(place, (_, shard))| places[*shard].push(place as u32));
    Ok(places)
}

fn number(run: &Run, key: &str) -> u64 {
    run.stage(windows::STAGE).and_then(|stage| stage[key].as_u64()).unwrap_or_default()
}

/// Takes over what a shard's table says of the decoder's rows, which is the same in all.
fn described(path: &Path, rows: &mut [LatentRow]) -> Result<()> {
    for (row, told) in rows.iter_mut().zip(read_latents(path)?) {
        row.top_tokens = told.top_tokens;
        row.bottom_tokens = told.bottom_tokens;
        row.neighbours = told.neighbours;
        let (mine, theirs) = (&mut row.profile, told.profile);
        mine.aligned_neurons = theirs.aligned_neurons;
        mine.decoder_l1 = theirs.decoder_l1;
        mine.decoder_norm = theirs.decoder_norm;
        mine.logit_histogram = theirs.logit_histogram;
        mine.logit_ends = theirs.logit_ends;
        mine.map = theirs.map;
    }
    Ok(())
}
