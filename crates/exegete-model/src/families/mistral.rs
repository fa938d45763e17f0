//! Mistral (Jiang et al. 2023): Llama with a window of keys. llama.cpp writes it as `llama`.

use std::path::Path;

use serde_json::Value;

use super::config::{Config, DECODER, LLAMA, Rule, Rules, decoder, set_windows};
use super::{Family, Understood, llama};
use crate::Result;

pub(super) const FAMILY: Family = Family { model_type: "mistral", from_config, gguf: None };

const KEYS: Rules = &[("sliding_window", Rule::Handled)];

fn from_config(path: &Path, config: &Value) -> Result<Understood> {
    let c = Config::checked(path, config, &[KEYS, DECODER])?;
    let mut spec = decoder(path, &c, "mistral", &LLAMA)?;
    // A query sees exactly `sliding_window` keys, its own among them.
    let window = c.maybe_size("sliding_window")?;
    set_windows(path, &c, &mut spec, window, |_| true)?;
    Ok(Understood { ignored: llama::IGNORED, ..Understood::new(spec, llama::in_hf) })
}
