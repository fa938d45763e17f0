//! Layouts of dictionaries on disk, one file each, and the table by which a path finds its own.
//!
//! A layout is known by its files and the names of its tensors, never by what it is hoped to be: a path that fits none is
//! refused with what was looked for. What a layout leaves open (how many latents a token keeps, which way a square matrix
//! lies) is asked for, not guessed.

mod choose;
mod circuit_tracer;
pub mod cross_layer;
pub mod crosscoder;
mod dictionary_learning;
mod gemma_scope;
mod gemma_scope_2;
mod goodfire;
mod llama_scope;
mod named;
mod openai;
pub mod saelens;
mod sparsify;
mod tensors;

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::containers::{self, Arrays};
use crate::{AnyDictionary, InputNorm, Result, SaeError};
pub use choose::files_of;
use tensors::Tensors;

/// A dictionary with the open map of facts that travels with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Saved {
    /// The dictionary.
    pub dictionary: AnyDictionary,
    /// SAELens's `metadata`: model and hook names, and whatever else; unknown keys are kept.
    pub metadata: Map<String, Value>,
    /// Name of the layout it was read from.
    pub format: &'static str,
    /// What was understood on the way that changes numbers: conventions, foldings, defaults. Sentences for people.
    pub notes: Vec<String>,
    /// Mean number of active latents, as the publisher states it.
    pub published_l0: Option<f64>,
    /// Fraction of variance explained, as the publisher states it.
    pub published_variance: Option<f64>,
}

impl Saved {
    /// A dictionary of which nothing else is known.
    pub fn new(dictionary: impl Into<AnyDictionary>, format: &'static str) -> Self {
        let (dictionary, notes, metadata) = (dictionary.into(), Vec::new(), Map::new());
        Self { dictionary, metadata, format, notes, published_l0: None, published_variance: None }
    }

    /// The site it reads, if the layout says so.
    pub fn site(&self) -> Option<&str> {
        self.metadata.get("hook_name").and_then(Value::as_str)
    }

    /// Whether it is one code for several sites, whose values lie behind each other.
    pub fn is_crosscoder(&self) -> bool {
        let by_layout = [crosscoder::NAME, crosscoder::KISSANE_NAME].contains(&self.format);
        let by_sites = self.site().is_some_and(|site| site.contains(','));
        let AnyDictionary::Sae(sae) = &self.dictionary else { return false };
        by_layout || by_sites || sae.site_gates.is_some()
    }

    fn fact(&mut self, key: &str, value: impl Into<Value>) {
        self.metadata.insert(key.into(), value.into());
    }

    fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }
}

/// What is said about a dictionary from outside, because its files do not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Choices {
    /// The layout, by name.
    pub format: Option<String>,
    /// Latents kept for each token.
    pub k: Option<usize>,
    /// What inputs were multiplied by, where the files say that they were and not by what.
    pub input_factor: Option<f64>,
    /// What is done to an input, instead of what the files say.
    pub norm: Option<InputNorm>,
}

/// Names of files and their contents.
pub type Files = Vec<(String, Vec<u8>)>;

