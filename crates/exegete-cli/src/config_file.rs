//! `--config FILE`: a TOML file's keys become flags, placed before those typed so that the typed ones win.

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

/// The command line with the file's flags put in.
///
/// # Errors
/// A file that cannot be read, is no TOML, or holds values that are no flags.
pub(crate) fn expand(words: Vec<String>) -> Result<Vec<String>> {
    let Some(path) = config_path(&words) else { return Ok(words) };
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read --config {path}"))?;
    let table: Table = text.parse().with_context(|| format!("{path} is no TOML"))?;
    let mut flags = Vec::new();
    for (key, value) in &table {
        let flag = format!("--{}", key.replace('_', "-"));
        match value {
            Value::Boolean(true) => flags.push(flag),
            Value::Boolean(false) => {}
            Value::Array(items) => {
                for item in items {
                    flags.extend([flag.clone(), word(item).with_context(|| format!("{path}: key {key:?}"))?]);
                }
            }
            single => flags.extend([flag, word(single).with_context(|| format!("{path}: key {key:?}"))?]),
        }
    }
    // Subcommands and their positional words come first; the file's flags stand right behind them.
    let at = words.iter().skip(1).position(|w| w.starts_with('-')).map_or(words.len(), |i| i + 1);
    Ok([&words[..at], &flags, &words[at..]].concat())
}

fn config_path(words: &[String]) -> Option<String> {
    let at = words.iter().position(|w| w == "--config" || w.starts_with("--config="))?;
    words[at].strip_prefix("--config=").map(str::to_owned).or_else(|| words.get(at + 1).cloned())
}

fn word(value: &Value) -> Result<String> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        other => bail!("{} is no flag's value", other.type_str()),
    })
}
