//! The harvest: every cached activation is encoded, and each latent's firings are gathered.

use exegete_base::LatentId;
use exegete_base::settings::KeepSettings;
use exegete_model::Model;
use exegete_sae::{Codes, Dictionary};
use exegete_store::run::part_name;
use exegete_store::{AccumulatorSettings, Accumulators, LatentRow, Run, write_examples, write_latents};
use serde_json::json;

use crate::Activations;
use crate::rows::{WindowRows, n_rows};
use crate::{Progress, Result, vocabulary};

/// The stage's name in the manifest.
pub const STAGE: &str = "harvest";
/// The finished table of latents.
pub const LATENTS: &str = "latents.parquet";
/// Windows in a part.
const PART: usize = 1024;
/// Windows encoded together.
const BATCH: usize = 32;
/// Latents in a part of the examples.
const EXAMPLE_PART: usize = 4096;

fn state_name(idx: usize) -> String {
    part_name("harvest", idx)
}

/// Encodes the activations of the first site part by part, merges the parts, and writes latents and examples.
///
/// # Errors
/// Those of the dictionary and the disk.
pub fn run(
    run: &mut Run,
    model: &Model,
    dictionary: &dyn Dictionary,
    acts: &Activations,
    windows: &[WindowRows],
    (keep, seed): (&KeepSettings, u64),
    progress: &dyn Progress,
) -> Result<()> {
    if run.stage(STAGE).is_some() {
        return Ok(());
    }
    let settings = AccumulatorSettings {
        seed,
        samples_per_level: keep.samples_per_level,
        n_top: keep.top_examples,
        context: keep.context,
    };
    let parts: Vec<&[WindowRows]> = windows.chunks(PART).collect();
    let is_done = |run: &Run, i: usize| run.part_done(&state_name(i));
    let rows_of = |part: &[WindowRows]| part.iter().map(|w| w.len() as u64).sum::<u64>();
    let mut done: u64 = (0..parts.len()).filter(|i| is_done(run, *i)).map(|i| rows_of(parts[i])).sum();
    progress.begin(STAGE, n_rows(windows), "tokens", done);
    for (i, part) in parts.iter().enumerate() {
        if is_done(run, i) {
            continue;
        }
        let mut firings = Accumulators::new(dictionary.n_latents(), settings);
        for batch in part.chunks(BATCH) {
            progress.check()?;
            gather(&mut firings, dictionary, acts, batch)?;
            done += rows_of(batch);
            progress.at(done, "");
        }
        run.commit_part(&state_name(i), rows_of(part), |w| firings.write_state(w))?;
    }
    let mut firings = Accumulators::new(dictionary.n_latents(), settings);
    for i in 0..parts.len() {
        firings.merge(Accumulators::read_state(&run.path(&state_name(i)))?)?;
    }
    progress.end(&format!("{} latents fired on {} tokens", firings.n_alive(), firings.n_tokens()));
    finish(run, model, dictionary, &firings, seed, progress)
}

/// Removes the parts that the finished table has made needless.
///
/// # Errors
/// The disk's.
pub fn remove_states(run: &mut Run, windows: &[WindowRows]) -> Result<()> {
    for i in 0..windows.len().div_ceil(PART) {
        run.remove_part(&state_name(i))?;
    }
    Ok(())
}

fn finish(
    run: &mut Run,
    model: &Model,
    dictionary: &dyn Dictionary,
    firings: &Accumulators,
    seed: u64,
    progress: &dyn Progress,
) -> Result<()> {
    let latents: Vec<LatentId> = (0..firings.n_latents() as u32).map(LatentId).collect();
    let row = |latent: &LatentId| LatentRow::new(*latent, firings.stats(*latent), firings.n_tokens());
    let mut rows: Vec<LatentRow> = latents.iter().map(row).collect();
    vocabulary::describe(model, dictionary, &mut rows, progress)?;
    for (i, part) in latents.chunks(EXAMPLE_PART).enumerate() {
        let examples: Vec<_> = part.iter().flat_map(|latent| firings.examples(*latent)).collect();
        run.commit_part(&part_name("examples", i), examples.len() as u64, |w| write_examples(w, &examples))?;
    }
    run.commit_part(LATENTS, rows.len() as u64, |w| write_latents(w, &rows))?;
    let summary = json!({
        "tokens": firings.n_tokens(), "firings": firings.n_firings(), "alive": firings.n_alive(),
        "n_latents": firings.n_latents(), "level_grid": exegete_base::levels::GRID_VERSION, "seed": seed,
    });
    run.finish_stage(STAGE, summary)?;
    Ok(())
}

/// Encodes a batch of windows and pushes the firings of each, latent by latent.
fn gather(
    firings: &mut Accumulators,
    dictionary: &dyn Dictionary,
    acts: &Activations,
    batch: &[WindowRows],
) -> Result<()> {
    let Some(first) = batch.first() else { return Ok(()) };
    let n: usize = batch.iter().map(WindowRows::len).sum();
    let x = acts.range(0, first.first, n)?;
    let codes = dictionary.encode(&x)?;
    let (mut triples, mut positions, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for w in batch {
        collect(&codes, w, (w.first - first.first) as usize, &mut triples);
        for group in triples.chunk_by(|a: &(u32, u32, f32), b| a.0 == b.0) {
            positions.clear();
            values.clear();
            positions.extend(group.iter().map(|t| t.1));
            values.extend(group.iter().map(|t| t.2));
            let (window, len) = (&w.window, w.window.token_ids.len());
            firings.push_group(window.doc, window.window, window.start, len, LatentId(group[0].0), &positions, &values);
        }
        firings.add_tokens(w.len() as u64);
    }
    Ok(())
}

/// The firings of a window as (latent, position in the window, value), sorted.
fn collect(codes: &Codes, w: &WindowRows, from: usize, triples: &mut Vec<(u32, u32, f32)>) {
    triples.clear();
    for row in 0..w.len() {
        triples.extend(codes.of(from + row).map(|(latent, value)| (latent, row as u32 + 1, value)));
    }
    triples.sort_unstable_by_key(|t| (t.0, t.1));
}
