//! Training the organism.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use exegete_harvest::Progress;
use exegete_model::families::{Understood, understand_config};
use exegete_model::weights::{Weights, safetensors_bytes};
use exegete_model::{Batch, Hooks, Logits, Model, Part, Residence, Tokenizer};
use exegete_store::run::take_lock;
use exegete_store::{clean_temporaries, is_temporary};
use exegete_tensor::cpu::packed::instructions;
use exegete_tensor::optim::AdamW;
use exegete_tensor::{Device, Tape, Value, f32s, tensor};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::state::{Progressed, TrainState, other_settings};
use super::vocabulary;
use super::{OrganismSettings, write_file};
use crate::language::Language;
use crate::{LabError, Result};

/// Decays of the moments: the second as for language models (Brown et al. 2020).
const ADAM: AdamW = AdamW { betas: (0.9, 0.95), eps: 1e-8 };
/// The file that marks a directory as that of a training.
const BEGUN: &str = "training.json";
/// Time between checkpoints.
const SAVE_EVERY: Duration = Duration::from_secs(60);
/// Documents turned into tokens at a time.
const AHEAD: u64 = 64;

/// The file beside a model that says how it was trained.
pub const TRAINING: &str = "organism.json";

/// How a model was trained: with these numbers its training documents can be made again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    /// The seed.
    pub seed: u64,
    /// How far it came.
    pub at: Progressed,
    /// Its settings.
    pub settings: OrganismSettings,
    /// The version of the program that took the last steps, where that was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The set of instructions on which it took them, where that was recorded: weights are exact on machines of one set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instructions: Option<String>,
}

impl Training {
    /// Reads it from a model's directory.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(TRAINING);
        let bytes = std::fs::read(&path).map_err(LabError::io(&path))?;
        serde_json::from_slice(&bytes).map_err(|e| LabError::format(&path, format!("not a record of a training: {e}")))
    }
}

/// A training under way.
pub struct Trainer {
    language: Language,
    settings: OrganismSettings,
    residence: Residence,
    device: Option<Device>,
    seed: u64,
    dir: PathBuf,
    understood: Understood,
    model: Model,
    state: TrainState,
    /// Held open for its lock.
    _lock: std::fs::File,
    /// Documents as tokens, begun and ended, that no step has taken yet.
    ready: Vec<Vec<u32>>,
}

/// What a step did.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Mean loss, in nats a token.
    pub loss: f64,
    /// Norm of the gradient before it was shortened.
    pub grad_norm: f64,
    /// Tokens.
    pub tokens: usize,
}

impl Trainer {
    /// Begins a training in a directory, or goes on with the one that is there. With a device, products run there,
    /// forward and backward.
    ///
    /// # Errors
    /// Settings that make no sense, a directory with another training, the file system's, the device's.
    pub fn open(
        dir: &Path,
        settings: &OrganismSettings,
        seed: u64,
        residence: Residence,
        device: Option<Device>,
    ) -> Result<Self> {
        settings.check()?;
        let language = Language::new();
        let (model_dir, state_path) = (dir.join("model"), dir.join("state.safetensors"));
        let config_path = model_dir.join("config.json");
        let understood = understand_config(&config_path, &settings.config())?;
        let recorded = recorded(settings, seed, residence)?;
        let begun = dir.join(BEGUN);
        // What a writer that was killed has left is nothing.
        let is_left = |entry: std::io::Result<std::fs::DirEntry>| entry.is_ok_and(|entry| is_temporary(&entry.path()));
        let is_empty = std::fs::read_dir(dir).map_or(true, |mut entries| entries.all(is_left));
        match (begun.exists(), is_empty) {
            (true, _) => drop(read_begun(&begun)?),
            // Before anything else, so that a training that is killed here can be begun again.
            (false, true) => write_file(&begun, format!("{recorded}\n").as_bytes())?,
            (false, false) => {
                let detail = "not empty, and no training; give a new or empty directory as --out";
                return Err(LabError::format(dir, detail));
            }
        }
        let lock = take_lock(dir)?;
        clean_temporaries(dir)?;
        let is_new = !state_path.exists();
        if is_new && model_dir.join(TRAINING).exists() {
            let detail = "missing, though model/organism.json tells of a training; put it back, or give another --out";
            return Err(LabError::format(&state_path, detail));
        }
        match read_begun(&begun)? {
            there if there.trim() == recorded => {}
            // Nothing has come of it: it may begin with other settings.
            _ if is_new => write_file(&begun, format!("{recorded}\n").as_bytes())?,
            there => {
                return Err(LabError::format(&begun, other_settings(&there, &recorded)));
            }
        }
        let state = match is_new {
            false => TrainState::read(&state_path, &understood.spec, &recorded)?,
            true => TrainState::new(&understood.spec, seed),
        };
        // The state and the seed hold all that is in the model's directory.
        let files = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"];
        if is_new || files.iter().any(|name| !model_dir.join(name).exists()) {
            vocabulary::write(&model_dir, &vocabulary::learn(&language, seed, settings.vocabulary)?)?;
            write_file(&config_path, format!("{:#}\n", settings.config()).as_bytes())?;
            write_model(&model_dir, &understood, &state)?;
        }
        clean_temporaries(&model_dir)?;
        if is_new {
            write_file(&state_path, &state.to_bytes(&recorded)?)?;
        }
        let model = Model::open(&model_dir)?;
        let (settings, dir) = (settings.clone(), dir.to_owned());
        let ready = Vec::new();
        let mut this =
            Self { language, settings, residence, device, seed, dir, understood, model, state, _lock: lock, ready };
        this.refresh()?;
        Ok(this)
    }

