//! The reference run: dictionaries of real activations, trained by us and by SAELens or dictionary_learning, from the same
//! first weights on the same batches in the same order, and measured alike on held-out documents.
//!
//! Peer: `bench/reference.py`. Whatever it trains is saved in its own layout, read as any other dictionary is, and measured
//! by the loop behind `exegete sae eval`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use exegete_base::Site;
use exegete_base::sampling::pair_hash;
use exegete_base::settings::{Activation, DecoderRows, Penalty, Reconstruction, StoredAs, TextSettings, TrainSettings};
use exegete_harvest::measure::{CE_RECOVERED, Measured, measure};
use exegete_harvest::rows::window_rows;
use exegete_harvest::training::Sites;
use exegete_harvest::windows::text_options;
use exegete_harvest::{Activations, Silent, cache, windows};
use exegete_model::Model;
use exegete_sae::Sae;
use exegete_sae::formats::{self, Choices};
use exegete_sae::kinds::{BatchTopK, Rule};
use exegete_sae::train::{TrainState, Trainer};
use exegete_store::{Corpus, Run, open_corpus};
use serde_json::json;

use crate::{Options, held_out, print, progress};

/// How far ours may be behind theirs, as a share.
const NEAR: f64 = 0.005;

/// A model, a site and a text.
struct Place {
    name: &'static str,
    model: PathBuf,
    site: &'static str,
    corpora: &'static [&'static str],
    tokens: u64,
    latents: usize,
    batch: usize,
    epochs: usize,
    k: usize,
}

/// A dictionary to be trained by both.
struct Case {
    name: &'static str,
    /// Its name in `bench/reference.py`.
    peer: &'static str,
    seeds: u64,
    settings: fn(&Place) -> TrainSettings,
}

const CASES: &[Case] = &[
    Case {
        name: "topk",
        peer: "dictionary_learning",
        seeds: 1,
        settings: |place| TrainSettings { decoder_rows: DecoderRows::Unit, ..common(place, Activation::TopK) },
    },
    Case {
        name: "relu",
        peer: "dictionary_learning",
        seeds: 1,
        settings: |place| TrainSettings { sparsity: 0.5, ..common(place, Activation::Relu) },
    },
    Case { name: "batchtopk", peer: "saelens", seeds: 3, settings: |place| common(place, Activation::BatchTopK) },
    Case {
        name: "jumprelu",
        peer: "saelens",
        seeds: 3,
        settings: |place| TrainSettings { sparsity: 1.0, ..common(place, Activation::JumpRelu) },
    },
];

/// What both sides do: Adam at a constant rate, no AuxK, squared errors summed over the width.
fn common(place: &Place, activation: Activation) -> TrainSettings {
    TrainSettings {
        latents: place.latents,
        activation,
        k: place.k,
        penalty: Penalty::Auto,
        sparsity: 0.0,
        sparsity_warmup: 0.0,
        threshold: 0.1,
        bandwidth: 0.5,
        decoder_rows: DecoderRows::Free,
        reconstruction: Reconstruction::Mse,
        epochs: place.epochs,
        batch: place.batch,
        lr: 3e-4,
        warmup: 0.0,
        decay: 0.0,
        aux_weight: 0.0,
        ..TrainSettings::default()
    }
}

fn text_settings(tokens: u64) -> TextSettings {
    TextSettings { max_tokens: tokens, ..TextSettings::default() }
}

/// Runs all cases on all models that are there.
pub(crate) fn bench(options: &Options) -> Result<()> {
    let data = std::env::var_os("EXEGETE_DATA").map(PathBuf::from).context("EXEGETE_DATA names the folder of texts")?;
    let places = [
        Place {
            name: "stories260K",
            model: data.join("models/stories260K/stories260K.bin"),
            site: "blocks.2.hook_resid_post",
            corpora: &["corpora/tinystories/tinystories.txt"],
            tokens: 300_000,
            latents: 1024,
            batch: 1024,
            epochs: 4,
            k: 8,
        },
        Place {
            name: "smollm2",
            model: crate::run::model()?,
            site: "blocks.9.hook_resid_post",
            corpora: &["corpora/wikitext2/valid.txt", "corpora/movie_reviews/movie_reviews.jsonl"],
            tokens: 600_000,
            latents: 4608,
            batch: 2048,
            epochs: 1,
            k: 40,
        },
    ];
    for place in &places {
        let name = |case: &Case| format!("{}_{}", case.name, place.name);
        let wanted = |case: &&Case| options.only.as_ref().is_none_or(|only| name(case).starts_with(only.as_str()));
        let cases: Vec<&Case> = CASES.iter().filter(wanted).collect();
        if cases.is_empty() {
            continue;
        }
        let folder = tempfile::tempdir()?;
        let there = Prepared::new(place, &data, folder.path())?;
        for case in cases {
            for seed in 0..if options.quick { 1 } else { case.seeds } {
                there.row(case, &name(case), seed, folder.path(), options)?;
            }
        }
    }
    Ok(())
}

/// A place with its activations written down.
struct Prepared<'a> {
    place: &'a Place,
    model: Model,
    sites: Sites,
    held: Corpus,
    d: usize,
    scale: f32,
    x: Vec<f32>,
}

