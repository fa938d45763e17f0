//! Reading a configuration that fails closed: every key is handled, known to be harmless, or an error.

use std::path::Path;

use serde_json::Value;

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
    ("output_attentions", Rule::Ignored),
    ("output_hidden_states", Rule::Ignored),
    ("return_dict", Rule::Ignored),
    ("is_decoder", Rule::Ignored),
    ("is_llama_config", Rule::Ignored),
    ("quantization_config", Rule::Only("null")),
];

/// A JSON object with its rules checked.
pub struct Config<'a> {
    path: &'a Path,
    object: &'a Value,
}

impl<'a> Config<'a> {
    /// Checks every key of `object` against `rules` and [`COMMON`].
    ///
    /// # Errors
    /// The first key that is unknown or has a value that is not handled.
    pub fn checked(path: &'a Path, object: &'a Value, rules: Rules) -> Result<Self> {
        let map = object.as_object().ok_or_else(|| ModelError::config(path, "a JSON object was expected"))?;
        for (key, value) in map {
            let rule = rules.iter().chain(COMMON).find(|(name, _)| name == key).map(|(_, rule)| rule);
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
        self.get(key).map(|object| Config::checked(self.path, object, rules)).transpose()
    }
}
