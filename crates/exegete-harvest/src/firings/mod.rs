//! The harvest: activations are encoded by any number of dictionaries in one pass, and each latent's firings are gathered.
//!
//! What was gathered so far is written in parts, by the clock and where memory runs out; in the end the parts are merged, some
//! latents at a time (`tables`). Which windows a part holds does not matter to what comes out, so a harvest that was stopped,
//! or split into shards ([`crate::merge`]), ends as one that ran through.

mod gather;
mod rules;
pub(crate) mod tables;

use std::time::{Duration, Instant};

use exegete_base::settings::{HarvestSettings, KeepSettings};
use exegete_model::Model;
use exegete_sae::Dictionary;
pub use exegete_store::harvested::{LATENTS, MAP_VARIANCE};
use exegete_store::sampled::Draw;
use exegete_store::{AccumulatorSettings, Run, Window};
use serde_json::{Value, json};

use self::gather::Gathering;
use self::rules::Rules;
use self::tables::{Fired, Parts};
use crate::rows::{WindowRows, n_rows};
use crate::training::Sites;
use crate::{Activations, Progress, Result, verify, vocabulary};

/// The stage's name in the manifest.
pub const STAGE: &str = "harvest";
/// Windows encoded together.
const BATCH: usize = 32;
/// Batches between two looks at the memory taken.
const LOOK: usize = 4;
/// Time after which what was gathered is written.
const EVERY: Duration = Duration::from_secs(60);

/// A dictionary that is harvested.
pub struct Harvested<'a> {
    /// Its name among several; none for a run's only one.
    pub name: Option<String>,
    /// The dictionary.
    pub dictionary: &'a dyn Dictionary,
    /// Its sites; those that it reads are behind each other in its input.
    pub sites: Sites,
}

impl Harvested<'_> {
    /// What stands before the names of its parts.
    pub fn prefix(&self) -> String {
        self.name.as_ref().map_or_else(String::new, |name| format!("latents/{name}/"))
    }

    fn place(&self) -> String {
        self.name.as_ref().map_or_else(|| STAGE.into(), |name| format!("{STAGE}/{name}"))
    }
}

/// How a harvest is made.
pub struct How<'a> {
    /// What is kept of firings.
    pub keep: &'a KeepSettings,
    /// What is counted.
    pub settings: &'a HarvestSettings,
    /// Seed of the samples.
    pub seed: u64,
    /// Tokens of the longest window.
    pub window: usize,
    /// The first windows of the text, of which this may be a shard.
    pub first: &'a [Window],
    /// Rows of the text, of which this may be a shard.
    pub text_rows: u64,
    /// Bytes that may be held before they are written.
    pub memory_bytes: usize,
    /// Whether every firing is kept, too.
    pub keep_activations: bool,
}

/// Encodes the activations of all windows, merges what was gathered, and writes latents and examples of each dictionary.
///
/// # Errors
/// Those of the dictionaries and the disk.
pub fn run(
    run: &mut Run,
    model: &Model,
    all: &[Harvested],
    acts: &Activations,
    windows: &[WindowRows],
    how: &How,
    progress: &dyn Progress,
) -> Result<()> {
    if run.stage(STAGE).is_some() {
        return all.iter().try_for_each(|harvested| verify::dictionary(run, &harvested.prefix()));
    }
    let mut gatherings = Vec::new();
    for harvested in all {
        let rules = Rules::of(model, harvested, how)?;
        gatherings.push(Gathering::new(harvested, acts, rules, how)?);
    }
    pass(run, &mut gatherings, acts, windows, how, progress)?;
    let mut found = Vec::new();
    for (harvested, gathering) in all.iter().zip(gatherings) {
        let rules = gathering.end();
        let parts = Parts::of(run, &harvested.place());
        // Of a cross-layer transcoder every latent's own layer is another; they write to sites of one kind all the same.
        let written = harvested.sites.written()[0];
        let mut shares = None;
        let mut describe = |rows: &mut [_]| {
            shares = vocabulary::describe(model, harvested.dictionary, written, rows, progress)?;
            Ok(())
        };
        let prefix = harvested.prefix();
        if let Some(fired) = Fired::of(&parts.fired, None)? {
            tables::write_firings(run, &prefix, &[fired], harvested.dictionary.n_latents())?;
        }
        let mut summary = tables::write(run, &prefix, &parts, n_rows(windows), &mut describe, progress)?;
        summary["name"] = json!(harvested.name);
        summary["kind"] = json!(harvested.dictionary.kind());
        summary["sites"] = harvested.sites.recorded();
        summary["site"] = json!(harvested.sites.reads[0].to_string());
        summary[MAP_VARIANCE] = json!(shares);
        rules.record(&mut summary);
        found.push(summary);
    }
    run.finish_stage(STAGE, stage_summary(&found, how.seed))?;
    Ok(())
}