    /// How far it is.
    pub fn state(&self) -> &TrainState {
        &self.state
    }

    /// The model as it is now.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Gives the model the parameters of the state.
    fn refresh(&mut self) -> Result<()> {
        let state = &self.state;
        let weights = Weights::from_values(&self.understood.spec, self.residence, |w| state.values(w).to_vec())?;
        self.model.weights = weights.on(self.device.as_ref())?;
        Ok(())
    }

    /// The documents of the next step.
    fn next_rows(&mut self) -> Result<Vec<Vec<u32>>> {
        let (mut rows, mut n) = (Vec::new(), 0);
        while n < self.settings.batch_tokens {
            if self.ready.is_empty() {
                let (tokenizer, language, seed) = (self.model.tokenizer()?, &self.language, self.seed);
                let settings = &self.settings;
                let from = self.state.at.documents + rows.len() as u64;
                let made =
                    (from..from + AHEAD).into_par_iter().map(|i| document(settings, language, tokenizer, seed, i));
                self.ready = made.collect::<Result<Vec<_>>>()?;
                self.ready.reverse();
            }
            if let Some(row) = self.ready.pop() {
                n += row.len() - 1;
                rows.push(row);
            }
        }
        Ok(rows)
    }

    /// Takes a step.
    ///
    /// # Errors
    /// The model's; a loss that is no number.
    pub fn step(&mut self) -> Result<Step> {
        let rows = self.next_rows()?;
        self.step_on(&rows)
    }

    /// Takes a step on given documents, each of two tokens or more.
    ///
    /// # Errors
    /// As for [`Trainer::step`].
    pub fn step_on(&mut self, rows: &[Vec<u32>]) -> Result<Step> {
        let at = self.state.at;
        let (loss, grads) = self.gradients(rows)?;
        let norm = grads.iter().map(|g| g.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>()).sum::<f64>().sqrt();
        if !loss.is_finite() || !norm.is_finite() {
            let detail = format!("the loss at step {} is no number; a smaller --lr may help", at.step);
            return Err(LabError::Failed(detail));
        }
        let shorter = (self.settings.clip / norm).min(1.0) as f32;
        let (lr, t) = (self.settings.lr_at(at.tokens), at.step + 1);
        for ((w, parameter), mut grad) in self.state.parameters.iter_mut().zip(grads) {
            if shorter < 1.0 {
                grad.iter_mut().for_each(|g| *g *= shorter);
            }
            let decays = self.understood.spec.weight_shape(*w).len() == 2 && w.part != Part::Embed;
            let decay = if decays { self.settings.weight_decay } else { 0.0 };
            parameter.step(ADAM, lr, decay, t, &grad);
        }
        let tokens: usize = rows.iter().map(|r| r.len() - 1).sum();
        self.state.at.step += 1;
        self.state.at.tokens += tokens as u64;
        self.state.at.documents += rows.len() as u64;
        self.refresh()?;
        Ok(Step { loss, grad_norm: norm, tokens })
    }

    /// Mean loss of predicting each token from those before it, and its gradients in the order of the parameters.
    ///
    /// # Errors
    /// The model's.
    pub fn gradients(&self, rows: &[Vec<u32>]) -> Result<(f64, Vec<Vec<f32>>)> {
        let inputs: Vec<Vec<u32>> = rows.iter().map(|r| r[..r.len() - 1].to_vec()).collect();
        let targets: Vec<u32> = rows.iter().flat_map(|r| r[1..].iter().copied()).collect();
        let mut hooks = Hooks::none();
        for (w, _) in &self.state.parameters {
            hooks = hooks.watch_weight(*w);
        }
        let tape = Tape::new();
        let logits = self.model.run(&tape, &Batch::rows(&inputs), None, &mut hooks, Logits::All)?;
        let logits = logits.ok_or_else(|| LabError::Failed("the model gave no logits".into()))?;
        let losses = tape.cross_entropy(&logits, &targets)?;
        let n = targets.len();
        let loss = f32s(losses.tensor())?.iter().map(|x| f64::from(*x)).sum::<f64>() / n as f64;
        let seed = tensor(vec![1.0 / n as f32; n], losses.tensor().dims())?;
        let watched: Vec<&Value> = self.state.parameters.iter().filter_map(|(w, _)| hooks.weight(*w)).collect();
        let grads = tape.gradients(&losses, &seed, &watched)?;
        Ok((loss, grads.iter().map(|g| Ok(f32s(g)?.to_vec())).collect::<Result<_>>()?))
    }

