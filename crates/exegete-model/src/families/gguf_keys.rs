//! The metadata keys that llama.cpp writes for every architecture, read with the same rule as `config.json`: a key is
//! handled, or an error.

use std::path::Path;

use super::config::Defaults;
use crate::rope::{Frequencies, Rope, check_rotated, inverse_frequencies};
use crate::spec::{Mlp, ModelSpec, Norm};
use crate::weights::WeightSource;
use crate::weights::gguf::{Gguf, Meta, Texts};
use crate::{ModelError, Result};

/// Keys behind `<architecture>.` that are read here, or change nothing.
const KNOWN: &[&str] = &[
    "block_count",
    "context_length",
    "embedding_length",
    "feed_forward_length",
    "attention.head_count",
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "attention.layer_norm_rms_epsilon",
    "attention.layer_norm_epsilon",
    "attention.sliding_window",
    "attention.sliding_window_pattern",
    "rope.freq_base",
    "rope.dimension_count",
    "rope.scaling.type",
    "rope.scaling.factor",
    "rope.scaling.original_context_length",
    "rope.scaling.attn_factor",
    "rope.scaling.finetuned",
    "vocab_size",
];

/// Metadata with its keys checked.
pub(super) struct GgufKeys<'a> {
    path: &'a Path,
    file: &'a Gguf,
    architecture: &'a str,
}

impl<'a> GgufKeys<'a> {
    /// Checks every key of the architecture against the common ones and the family's `own`.
    pub(super) fn checked(path: &'a Path, file: &'a Gguf, own: &[&str]) -> Result<Self> {
        let architecture = file.metadata.text("general.architecture").unwrap_or_default();
        let prefix = format!("{architecture}.");
        let known = |key: &str| KNOWN.contains(&key) || own.contains(&key);
        match file.metadata.keys().find(|k| k.strip_prefix(&prefix).is_some_and(|rest| !known(rest))) {
            Some(key) => {
                let detail = format!("metadata key {key:?} is not known, and may change what the model computes");
                Err(ModelError::config(path, detail))
            }
            None => Ok(Self { path, file, architecture }),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.architecture)
    }

    fn wrong(&self, key: &str, wanted: &str) -> ModelError {
        ModelError::config(self.path, format!("metadata key {:?} must be {wanted}", self.key(key)))
    }