/// A layout.
struct Format {
    name: &'static str,
    /// What is there, for the message that nothing fits.
    looks_like: &'static str,
    /// The files of a directory of this layout, in each of the ways that occur; none where a dictionary is a single file. A
    /// name with `{}` stands for those of all layers.
    files: &'static [&'static [&'static str]],
    fits: fn(&Place) -> bool,
    read: fn(&Place, &Choices) -> Result<Saved>,
    write: Option<fn(&Saved) -> Result<Files>>,
}

/// All layouts, the more telling ones first.
const FORMATS: &[Format] = &[
    Format {
        name: saelens::NAME,
        looks_like: "cfg.json and sae_weights.safetensors",
        files: &[&[saelens::CONFIG, saelens::WEIGHTS]],
        fits: saelens::fits,
        read: saelens::read,
        write: Some(saelens::write),
    },
    Format {
        name: sparsify::NAME,
        looks_like: "cfg.json and sae.safetensors",
        files: &[&sparsify::FILES],
        fits: sparsify::fits,
        read: sparsify::read,
        write: Some(sparsify::write),
    },
    Format {
        name: gemma_scope_2::NAME,
        looks_like: "config.json and params.safetensors",
        files: &[&[gemma_scope_2::CONFIG, gemma_scope_2::WEIGHTS], &[gemma_scope_2::WEIGHTS]],
        fits: gemma_scope_2::fits,
        read: gemma_scope_2::read,
        write: None,
    },
    Format {
        name: gemma_scope::NAME,
        looks_like: "params.npz",
        files: &[&[gemma_scope::WEIGHTS]],
        fits: gemma_scope::fits,
        read: gemma_scope::read,
        write: Some(gemma_scope::write),
    },
    Format {
        name: crosscoder::NAME,
        looks_like: "config.json of sae_type crosscoder, and sae_weights.safetensors",
        files: &[&crosscoder::FILES],
        fits: crosscoder::fits,
        read: crosscoder::read,
        write: Some(crosscoder::write),
    },
    Format {
        name: crosscoder::KISSANE_NAME,
        looks_like: "cfg.json and cc_weights.pt",
        files: &[&crosscoder::KISSANE_FILES],
        fits: crosscoder::fits_kissane,
        read: crosscoder::read_kissane,
        write: None,
    },
    Format {
        name: cross_layer::NAME,
        looks_like: "W_enc_0.safetensors, W_dec_0.safetensors and so on",
        files: &[&cross_layer::FILES, &cross_layer::FILES_ALONE],
        fits: cross_layer::fits,
        read: cross_layer::read,
        write: Some(cross_layer::write),
    },
    Format {
        name: cross_layer::GEMMA_NAME,
        looks_like: "params_layer_0.safetensors and so on",
        files: &[&cross_layer::GEMMA_FILES],
        fits: cross_layer::fits_gemma,
        read: cross_layer::read_gemma,
        write: None,
    },
    Format {
        name: llama_scope::NAME,
        looks_like: "hyperparams.json and checkpoints/final.safetensors, or config.json and sae_weights.safetensors",
        files: &[&llama_scope::FIRST, &llama_scope::LATER],
        fits: llama_scope::fits,
        read: llama_scope::read,
        write: None,
    },
    Format {
        name: dictionary_learning::NAME,
        looks_like: "ae.pt and config.json",
        files: &[&dictionary_learning::FILES],
        fits: dictionary_learning::fits,
        read: dictionary_learning::read,
        write: None,
    },
    Format {
        name: openai::NAME,
        looks_like: "a PyTorch file with pre_bias and latent_bias",
        files: &[],
        fits: openai::fits,
        read: openai::read,
        write: None,
    },
    Format {
        name: goodfire::NAME,
        looks_like: "a PyTorch file with encoder_linear and decoder_linear, or encoder and decoder",
        files: &[],
        fits: goodfire::fits,
        read: goodfire::read,
        write: None,
    },
    Format {
        name: circuit_tracer::NAME,
        looks_like: "layer_N.safetensors with W_enc, W_dec, b_enc and b_dec",
        files: &[],
        fits: circuit_tracer::fits,
        read: circuit_tracer::read,
        write: None,
    },
    Format {
        name: named::NAME,
        looks_like: "a PyTorch file with W_enc, W_dec, b_enc and b_dec",
        files: &[],
        fits: named::fits,
        read: named::read,
        write: None,
    },
];

/// Names of all layouts.
pub fn names() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().map(|f| f.name)
}

/// Names of the layouts that can be written.
pub fn writable() -> impl Iterator<Item = &'static str> {
    FORMATS.iter().filter(|f| f.write.is_some()).map(|f| f.name)
}

/// A dictionary in a layout, for whoever owns the directory that it goes to.
///
/// # Errors
/// A layout that cannot be written; arrays that do not fit together; what the layout has no place for.
pub fn write(saved: &Saved, format: &str) -> Result<Files> {
    saved.dictionary.check()?;
    let write = FORMATS.iter().find(|f| f.name == format).and_then(|f| f.write).ok_or_else(|| {
        let known = writable().collect::<Vec<_>>().join(", ");
        SaeError::Unknown(format!("no layout {format:?} can be written; there are {known}"))
    })?;
    // Layouts of one encoder at one site would take the arrays of these, and say nothing.
    let only = match &saved.dictionary {
        AnyDictionary::CrossLayer(_) => Some(("cross-layer transcoder", cross_layer::NAME)),
        AnyDictionary::Sae(_) => saved.is_crosscoder().then_some(("crosscoder", crosscoder::NAME)),
    };
    if let Some((what, layout)) = only.filter(|(_, layout)| *layout != format) {
        return Err(SaeError::Shape(format!(
            "layout {format} has no place for a {what}; {layout} has: give --to {layout}"
        )));
    }
    write(saved)
}

