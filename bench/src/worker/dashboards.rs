//! From tokens to finished dashboards: a pass of the model to layer 9, a dictionary's codes, examples at every level, logits,
//! neighbours, correlations, and the batches that Neuronpedia reads.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use exegete_base::settings::{Activation, HarvestSettings, KeepSettings, TextSettings, TrainSettings};
use exegete_base::{DocId, Site, SiteKind};
use exegete_harvest::firings::{self, Harvested, How};
use exegete_harvest::rows::window_rows;
use exegete_harvest::training::{self, CheckpointEvery, Job, Sites, Subject};
use exegete_harvest::windows::{self, text_options};
use exegete_harvest::{Activations, Silent};
use exegete_model::Model;
use exegete_sae::formats::{Choices, Saved, load};
use exegete_store::interop::{Grouping, Origin, RunSource, saedashboard};
use exegete_store::run::part_name;
use exegete_store::{Run, TokenReader, Window, open_corpus, read_latents, write_vocab, write_windows};
use serde_json::json;

use super::Case;
use crate::machine::Phase;

/// Windows, and the tokens of each.
const WINDOWS: usize = 1024;
const LEN: usize = 128;
const LATENTS: usize = 1024;
/// Latents in a file.
const BATCH: usize = 128;
const LAYER: usize = 9;

/// Writes what both sides read: tokens (`tokens.i32`), and a dictionary trained on the first quarter of them (`sae/`, as SAELens
/// keeps it).
pub(crate) fn write_dashboards(folder: &Path, model: &Path) -> Result<()> {
    if folder.join("tokens.i32").exists() {
        return Ok(());
    }
    let data =
        std::env::var_os("EXEGETE_DATA").context("EXEGETE_DATA does not name the data pack, whose text is read")?;
    let model = Model::open(model)?;
    let text = TextSettings { max_tokens: 0, window: LEN, ..TextSettings::default() };
    let path = Path::new(&data).join("corpora/wikitext2").display().to_string();
    let mut run = Run::create_or_resume(&folder.join("text"), "bench", json!({}), &[])?;
    let corpus = open_corpus(&[path], &text_options(&text))?;
    let reader = windows::run(&mut run, &model, &corpus, (&text, None), &Silent)?;
    // Of whole windows alone, so that both sides see rows of one length.
    let whole = (0..reader.len()).filter_map(|i| reader.window(i).ok().flatten()).filter(|w| w.token_ids.len() == LEN);
    let ids: Vec<u32> = whole.take(WINDOWS).flat_map(|w| w.token_ids).collect();
    ensure!(ids.len() == WINDOWS * LEN, "the text has {} tokens in whole windows", ids.len());
    let dir = folder.join("trained");
    let mut trained = Run::create_or_resume(&dir, "bench", json!({}), &[])?;
    write_tokens(&mut trained, &model, &ids[..WINDOWS / 4 * LEN])?;
    let rows = window_rows(&TokenReader::open(&trained.parts_under("tokens/part-"))?)?;
    let site = Site::at(SiteKind::ResidPost, LAYER);
    let settings = TrainSettings {
        site: Some(site.to_string()),
        activation: Activation::TopK,
        latents: LATENTS,
        k: 32,
        epochs: 4,
        batch: 1024,
        ..TrainSettings::default()
    };
    let acts = Activations::streamed(&model, &[site], &rows, LEN)?;
    let subject = Subject { model: &model, name: "bench".into(), windows: &rows, seed: 0, buffer_tokens: 1 << 15 };
    let jobs = [Job { name: None, settings, seed: 0 }];
    training::run(&mut trained, &acts, &subject, &jobs, CheckpointEvery::Steps(1 << 20), &Silent)?;
    std::fs::rename(dir.join("sae"), folder.join("sae"))?;
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    Ok(std::fs::write(folder.join("tokens.i32"), bytes)?)
}

