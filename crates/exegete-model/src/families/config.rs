//! Reading a configuration that fails closed: every key is handled, known to be harmless, or an error.

use std::path::Path;

use exegete_tensor::Act;
use serde_json::Value;

use super::rope_keys::{self, Around};
use crate::rope::Frequencies;
use crate::spec::{Mlp, ModelSpec, Norm};
use crate::{ModelError, Result};

/// What a family does with a key of its configuration.
pub enum Rule {
    /// It is read.
    Handled,
    /// It changes nothing in the forward pass.
    Ignored,
    /// Only this value (JSON text) is handled.
    Only(&'static str),
}

/// The keys of a family.
pub type Rules = &'static [(&'static str, Rule)];

/// Keys that transformers writes for every family and that no forward pass reads.
pub const COMMON: Rules = &[
    ("model_type", Rule::Handled),
    ("architectures", Rule::Ignored),
    ("auto_map", Rule::Ignored),
    ("_name_or_path", Rule::Ignored),
    ("_attn_implementation_autoset", Rule::Ignored),
    ("torch_dtype", Rule::Ignored),
    ("dtype", Rule::Ignored),
    ("transformers_version", Rule::Ignored),
    ("transformers.js_config", Rule::Ignored),
    ("use_cache", Rule::Ignored),
    ("initializer_range", Rule::Ignored),
    ("pad_token_id", Rule::Ignored),
    ("unk_token_id", Rule::Ignored),
    ("sep_token_id", Rule::Ignored),
    ("cls_token_id", Rule::Ignored),
    ("decoder_start_token_id", Rule::Ignored),
    ("attn_implementation", Rule::Ignored),
    ("_attn_implementation", Rule::Ignored),
    ("_commit_hash", Rule::Ignored),
    ("cache_implementation", Rule::Ignored),
    ("id2label", Rule::Ignored),
    ("label2id", Rule::Ignored),
    ("problem_type", Rule::Ignored),
    ("task_specific_params", Rule::Ignored),
    ("chunk_size_feed_forward", Rule::Only("0")),
    ("is_encoder_decoder", Rule::Only("false")),
    ("add_cross_attention", Rule::Only("false")),
    ("cross_attention_hidden_size", Rule::Only("null")),
    ("output_attentions", Rule::Ignored),
    ("output_hidden_states", Rule::Ignored),
    ("return_dict", Rule::Ignored),
    ("is_decoder", Rule::Ignored),
    ("is_llama_config", Rule::Ignored),
    ("quantization_config", Rule::Only("null")),
];

/// Keys of almost every decoder, which [`decoder`] reads.
pub const DECODER: Rules = &[
    ("hidden_size", Rule::Handled),
    ("intermediate_size", Rule::Handled),
    ("num_hidden_layers", Rule::Handled),
    ("num_attention_heads", Rule::Handled),
    ("num_key_value_heads", Rule::Handled),
    ("head_dim", Rule::Handled),
    ("hidden_act", Rule::Handled),
    ("vocab_size", Rule::Handled),
    ("max_position_embeddings", Rule::Handled),
    ("rms_norm_eps", Rule::Handled),
    ("rope_theta", Rule::Handled),
    ("rope_scaling", Rule::Handled),
    ("rope_parameters", Rule::Handled),
    ("tie_word_embeddings", Rule::Handled),
    ("bos_token_id", Rule::Handled),
    ("eos_token_id", Rule::Handled),
    ("attention_dropout", Rule::Ignored),
];

/// What a family's keys mean where they are missing.
pub struct Defaults {
    /// `rms_norm_eps`
    pub eps: f64,
    /// `rope_theta`
    pub theta: f64,
    /// `head_dim`; `None` for `hidden_size / num_attention_heads`.
    pub d_head: Option<usize>,
    /// `tie_word_embeddings`
    pub tied: bool,
    /// `hidden_act`
    pub act: Act,
}

/// The defaults of Llama.
pub const LLAMA: Defaults = Defaults { eps: 1e-6, theta: 10_000.0, d_head: None, tied: false, act: Act::Silu };