    /// Writes the state and the model.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&self) -> Result<()> {
        write_model(&self.dir.join("model"), &self.understood, &self.state)?;
        let recorded = recorded(&self.settings, self.seed, self.residence)?;
        let history = Training {
            seed: self.seed,
            at: self.state.at,
            settings: self.settings.clone(),
            version: Some(env!("CARGO_PKG_VERSION").into()),
            instructions: Some(match &self.device {
                None => instructions().into(),
                Some(_) => format!("{}, products on a device", instructions()),
            }),
        };
        let history = serde_json::to_string_pretty(&history).map_err(|e| LabError::Failed(e.to_string()))?;
        write_file(&self.dir.join("model").join(TRAINING), format!("{history}\n").as_bytes())?;
        // Last: what the state says to be done is there.
        write_file(&self.dir.join("state.safetensors"), &self.state.to_bytes(&recorded)?)
    }

    /// The model's weights as a safetensors file, in f32 or bf16.
    ///
    /// # Errors
    /// The format's.
    pub fn weights(&self, residence: Residence) -> Result<Vec<u8>> {
        Ok(safetensors_bytes(&self.understood, residence, |w| self.state.values(w).to_vec())?)
    }

    /// Multiply-adds times two of a token's forward and backward pass, without attention's products of positions.
    pub fn flops_a_token(&self) -> f64 {
        6.0 * self.understood.spec.n_parameters() as f64
    }
}

/// What must be the same for a training to go on.
fn recorded(settings: &OrganismSettings, seed: u64, residence: Residence) -> Result<String> {
    let value =
        serde_json::json!({"settings": settings, "seed": seed, "dtype": format!("{residence:?}").to_lowercase()});
    Ok(value.to_string())
}

/// What a directory says of the training that was begun in it.
fn read_begun(path: &Path) -> Result<String> {
    let there = std::fs::read_to_string(path).map_err(LabError::io(path))?;
    let is_training =
        serde_json::from_str(&there).is_ok_and(|v: serde_json::Value| v["settings"]["vocabulary"].is_u64());
    match is_training {
        true => Ok(there),
        false => Err(LabError::format(path, "not the beginning of a training; give a new or empty directory as --out")),
    }
}

/// A document as tokens, begun and ended.
fn document(
    settings: &OrganismSettings,
    language: &Language,
    tokenizer: &Tokenizer,
    seed: u64,
    index: u64,
) -> Result<Vec<u32>> {
    let mut ids = vocabulary::document(tokenizer, &settings.document(language, seed, index))?;
    ids.truncate(super::settings::CONTEXT + 1);
    Ok(ids)
}

fn write_model(dir: &Path, understood: &Understood, state: &TrainState) -> Result<()> {
    let bytes = safetensors_bytes(understood, Residence::Bf16, |w| state.values(w).to_vec())?;
    write_file(&dir.join("model.safetensors"), &bytes)
}

/// Trains until all tokens are read, saving every minute.
///
/// # Errors
/// As for [`Trainer::open`] and [`Trainer::step`]; [`LabError::Saved`] if the user stops it.
pub fn train(trainer: &mut Trainer, progress: &dyn Progress) -> Result<()> {
    let all = trainer.settings.tokens;
    progress.begin("train", all, "tokens", trainer.state.at.tokens);
    let (mut saved, mut smooth, begun) = (Instant::now(), None, Instant::now());
    let first = trainer.state.at.tokens;
    while trainer.state.at.tokens < all {
        if progress.is_cancelled() {
            trainer.save()?;
            return Err(LabError::Saved { path: trainer.dir.clone() });
        }
        let step = trainer.step()?;
        let loss = smooth.map_or(step.loss, |s: f64| s + 0.05 * (step.loss - s));
        smooth = Some(loss);
        let rate = (trainer.state.at.tokens - first) as f64 / begun.elapsed().as_secs_f64();
        let note = format!("loss {loss:.3}, {:.0} GFLOP/s", rate * trainer.flops_a_token() / 1e9);
        progress.at(trainer.state.at.tokens.min(all), &note);
        if saved.elapsed() >= SAVE_EVERY {
            trainer.save()?;
            saved = Instant::now();
        }
    }
    trainer.save()?;
    let loss = smooth.map(|loss| format!(", loss {loss:.3}")).unwrap_or_default();
    progress.end(&format!("{} steps{loss}", trainer.state.at.step));
    Ok(())
}
