//! Direct feature attribution of attention dictionaries (Kissane et al. 2024, arXiv 2406.17759, section 3.2): a head's output at a
//! token is a sum over the tokens before it, pattern times value, and so is a latent's pre-activation, whose encoder is linear in
//! the heads' outputs. Of each latent's strongest firings it is told what every token before adds.

use std::collections::{BTreeMap, BTreeSet};

use exegete_base::{DocId, Site, SiteKind};
use exegete_model::{Batch, Hooks, Logits, Model};
use exegete_sae::Dictionary;
pub use exegete_store::attributions::TABLE;
use exegete_store::{Attribution, AttributionReader, Example, ExampleKind, ExampleReader, Run, write_attributions};
use exegete_tensor::{Tape, f32s};
use rayon::prelude::*;

use crate::capture::{BATCH, padded};
use crate::firings::{Harvested, LATENTS};
use crate::rows::WindowRows;
use crate::{HarvestError, Progress, Result};

/// The stage's name.
pub const STAGE: &str = "attribution";

/// Tells of every dictionary that reads the outputs of a layer's heads where its strongest firings come from. Dictionaries of other
/// sites, and those whose encoder is not linear in its input, have no such table.
///
/// # Errors
/// Those of the model and the disk.
pub fn run(
    run: &mut Run,
    model: &Model,
    all: &[Harvested],
    windows: &[WindowRows],
    len: usize,
    progress: &dyn Progress,
) -> Result<()> {
    if run.stage(STAGE).is_some() {
        return Ok(());
    }
    let mut told = Vec::new();
    for harvested in all {
        let Some((site, layer)) = heads(harvested) else { continue };
        let name = format!("{}{TABLE}", harvested.prefix());
        if !run.part_done(&name) {
            let heads = Heads { model, layer, len };
            let found = heads.attributions(run, harvested, windows, progress)?;
            run.commit_part(&name, found.len() as u64, |w| write_attributions(w, &found))?;
        }
        told.push(serde_json::json!({"dictionary": harvested.name, "site": site.to_string()}));
    }
    if !told.is_empty() {
        run.finish_stage(STAGE, serde_json::json!({"dictionaries": told}))?;
    }
    Ok(())
}

/// Whether it is told of a dictionary where its strongest firings come from, which takes a pass of the model of its own.
pub fn is_told(harvested: &Harvested) -> bool {
    heads(harvested).is_some()
}

/// The heads whose outputs a dictionary reads, and their layer: those of one layer, through an encoder that is linear.
fn heads(harvested: &Harvested) -> Option<(Site, usize)> {
    let [site] = harvested.sites.reads[..] else { return None };
    let layer = site.layer.filter(|_| site.kind == SiteKind::AttnZ)?;
    harvested.dictionary.encoder_row(0).map(|_| (site, layer))
}

/// Takes over what shards tell of the strongest firings of the whole, each of which is among those of its shard.
///
/// # Errors
/// Damaged parts; the disk's.
pub(crate) fn merge(run: &mut Run, shards: &[Run], prefix: &str) -> Result<()> {
    let name = format!("{prefix}{TABLE}");
    if run.part_done(&name) || !shards.iter().any(|shard| shard.part_done(&name)) {
        return Ok(());
    }
    let readers: Vec<AttributionReader> =
        shards.iter().map(|shard| AttributionReader::open(&shard.path(&name))).collect::<exegete_store::Result<_>>()?;
    let mut kept = Vec::new();
    for examples in top_examples(run, prefix)?.chunk_by(|a, b| a.latent == b.latent) {
        let latent = examples[0].latent;
        let there: BTreeSet<_> = examples.iter().map(|e| (e.doc, e.window, e.position)).collect();
        for reader in &readers {
            let told = reader.latent(latent)?;
            kept.extend(told.into_iter().filter(|a| there.contains(&(a.doc, a.window, a.position))));
        }
    }
    run.commit_part(&name, kept.len() as u64, |w| write_attributions(w, &kept))?;
    Ok(())
}

/// The strongest firings of all latents, latent by latent.
fn top_examples(run: &Run, prefix: &str) -> Result<Vec<Example>> {
    let reader = ExampleReader::open(&run.parts_under(&format!("{prefix}examples/part-")))?;
    let mut all = Vec::new();
    for row in exegete_store::read_latents(&run.path(&format!("{prefix}{LATENTS}")))? {
        all.extend(reader.latent(row.latent)?.into_iter().filter(|e| e.kind == ExampleKind::Top));
    }
    Ok(all)
}