/// Reads the keys of [`DECODER`]: a pre-norm decoder with RMSNorm, a gated MLP and one rotation for all layers.
///
/// # Errors
/// A key that is missing or has the wrong kind.
pub fn decoder(path: &Path, c: &Config, family: &str, defaults: &Defaults) -> Result<ModelSpec> {
    let (d_model, n_heads) = (c.size("hidden_size")?, c.size("num_attention_heads")?);
    let norm = Norm::Rms { eps: c.number_or("rms_norm_eps", defaults.eps)? as f32 };
    let mlp = Mlp::Gated(c.act("hidden_act", defaults.act)?);
    let plain = ModelSpec::plain(family, c.size("num_hidden_layers")?, d_model, n_heads, norm, mlp);
    let mut spec = plain.map_err(|detail| ModelError::config(path, detail))?;
    spec.set_d_head(c.size_or("head_dim", defaults.d_head.unwrap_or(d_model / n_heads))?);
    spec.n_kv_heads = c.size_or("num_key_value_heads", n_heads)?;
    spec.d_mlp = c.size("intermediate_size")?;
    spec.vocab_size = c.size("vocab_size")?;
    spec.max_positions = c.size_or("max_position_embeddings", 2048)?;
    spec.tied = c.flag_or("tie_word_embeddings", defaults.tied)?;
    spec.bos_id = c.ids("bos_token_id")?.first().copied();
    spec.eos_ids = c.ids("eos_token_id")?;
    let around = Around {
        theta: c.number_or("rope_theta", defaults.theta)?,
        d_head: spec.d_head,
        partial: c.number_or("partial_rotary_factor", 1.0)?,
        max_positions: spec.max_positions,
        original: c.maybe_size("original_max_position_embeddings")?,
    };
    // A family with a rotation for each kind of layer nests its descriptions, and reads them itself.
    if !c.nests("rope_parameters") {
        let rope = rope_keys::read(path, c, &around)?;
        if matches!(rope.frequencies, Frequencies::Dynamic { .. }) {
            // The base grows with the context, so the number in the file is where that begins, and no limit.
            spec.max_positions = 1 << 20;
        }
        spec.set_rope(rope);
    }
    Ok(spec)
}

/// Windows by `layer_types`, or by a rule where the key is missing.
///
/// # Errors
/// Another number of entries than layers, an unknown kind, a windowed layer without `sliding_window`.
pub fn set_windows(
    path: &Path,
    c: &Config,
    spec: &mut ModelSpec,
    window: Option<usize>,
    usual: impl Fn(usize) -> bool,
) -> Result<()> {
    let kinds = c.texts("layer_types")?;
    if kinds.as_ref().is_some_and(|k| k.len() != spec.n_layers) {
        return Err(c.refuse("layer_types", "one entry for each layer"));
    }
    for l in 0..spec.n_layers {
        let windowed = match kinds.as_ref().map(|k| k[l]) {
            None => usual(l) && window.is_some(),
            Some("full_attention") => false,
            Some("sliding_attention") => true,
            Some(_) => return Err(c.refuse("layer_types", "\"full_attention\" or \"sliding_attention\"")),
        };
        let missing = || ModelError::config(path, "a layer has a window, but key \"sliding_window\" is missing");
        spec.layers[l].window = if windowed { Some(window.ok_or_else(missing)?) } else { None };
    }
    Ok(())
}

/// A JSON object with its rules checked.
pub struct Config<'a> {
    path: &'a Path,
    object: &'a Value,
}

impl<'a> Config<'a> {
    /// Checks every key of `object` against lists of rules (the first that names a key counts) and [`COMMON`].
    ///
    /// # Errors
    /// The first key that is unknown or has a value that is not handled.
    pub fn checked(path: &'a Path, object: &'a Value, rules: &[Rules]) -> Result<Self> {
        let map = object.as_object().ok_or_else(|| ModelError::config(path, "a JSON object was expected"))?;
        for (key, value) in map {
            let all = rules.iter().copied().flatten().chain(COMMON);
            let rule = all.into_iter().find(|(name, _)| name == key).map(|(_, rule)| rule);
            match rule {
                Some(Rule::Handled | Rule::Ignored) => {}
                Some(Rule::Only(wanted)) if serde_json::from_str::<Value>(wanted).ok().as_ref() == Some(value) => {}
                Some(Rule::Only(_)) if value.is_null() => {}
                Some(Rule::Only(wanted)) => {
                    let detail = format!("key {key:?} is {value}; only {wanted} is handled by this family");
                    return Err(ModelError::config(path, detail));
                }
                // A null says "not set", which is every key's default.
                None if value.is_null() => {}
                None => {
                    let detail =
                        format!("key {key:?} (value {value}) is not known, and may change what the model computes");
                    return Err(ModelError::config(path, detail));
                }
            }
        }
        Ok(Self { path, object })
    }

