//! Opening a model from whatever its path holds.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::families::{self, Understood};
use crate::rope::RopeTables;
use crate::tokens::LazyTokenizer;
use crate::weights::gguf::Gguf;
use crate::weights::llama2c::Llama2c;
use crate::weights::{LoadOptions, SafetensorsDir, WeightSource, Weights};
use crate::{ChatTemplate, ModelError, ModelSpec, Result, Tokenizer};

/// A model, loaded.
pub struct Model {
    /// What it is.
    pub spec: Arc<ModelSpec>,
    /// Its weights.
    pub weights: Weights,
    /// Its chat template, where the checkpoint has one.
    pub chat: Option<ChatTemplate>,
    /// Where it came from.
    pub path: PathBuf,
    pub(crate) ropes: RopeTables,
    tokenizer: Option<LazyTokenizer>,
}

impl Model {
    /// Opens a Hugging Face directory, a `.gguf` file or a llama2.c `.bin` (with `tok*.bin` or `tokenizer.bin`
    /// beside it).
    ///
    /// # Errors
    /// Anything missing, damaged or not understood; see [`ModelError`].
    pub fn open(path: &Path) -> Result<Self> {
        Self::open_with(path, &LoadOptions::default())
    }

    /// As [`Model::open`], saying how weights are kept and processed.
    ///
    /// # Errors
    /// As for [`Model::open`].
    pub fn open_with(path: &Path, options: &LoadOptions) -> Result<Self> {
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
        if path.is_dir() {
            Self::open_dir(path, options)
        } else if !path.exists() {
            Err(ModelError::io(path, std::io::Error::new(std::io::ErrorKind::NotFound, "no such file or directory")))
        } else if extension == "gguf" {
            Self::open_gguf(path, options)
        } else if extension == "bin" {
            Self::open_llama2c(path, options)
        } else {
            let detail = "not a model: expected a directory with config.json, a .gguf file or a llama2.c .bin file";
            Err(ModelError::format(path, detail))
        }
    }

    fn open_dir(dir: &Path, options: &LoadOptions) -> Result<Self> {
        let path = dir.join("config.json");
        let (source, understood) = if path.exists() {
            let bytes = std::fs::read(&path).map_err(|e| ModelError::io(&path, e))?;
            let config =
                serde_json::from_slice(&bytes).map_err(|e| ModelError::format(&path, format!("not JSON: {e}")))?;
            let understood = families::understand_config(&path, &config)?;
            (SafetensorsDir::open(dir)?, understood)
        } else {
            let source = SafetensorsDir::open(dir)?;
            let config = families::config_of_metadata(&source).ok_or_else(|| {
                let detail = "there is no config.json, and model.safetensors has neither names nor metadata that say \
                              what the model is";
                ModelError::format(dir, detail)
            })?;
            let understood = families::understand_config(&dir.join("model.safetensors"), &config)?;
            (source, understood)
        };
        let mut understood = understood;
        add_generation_ends(dir, &mut understood.spec)?;
        let tokenizer = dir.join("tokenizer.json").exists().then(|| {
            let (dir, bos_id) = (dir.to_owned(), understood.spec.bos_id);
            LazyTokenizer::new(move || Tokenizer::from_dir(&dir, bos_id))
        });
        Self::assemble(&source, understood, tokenizer, ChatTemplate::from_dir(dir)?, (dir, options))
    }

    fn open_gguf(path: &Path, options: &LoadOptions) -> Result<Self> {
        let source = Gguf::open(path)?;
        let understood = families::understand_gguf(path, &source)?;
        let (m, spec) = (&source.metadata, &understood.spec);
        let tokenizer = m.get("tokenizer.ggml.tokens").map(|_| {
            let (path, m, bos_id) = (path.to_owned(), m.clone(), spec.bos_id);
            LazyTokenizer::new(move || Tokenizer::from_gguf(&path, &m, bos_id))
        });
        let pieces = m.texts("tokenizer.ggml.tokens");
        let spelling = |id: Option<u32>| id.and_then(|id| pieces?.iter().nth(id as usize)).unwrap_or_default();
        let chat = m.text("tokenizer.chat_template");
        let chat =
            chat.map(|text| ChatTemplate::new(text, spelling(spec.bos_id), spelling(spec.eos_ids.first().copied())));
        Self::assemble(&source, understood, tokenizer, chat, (path, options))
    }

    fn open_llama2c(path: &Path, options: &LoadOptions) -> Result<Self> {
        let (source, understood) = Llama2c::open(path)?;
        let vocab_size = understood.spec.vocab_size;
        let beside = [format!("tok{vocab_size}.bin"), "tokenizer.bin".into()].map(|name| path.with_file_name(name));
        let tokenizer = beside
            .into_iter()
            .find(|p| p.is_file())
            .map(|found| LazyTokenizer::new(move || Tokenizer::from_llama2c(&found, vocab_size)));
        Self::assemble(&source, understood, tokenizer, None, (path, options))
    }

    fn assemble(
        source: &dyn WeightSource,
        understood: Understood,
        tokenizer: Option<LazyTokenizer>,
        chat: Option<ChatTemplate>,
        (path, options): (&Path, &LoadOptions),
    ) -> Result<Self> {
        let (weights, spec) = Weights::load(source, &understood, options)?;
        let (spec, ropes) = (Arc::new(spec), RopeTables::default());
        Ok(Self { spec, weights, chat, path: path.into(), ropes, tokenizer })
    }

    /// Whether the checkpoint has a tokenizer.
    pub fn has_tokenizer(&self) -> bool {
        self.tokenizer.is_some()
    }

    /// The tokenizer. It is built at the first call.
    ///
    /// # Errors
    /// The checkpoint has none; it is malformed, or belongs to another model.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        let lazy = self.tokenizer.as_ref().ok_or_else(|| {
            ModelError::Tokenizer(format!(
                "{} has none; put its tokenizer.json beside the weights",
                self.path.display()
            ))
        })?;
        lazy.get(self.spec.vocab_size)
    }
}

/// Adds the tokens that end a turn: instruct models often name them in `generation_config.json` alone.
fn add_generation_ends(dir: &Path, spec: &mut ModelSpec) -> Result<()> {
    let path = dir.join("generation_config.json");
    let Ok(bytes) = std::fs::read(&path) else { return Ok(()) };
    let config: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|e| ModelError::format(&path, format!("not JSON: {e}")))?;
    let ids = match &config["eos_token_id"] {
        serde_json::Value::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    for id in ids.iter().filter_map(|id| id.as_u64().and_then(|id| u32::try_from(id).ok())) {
        if !spec.eos_ids.contains(&id) {
            spec.eos_ids.push(id);
        }
    }
    Ok(())
}