/// The heads of a layer.
struct Heads<'a> {
    model: &'a Model,
    layer: usize,
    /// Tokens of the longest window.
    len: usize,
}

impl Heads<'_> {
    fn attributions(
        &self,
        run: &Run,
        harvested: &Harvested,
        windows: &[WindowRows],
        progress: &dyn Progress,
    ) -> Result<Vec<Attribution>> {
        let examples = top_examples(run, &harvested.prefix())?;
        let mut by_window: BTreeMap<(DocId, u32), Vec<&Example>> = BTreeMap::new();
        for example in &examples {
            by_window.entry((example.doc, example.window)).or_default().push(example);
        }
        let read: Vec<&WindowRows> =
            windows.iter().filter(|w| by_window.contains_key(&(w.window.doc, w.window.window))).collect();
        let mut found = Vec::with_capacity(examples.len());
        progress.begin(STAGE, examples.len() as u64, "firings", 0);
        for batch in read.chunks(BATCH) {
            progress.check()?;
            found.extend(self.batch(harvested.dictionary, batch, &by_window)?);
            progress.at(found.len() as u64, "");
        }
        progress.end(&format!("sources of {} firings", found.len()));
        Ok(found)
    }

    /// Runs windows once more, with the patterns and the values of the layer.
    fn batch(
        &self,
        dictionary: &dyn Dictionary,
        batch: &[&WindowRows],
        by_window: &BTreeMap<(DocId, u32), Vec<&Example>>,
    ) -> Result<Vec<Attribution>> {
        let sites = [SiteKind::AttnPattern, SiteKind::AttnV, SiteKind::AttnZ].map(|kind| Site::at(kind, self.layer));
        let mut hooks = sites.iter().fold(Hooks::none(), |hooks, site| hooks.tap(*site));
        hooks.stop_after_layer = Some(self.layer);
        let ids = padded(batch, self.len);
        self.model.run(&Tape::new(), &Batch::uniform(ids, BATCH), None, &mut hooks, Logits::None)?;
        let tapped = |site: Site| {
            let value = hooks.value(site).ok_or_else(|| HarvestError::Request(format!("{site} was not reached")))?;
            Ok::<_, HarvestError>(f32s(value.tensor())?)
        };
        let (pattern, v, z) = (tapped(sites[0])?, tapped(sites[1])?, tapped(sites[2])?);
        let spec = &self.model.spec;
        let (n_heads, n_kv, dh) = (spec.n_heads, spec.n_kv_heads, spec.d_head);
        let one = |(row, example): (usize, &&Example)| {
            let position = example.position as usize;
            let token = row * self.len + position;
            let encoder = dictionary.encoder_row(example.latent.0 as usize).unwrap_or_default();
            let unit = dictionary.unit(&z[token * n_heads * dh..(token + 1) * n_heads * dh]);
            let pattern = &pattern[token * n_heads * self.len..(token + 1) * n_heads * self.len];
            let mut values = vec![0f32; position + 1];
            for (source, value) in values.iter_mut().enumerate() {
                let v = &v[(row * self.len + source) * n_kv * dh..(row * self.len + source + 1) * n_kv * dh];
                let mut sum = 0f64;
                for head in 0..n_heads {
                    // Heads of a group share their values.
                    let at = head / (n_heads / n_kv) * dh;
                    let read: f32 =
                        v[at..at + dh].iter().zip(&encoder[head * dh..(head + 1) * dh]).map(|(v, w)| v * w).sum();
                    sum += f64::from(pattern[head * self.len + source] * read);
                }
                *value = (sum / f64::from(unit)) as f32;
            }
            let Example { latent, doc, window, position, .. } = **example;
            Attribution { latent, doc, window, position, values }
        };
        let of = |(row, w): (usize, &&WindowRows)| {
            let examples = by_window.get(&(w.window.doc, w.window.window));
            examples.into_iter().flatten().map(move |example| (row, example))
        };
        let asked: Vec<(usize, &&Example)> = batch.iter().enumerate().flat_map(of).collect();
        Ok(asked.into_par_iter().map(one).collect())
    }
}
