//! Several dictionaries in one pass, or one after the other on the same activations.

use std::time::Instant;

use anyhow::{Context, Result};
use exegete_base::sampling::pair_hash;
use exegete_base::settings::{Activation, StoredAs, TextSettings, TrainSettings};
use exegete_base::{Site, SiteKind};
use exegete_harvest::rows::window_rows;
use exegete_harvest::training::{self, CheckpointEvery, Job, Subject};
use exegete_harvest::windows::{self, text_options};
use exegete_harvest::{Activations, Silent, cache};
use exegete_model::Model;
use exegete_store::{Run, open_corpus};
use serde_json::json;
use tempfile::TempDir;

use super::Case;

/// Words of the text; what they are does not matter to how long anything takes.
const WORDS: u64 = 4000;

/// A model pass, and the training of four dictionaries on what it gave.
pub(super) struct Several {
    model: Model,
    jobs: Vec<Job>,
    /// Whether each has a pass over the activations of its own.
    apart: bool,
    folder: TempDir,
    fvus: Vec<f32>,
}

impl Several {
    pub(super) fn new(model: Model, apart: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let word = |i: u64| format!("word{}", pair_hash(3, i, 0) % 5000);
        let text = |doc: u64| (0..100).map(|i| word(doc * 100 + i)).collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = (0..WORDS / 100).map(|doc| json!({"text": text(doc)}).to_string()).collect();
        std::fs::write(folder.path().join("text.jsonl"), lines.join("\n"))?;
        let job = |(name, activation, latents): (&str, Activation, usize)| Job {
            name: Some(name.into()),
            settings: TrainSettings {
                activation,
                latents,
                epochs: 4,
                batch: 1024,
                aux_weight: 0.0,
                ..TrainSettings::default()
            },
            seed: 0,
        };
        let kinds = [
            ("topk", Activation::TopK, 4096),
            ("wide", Activation::TopK, 8192),
            ("batchtopk", Activation::BatchTopK, 4096),
            ("jumprelu", Activation::JumpRelu, 4096),
        ];
        Ok(Self { model, jobs: kinds.map(job).into(), apart, folder, fvus: Vec::new() })
    }
}

impl Case for Several {
    fn run(&mut self) -> Result<f64> {
        let text = TextSettings { max_tokens: 0, ..TextSettings::default() };
        let dir = self.folder.path().join("run");
        let mut run = Run::create_or_resume(&dir, "bench", json!({}), &[])?;
        let path = self.folder.path().join("text.jsonl").display().to_string();
        let corpus = open_corpus(&[path], &text_options(&text))?;
        let windows = window_rows(&windows::run(&mut run, &self.model, &corpus, (&text, None), &Silent)?)?;
        let site = Site::at(SiteKind::ResidPost, 9);
        let start = Instant::now();
        cache::run(&mut run, &self.model, &[site], &windows, (text.window, StoredAs::F32), &Silent)?;
        let acts = Activations::cached(&run, &[site], &windows)?;
        let subject =
            Subject { model: &self.model, name: "bench".into(), windows: &windows, seed: 0, buffer_tokens: 0 };
        for jobs in self.jobs.chunks(if self.apart { 1 } else { self.jobs.len() }) {
            let jobs: Vec<Job> = jobs.iter().map(|job| on_site(job, site)).collect();
            training::run(&mut run, &acts, &subject, &jobs, CheckpointEvery::Steps(1 << 20), &Silent)?;
        }
        let secs = start.elapsed().as_secs_f64();
        self.fvus.clear();
        for job in &self.jobs {
            let summary = run.stage(&job.stage()).context("a dictionary is missing")?;
            self.fvus.push(summary["fvu"]["value"].as_f64().context("a dictionary has no FVU")? as f32);
        }
        drop(acts);
        drop(run);
        std::fs::remove_dir_all(dir)?;
        Ok(secs)
    }

    fn result(&mut self) -> Result<Vec<f32>> {
        Ok(self.fvus.clone())
    }
}

fn on_site(job: &Job, site: Site) -> Job {
    let settings = TrainSettings { site: Some(site.to_string()), ..job.settings.clone() };
    Job { settings, ..job.clone() }
}