impl<'a> Prepared<'a> {
    /// Splits the text by documents, runs the model over the training part, and writes the activations, scaled to a mean
    /// length of the root of their width, in the order of their hashes.
    fn new(place: &'a Place, data: &Path, folder: &Path) -> Result<Self> {
        let model = Model::open(&place.model)?;
        let paths: Vec<String> = place.corpora.iter().map(|name| data.join(name).display().to_string()).collect();
        let options = text_options(&text_settings(0));
        let [train, held] = held_out::split(&paths, folder, 10)?;
        let (train, held) = (open_corpus(&[train], &options)?, open_corpus(&[held], &options)?);
        let text = text_settings(place.tokens);
        let mut run = Run::create_or_resume(&folder.join("run"), "bench", json!({}), &[])?;
        let windows = window_rows(&windows::run(&mut run, &model, &train, (&text, None), &Silent)?)?;
        let site: Site = place.site.parse()?;
        progress(format_args!("{}: activations", place.name));
        cache::run(&mut run, &model, &[site], &windows, (text.window, StoredAs::F32), &Silent)?;
        let acts = Activations::cached(&run, &[site], &windows)?;
        let (d, n) = (acts.width(0), windows.iter().map(|w| w.len()).sum::<usize>());
        let n = n / place.batch * place.batch;
        let raw = acts.range(0, 0, n)?;
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_unstable_by_key(|row| (pair_hash(2, *row as u64, 0), *row));
        let mean =
            raw.chunks_exact(d).map(|row| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()).sum::<f64>();
        let scale = ((d as f64).sqrt() / (mean / n as f64)) as f32;
        let x: Vec<f32> = order.iter().flat_map(|row| &raw[row * d..(row + 1) * d]).copied().collect();
        write(&folder.join("x.f32"), x.iter().map(|x| x * scale))?;
        drop(acts);
        drop(run);
        std::fs::remove_dir_all(folder.join("run"))?;
        Ok(Self { place, model, sites: Sites::one(site), held, d, scale, x })
    }

    fn row(&self, case: &Case, name: &str, seed: u64, folder: &Path, options: &Options) -> Result<()> {
        let (settings, d) = ((case.settings)(self.place), self.d);
        let start = TrainState::init(&settings, d, self.scale, &vec![0.0; d], seed);
        write(&folder.join("w_dec.f32"), start.w_dec.values.iter().copied())?;
        let ours = self.train(&settings, start)?;
        progress(format_args!("{name}, seed {seed}: ours is trained"));
        let theirs = self.theirs(case, &settings, folder)?;
        // Which threshold a BatchTopK dictionary is saved with is no part of training: both get the exact one, on the same
        // tokens.
        let by_rank = |sae: Sae| match settings.activation {
            Activation::BatchTopK => {
                let sae = Sae { rule: Rule::BatchTopK(BatchTopK { k: settings.k }), ..sae };
                sae.calibrated(&self.x[..self.d * 8192.min(self.x.len() / self.d)])
            }
            _ => Ok(sae),
        };
        let (ours, theirs) = (by_rank(ours)?, by_rank(theirs)?);
        let (a, b) = (self.measured(&ours)?, self.measured(&theirs)?);
        let mut row = serde_json::Map::new();
        let mut put = |key: &str, value: serde_json::Value| row.insert(key.into(), value);
        put("row", json!(name));
        put("peer", json!(case.peer));
        put("seed", json!(seed));
        let mut met = true;
        // FVU may be lower, CE recovered higher; L0 is to be the same.
        for (key, measure, sign) in [("fvu", "FVU", -1.0), ("l0", "L0", 0.0), ("ce_recovered", CE_RECOVERED, 1.0)] {
            let (ours, theirs) = (a.value(measure), b.value(measure));
            let off = ours / theirs - 1.0;
            put(&format!("{key}_ours"), json!(ours));
            put(&format!("{key}_theirs"), json!(theirs));
            put(&format!("{key}_off"), json!(off));
            met &= if sign == 0.0 { off.abs() <= NEAR } else { off * sign >= -NEAR };
        }
        put("unit", json!("share"));
        put("n", json!(a.tokens));
        put("bar", json!(NEAR));
        put("met", json!(met));
        print(&row, options.json)
    }

    fn train(&self, settings: &TrainSettings, mut state: TrainState) -> Result<Sae> {
        let batches: Vec<&[f32]> = self.x.chunks_exact(settings.batch * self.d).collect();
        let mut trainer = Trainer::new(settings.clone(), (settings.epochs * batches.len()) as u64)?;
        for batch in (0..settings.epochs).flat_map(|_| &batches) {
            trainer.step(&mut state, batch, None)?;
        }
        Ok(state.dictionary(settings))
    }

    /// Their dictionary, from the same folder.
    fn theirs(&self, case: &Case, settings: &TrainSettings, folder: &Path) -> Result<Sae> {
        let python =
            std::env::var_os("EXEGETE_BENCH_PYTHON").context("EXEGETE_BENCH_PYTHON names the peer's Python")?;
        let out = folder.join("theirs");
        if out.exists() {
            std::fs::remove_dir_all(&out)?;
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("reference.py");
        let told = json!({
            "case": case.name, "epochs": settings.epochs, "d": self.d, "latents": settings.latents, "k": settings.k, "batch": settings.batch,
            "lr": settings.lr, "sparsity": settings.sparsity, "threshold": settings.threshold,
            "bandwidth": settings.bandwidth, "scale": self.scale, "threads": rayon::current_num_threads(),
        });
        let status = Command::new(python).arg(script).arg(folder).arg(told.to_string()).arg(&out).status()?;
        ensure!(status.success(), "bench/reference.py failed ({status})");
        Ok(formats::load(&out, &Choices::default())?.dictionary.into_sae()?)
    }

    fn measured(&self, sae: &Sae) -> Result<Measured> {
        let mut all = measure(&self.model, &[(sae, &self.sites)], &self.held, &text_settings(20_000), &Silent)?;
        all.pop().context("nothing was measured")
    }
}

fn write(path: &Path, values: impl Iterator<Item = f32>) -> Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(path)?);
    for value in values {
        file.write_all(&value.to_le_bytes())?;
    }
    Ok(file.flush()?)
}