/// Puts tokens into a run, a document a window, as if a text had been cut into them.
fn write_tokens(run: &mut Run, model: &Model, ids: &[u32]) -> Result<()> {
    let window =
        |(i, ids): (usize, &[u32])| Window { doc: DocId(i as u64), window: 0, start: 0, token_ids: ids.to_vec() };
    let all: Vec<Window> = ids.chunks(LEN).enumerate().map(window).collect();
    run.commit_part(&part_name("tokens", 0), all.len() as u64, |w| write_windows(w, &all))?;
    let tokenizer = model.tokenizer()?;
    let vocab: Vec<Vec<u8>> = (0..tokenizer.n_ids() as u32).map(|id| tokenizer.token_bytes(id)).collect();
    run.commit_part("tokens/vocab.parquet", vocab.len() as u64, |w| write_vocab(w, &vocab))?;
    run.finish_stage(windows::STAGE, json!({"tokens": ids.len(), "windows": all.len(), "window_len": LEN}))?;
    Ok(())
}

/// A harvest and its export.
pub(super) struct Dashboards {
    model: Model,
    saved: Saved,
    ids: Vec<u32>,
    folder: PathBuf,
    largest: Vec<f32>,
}

impl Dashboards {
    pub(super) fn open(model: Model, folder: &Path) -> Result<Self> {
        let bytes = std::fs::read(folder.join("tokens.i32"))?;
        let ids = bytes.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b)).collect();
        let saved = load(&folder.join("sae"), &Choices::default())?;
        Ok(Self { model, saved, ids, folder: folder.to_owned(), largest: Vec::new() })
    }
}

impl Case for Dashboards {
    fn run(&mut self) -> Result<f64> {
        let dir = self.folder.join("ours");
        let start = Instant::now();
        let mut run = Run::create_or_resume(&dir, "bench", json!({"model": "SmolLM2-135M"}), &[])?;
        write_tokens(&mut run, &self.model, &self.ids)?;
        let rows = window_rows(&TokenReader::open(&run.parts_under("tokens/part-"))?)?;
        let site = Site::at(SiteKind::ResidPost, LAYER);
        let acts = Activations::streamed(&self.model, &[site], &rows, LEN)?;
        let first: Vec<Window> = rows.iter().take(windows::N_FIRST).map(|w| w.window.clone()).collect();
        let (keep, settings) =
            (KeepSettings { top_examples: 20, samples_per_level: 4, context: 16 }, HarvestSettings::default());
        let how = How {
            keep: &keep,
            settings: &settings,
            seed: 0,
            window: LEN,
            first: &first,
            text_rows: (WINDOWS * (LEN - 1)) as u64,
            memory_bytes: 1 << 30,
            keep_activations: false,
        };
        let all = [Harvested { name: None, dictionary: &*self.saved.dictionary, sites: Sites::one(site) }];
        firings::run(&mut run, &self.model, &all, &acts, &rows, &how, &Silent)?;
        firings::remove_states(&mut run)?;
        let source = RunSource::open(&dir, None)?;
        let (origin, how) = (Origin::of_source("smollm2", "9-bench"), Grouping::default());
        for (i, rows) in source.latents().chunks(BATCH).enumerate() {
            let features = rows.iter().map(|row| source.feature(row, &how)).collect::<Result<Vec<_>, _>>()?;
            let json = serde_json::to_vec(&saedashboard::write(&origin, &features))?;
            std::fs::write(dir.join(format!("batch-{i}.json")), json)?;
        }
        let secs = start.elapsed().as_secs_f64();
        let rows = read_latents(&run.path(firings::LATENTS))?;
        self.largest = rows.iter().map(|row| row.stats.max).collect();
        drop(run);
        std::fs::remove_dir_all(dir)?;
        Ok(secs)
    }

    /// The largest activation of each latent.
    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(self.largest.clone())
    }

    fn phases(&self) -> Vec<Phase> {
        let spec = &self.model.spec;
        let (d, v, f, n) = (spec.d_model as f64, spec.vocab_size as f64, LATENTS as f64, (WINDOWS * LEN) as f64);
        let layers = (spec.n_parameters() as f64 - v * d) / spec.n_layers as f64 * (LAYER + 1) as f64;
        vec![Phase { flops: 2.0 * (n * (layers + d * f) + f * d * (v + f)), ..Phase::default() }]
    }
}