    fn meta(&self, key: &str) -> Option<&'a Meta> {
        self.file.metadata.get(&self.key(key))
    }

    /// A whole number that must be there.
    pub(super) fn size(&self, key: &str) -> Result<usize> {
        self.file.metadata.size(&self.key(key)).ok_or_else(|| self.wrong(key, "a whole number"))
    }

    pub(super) fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.meta(key).is_none() { Ok(default) } else { self.size(key) }
    }

    pub(super) fn maybe_number(&self, key: &str) -> Result<Option<f64>> {
        let number = || self.file.metadata.number(&self.key(key)).ok_or_else(|| self.wrong(key, "a number"));
        self.meta(key).map(|_| number()).transpose()
    }

    pub(super) fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        Ok(self.maybe_number(key)?.unwrap_or(default))
    }

    pub(super) fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        let flag = || self.file.metadata.flag(&self.key(key)).ok_or_else(|| self.wrong(key, "true or false"));
        self.meta(key).map_or(Ok(default), |_| flag())
    }

    /// Refuses any other value than `value`.
    pub(super) fn only(&self, key: &str, value: usize) -> Result<()> {
        match self.size_or(key, value)? == value {
            true => Ok(()),
            false => Err(self.wrong(key, &format!("{value}, the only value that is handled for this family"))),
        }
    }

    /// Rotated dimensions of a head, checked before anything of that length is made.
    pub(super) fn rotated(&self, d_head: usize) -> Result<usize> {
        let key = "rope.dimension_count";
        let rotated = self.size_or(key, d_head)?;
        let fail = |detail| ModelError::config(self.path, format!("metadata key {:?}: {detail}", self.key(key)));
        check_rotated(rotated, d_head).map_err(fail)?;
        Ok(rotated)
    }

    /// Fills in vocabulary, context, MLP, heads and special tokens.
    pub(super) fn sizes(&self, spec: &mut ModelSpec) -> Result<()> {
        let m = &self.file.metadata;
        spec.set_d_head(self.size_or("attention.key_length", spec.d_model / spec.n_heads.max(1))?);
        if self.size_or("attention.value_length", spec.d_head)? != spec.d_head {
            return Err(self.wrong("attention.value_length", &format!("the head width {}", spec.d_head)));
        }
        spec.n_kv_heads = self.size_or("attention.head_count_kv", spec.n_heads)?;
        spec.d_mlp = self.size("feed_forward_length")?;
        spec.max_positions = self.size_or("context_length", 2048)?;
        let rows = self.file.shape("token_embd.weight").and_then(|shape| shape.first().copied());
        let found = m.texts("tokenizer.ggml.tokens").map(Texts::len).or(rows);
        let missing = || self.wrong("vocab_size", "a whole number, as the file has neither tokens nor an embedding");
        // Some converters write the tokenizer's size here, where the embedding has more rows.
        spec.vocab_size = match rows {
            Some(rows) => rows,
            None => self.size_or("vocab_size", found.ok_or_else(missing)?)?,
        };
        spec.tied = !self.file.has("output.weight");
        let id = |key: &str| m.size(key).and_then(|v| u32::try_from(v).ok());
        spec.bos_id = id("tokenizer.ggml.bos_token_id");
        // A turn may end with a token of its own.
        let ends = ["eos_token_id", "eot_token_id", "eom_token_id"];
        spec.eos_ids = ends.iter().filter_map(|key| id(&format!("tokenizer.ggml.{key}"))).collect();
        Ok(())
    }

    /// A pre-norm decoder with RMSNorm, a gated MLP and one rotation for all layers.
    pub(super) fn decoder(&self, family: &str, defaults: &Defaults) -> Result<ModelSpec> {
        let norm = Norm::Rms { eps: self.number_or("attention.layer_norm_rms_epsilon", defaults.eps)? as f32 };
        let (n_layers, d_model, n_heads) =
            (self.size("block_count")?, self.size("embedding_length")?, self.size("attention.head_count")?);
        let plain = ModelSpec::plain(family, n_layers, d_model, n_heads, norm, Mlp::Gated(defaults.act));
        let mut spec = plain.map_err(|detail| ModelError::config(self.path, detail))?;
        self.sizes(&mut spec)?;
        spec.set_rope(self.rope(spec.d_head, defaults.theta)?);
        Ok(spec)
    }

    fn rope(&self, d_head: usize, theta: f64) -> Result<Rope> {
        let theta = self.number_or("rope.freq_base", theta)?;
        let mut inv = inverse_frequencies(theta, self.rotated(d_head)?);
        let kind = self.file.metadata.text(&self.key("rope.scaling.type")).unwrap_or("none");
        match kind {
            // LongRoPE's factors are tensors, which the family reads.
            "none" | "longrope" => {}
            "linear" => {
                let factor = self.number_or("rope.scaling.factor", 1.0)? as f32;
                inv.iter_mut().for_each(|f| *f /= factor);
            }
            _ => return Err(self.wrong("rope.scaling.type", "none, linear or longrope")),
        }
        // Llama 3.1's stretching of long waves is stored as a divisor for each plane.
        if self.file.has("rope_freqs.weight") {
            let by = self.file.read("rope_freqs.weight")?;
            if by.len() != inv.len() || by.iter().any(|b| *b <= 0.0) {
                let detail = format!("rope_freqs.weight has {} values; {} positive ones fit", by.len(), inv.len());
                return Err(ModelError::weights(self.path, detail));
            }
            inv.iter_mut().zip(by).for_each(|(f, by)| *f /= by);
        }
        Ok(Rope { frequencies: Frequencies::Fixed(inv), factor: 1.0 })
    }

    /// Windows, where the file names their length: by its own pattern, or by the architecture's.
    pub(super) fn set_windows(&self, spec: &mut ModelSpec, usual: impl Fn(usize) -> bool) -> Result<()> {
        let window = match self.size_or("attention.sliding_window", 0)? {
            0 => return Ok(()),
            n => n,
        };
        let pattern = self.meta("attention.sliding_window_pattern");
        let wrong = || self.wrong("attention.sliding_window_pattern", "a truth value for each layer, or a period");
        for l in 0..spec.n_layers {
            let windowed = match pattern {
                None => usual(l),
                Some(Meta::Int(period)) => (l as i128 + 1) % (*period).max(1) != 0,
                Some(Meta::Flags(flags)) => *flags.get(l).ok_or_else(wrong)?,
                Some(_) => return Err(wrong()),
            };
            spec.layers[l].window = windowed.then_some(window);
        }
        Ok(())
    }
}