/// Reads a dictionary from a directory or a file, by what it looks like or by the layout that is named.
///
/// # Errors
/// Nothing there; no layout that fits; a layout's own: missing, unused, mis-shaped or damaged tensors, keys that are not
/// understood, and what must be chosen.
pub fn load(path: &Path, choices: &Choices) -> Result<Saved> {
    let place = Place::new(path)?;
    let format = match &choices.format {
        Some(name) => FORMATS.iter().find(|f| f.name == name).ok_or_else(|| {
            SaeError::Shape(format!("no layout {name:?}; there are {}", names().collect::<Vec<_>>().join(", ")))
        })?,
        None => FORMATS.iter().find(|f| (f.fits)(&place)).ok_or_else(|| {
            let known: Vec<String> = FORMATS.iter().map(|f| format!("{} ({})", f.name, f.looks_like)).collect();
            SaeError::format(path, format!("no dictionary that is known here; looked for {}", known.join("; ")))
        })?,
    };
    let mut saved = (format.read)(&place, choices)?;
    // What our own training measured, whatever the layout.
    let fvu = saved.metadata.get("exegete_fvu").and_then(|fvu| fvu["value"].as_f64());
    saved.published_variance = saved.published_variance.or(fvu.map(|fvu| 1.0 - fvu));
    saved.dictionary.check().map_err(|e| SaeError::format(path, e.to_string()))?;
    Ok(saved)
}

/// A directory or file that may hold a dictionary.
struct Place {
    path: PathBuf,
    is_dir: bool,
}

impl Place {
    fn new(path: &Path) -> Result<Self> {
        let kind = std::fs::metadata(path).map_err(|source| SaeError::Io { path: path.into(), source })?;
        Ok(Self { path: path.into(), is_dir: kind.is_dir() })
    }

    fn has(&self, name: &str) -> bool {
        self.is_dir && self.path.join(name).is_file()
    }

    /// The file `name` of a directory, or the file itself.
    fn file(&self, name: &str) -> PathBuf {
        if self.is_dir { self.path.join(name) } else { self.path.clone() }
    }

    /// The last part of the path, and the parts before it.
    fn parts(&self) -> impl Iterator<Item = String> + '_ {
        self.path.iter().rev().map(|part| part.to_string_lossy().into_owned())
    }

    fn json(&self, name: &str) -> Result<(PathBuf, Value)> {
        let path = self.path.join(name);
        let bytes = std::fs::read(&path).map_err(|source| SaeError::Io { path: path.clone(), source })?;
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok((path, value)),
            Err(e) => Err(SaeError::format(&path, format!("not JSON ({e})"))),
        }
    }

    fn tensors(&self, name: &str) -> Result<Tensors> {
        let path = self.file(name);
        let arrays = containers::read(&path)?;
        // Sizes are taken from shapes, and a length of 0 would let another length of the same shape be anything.
        match arrays.arrays.iter().find(|(_, array)| array.shape.contains(&0)) {
            Some((name, array)) => {
                Err(SaeError::format(&path, format!("tensor {name:?} of shape {:?} holds nothing", array.shape)))
            }
            None => Ok(Tensors::new(path, arrays)),
        }
    }

    /// The arrays of the file itself, if it is one; a damaged one is none.
    fn arrays(&self) -> Option<Arrays> {
        if self.is_dir { None } else { containers::read(&self.path).ok() }
    }

    /// Whether it is a file that has all these tensors.
    fn holds(&self, names: &[&str]) -> bool {
        self.arrays().is_some_and(|a| names.iter().all(|n| a.arrays.contains_key(*n)))
    }
}

fn json_of(config: &Value) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(config).map_err(|e| SaeError::Shape(e.to_string()))
}

/// `[rows, cols]` to `[cols, rows]`.
fn transposed(x: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    let mut out = vec![0f32; x.len()];
    for r in 0..rows {
        for c in 0..cols {
            out[c * rows + r] = x[r * cols + c];
        }
    }
    out
}