    fn get(&self, key: &str) -> Option<&'a Value> {
        self.object.get(key).filter(|v| !v.is_null())
    }

    fn wrong(&self, key: &str, wanted: &str) -> ModelError {
        let found = self.get(key).map_or("missing".into(), |v| v.to_string());
        ModelError::config(self.path, format!("key {key:?} must be {wanted}, but is {found}"))
    }

    /// A whole number that must be there.
    ///
    /// # Errors
    /// It is missing, negative or no whole number.
    pub fn size(&self, key: &str) -> Result<usize> {
        let value = self.get(key).and_then(Value::as_u64).and_then(|v| usize::try_from(v).ok());
        value.ok_or_else(|| self.wrong(key, "a whole number"))
    }

    /// A whole number, or `default` where the key is missing.
    ///
    /// # Errors
    /// It is there and no whole number.
    pub fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        if self.get(key).is_none() { Ok(default) } else { self.size(key) }
    }

    /// A whole number, or `None` where the key is missing or null.
    ///
    /// # Errors
    /// It is there and no whole number.
    pub fn maybe_size(&self, key: &str) -> Result<Option<usize>> {
        self.get(key).map(|_| self.size(key)).transpose()
    }

    /// Whether the key is there and null.
    pub fn is_null(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(Value::is_null)
    }

    /// Whether the key holds an object of objects.
    pub fn nests(&self, key: &str) -> bool {
        let object = self.get(key).and_then(Value::as_object);
        object.is_some_and(|o| o.values().any(Value::is_object))
    }

    /// An activation function, or `default`.
    ///
    /// # Errors
    /// It is not one that is handled.
    pub fn act(&self, key: &str, default: Act) -> Result<Act> {
        let Some(name) = self.text(key)? else { return Ok(default) };
        Act::by_name(name).ok_or_else(|| self.wrong(key, &format!("one of {}", Act::NAMES.join(", "))))
    }

    /// A number that must be there.
    ///
    /// # Errors
    /// It is missing or no number.
    pub fn number(&self, key: &str) -> Result<f64> {
        self.get(key).and_then(Value::as_f64).ok_or_else(|| self.wrong(key, "a number"))
    }

    /// A number, or `None` where the key is missing or null.
    ///
    /// # Errors
    /// It is there and no number.
    pub fn maybe_number(&self, key: &str) -> Result<Option<f64>> {
        self.get(key).map(|_| self.number(key)).transpose()
    }

    /// A list of numbers that must be there.
    ///
    /// # Errors
    /// It is missing, or anything in it is no number.
    pub fn numbers(&self, key: &str) -> Result<Vec<f64>> {
        let list = self.get(key).and_then(Value::as_array).and_then(|l| l.iter().map(Value::as_f64).collect());
        list.ok_or_else(|| self.wrong(key, "a list of numbers"))
    }

    /// A text, or `None` where the key is missing or null.
    ///
    /// # Errors
    /// It is there and no text.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>> {
        self.get(key).map(|v| v.as_str().ok_or_else(|| self.wrong(key, "a text"))).transpose()
    }

    /// A list of texts, or `None` where the key is missing or null.
    ///
    /// # Errors
    /// It is there and anything in it is no text.
    pub fn texts(&self, key: &str) -> Result<Option<Vec<&'a str>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let list = value.as_array().and_then(|l| l.iter().map(Value::as_str).collect());
        list.map(Some).ok_or_else(|| self.wrong(key, "a list of texts"))
    }

    /// A list of whole numbers, or `None` where the key is missing or null.
    ///
    /// # Errors
    /// It is there and anything in it is no whole number.
    pub fn sizes(&self, key: &str) -> Result<Option<Vec<usize>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let whole = |v: &Value| v.as_u64().and_then(|v| usize::try_from(v).ok());
        let list = value.as_array().and_then(|l| l.iter().map(whole).collect());
        list.map(Some).ok_or_else(|| self.wrong(key, "a list of whole numbers"))
    }

    /// An error about a key, with what is handled.
    pub fn refuse(&self, key: &str, handled: &str) -> ModelError {
        self.wrong(key, handled)
    }

    /// A number, or `default`.
    ///
    /// # Errors
    /// It is there and no number.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        self.get(key).map_or(Ok(default), |v| v.as_f64().ok_or_else(|| self.wrong(key, "a number")))
    }

    /// A truth value, or `default`.
    ///
    /// # Errors
    /// It is there and no truth value.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key).map_or(Ok(default), |v| v.as_bool().ok_or_else(|| self.wrong(key, "true or false")))
    }

    /// One token id or a list of them; empty where the key is missing.
    ///
    /// # Errors
    /// It is there and holds no token ids.
    pub fn ids(&self, key: &str) -> Result<Vec<u32>> {
        let id = |v: &Value| v.as_u64().and_then(|v| u32::try_from(v).ok());
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => {
                items.iter().map(|v| id(v).ok_or_else(|| self.wrong(key, "token ids"))).collect()
            }
            Some(v) => Ok(vec![id(v).ok_or_else(|| self.wrong(key, "a token id"))?]),
        }
    }

    /// A nested object, checked against rules of its own.
    ///
    /// # Errors
    /// As [`Config::checked`].
    pub fn nested(&self, key: &str, rules: Rules) -> Result<Option<Config<'a>>> {
        self.get(key).map(|object| Config::checked(self.path, object, &[rules])).transpose()
    }
}