/// What the manifest says of a harvest: of a run's only dictionary at the top too.
pub(crate) fn stage_summary(found: &[Value], seed: u64) -> Value {
    let mut summary = match found {
        [only] => only.clone(),
        _ => json!({"tokens": found.first().map(|first| &first["tokens"])}),
    };
    summary["level_grid"] = json!(exegete_base::levels::GRID_VERSION);
    summary["seed"] = json!(seed);
    summary["dictionaries"] = json!(found);
    summary
}

fn pass(
    run: &mut Run,
    gatherings: &mut [Gathering],
    acts: &Activations,
    windows: &[WindowRows],
    how: &How,
    progress: &dyn Progress,
) -> Result<()> {
    let mut written = gather::written(run, gatherings)?;
    let left = &windows[written.min(windows.len())..];
    let mut done = n_rows(windows) - n_rows(left);
    progress.begin(STAGE, n_rows(windows), "tokens", done);
    let (mut at, mut since) = (written, Instant::now());
    for (i, batch) in left.chunks(BATCH).enumerate() {
        progress.check()?;
        for gathering in gatherings.iter_mut() {
            gathering.take(acts, batch)?;
        }
        acts.forget(&batch.iter().flat_map(WindowRows::rows).collect::<Vec<_>>());
        at += batch.len();
        done += n_rows(batch);
        let firings: f64 = gatherings.iter().map(Gathering::l0).sum();
        progress.at(done, &format!("L0 {:.1}", firings / gatherings.len().max(1) as f64));
        let is_full =
            || i % LOOK == LOOK - 1 && gatherings.iter().map(Gathering::bytes).sum::<usize>() > how.memory_bytes;
        if at == windows.len() || since.elapsed() > EVERY || is_full() {
            write(run, gatherings, written, at)?;
            (written, since) = (at, Instant::now());
        }
    }
    // A shard may have got no document; it is a part of the whole all the same.
    if windows.is_empty() && run.parts_under(STAGE).is_empty() {
        write(run, gatherings, 0, 0)?;
    }
    progress.end(&format!("firings on {done} tokens"));
    Ok(())
}

fn write(run: &mut Run, gatherings: &mut [Gathering], from: usize, to: usize) -> Result<()> {
    gatherings.iter_mut().try_for_each(|gathering| gathering.write(run, from, to))
}

/// Removes the parts that the finished tables have made needless. Shards need them to be merged.
///
/// # Errors
/// The disk's.
pub fn remove_states(run: &mut Run) -> Result<()> {
    let parts: Vec<String> = run.manifest().parts.keys().filter(|rel| gather::is_state(rel)).cloned().collect();
    parts.iter().try_for_each(|rel| run.remove_part(rel))?;
    Ok(())
}

/// What accumulators keep under these settings.
fn accumulator_settings(how: &How) -> AccumulatorSettings {
    AccumulatorSettings {
        seed: how.seed,
        samples_per_level: how.keep.samples_per_level,
        n_top: how.keep.top_examples,
        context: how.keep.context,
        sketch: how.settings.sketch,
        window: how.window,
    }
}

/// The draw of tokens for correlations.
fn draw(how: &How) -> Draw {
    Draw::new(how.seed, how.settings.correlation_tokens, how.text_rows)
}
