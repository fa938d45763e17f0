//! `--config FILE`: a TOML file's keys become flags, unless they were typed. `--preset NAME`: so do those of a published
//! recipe, unless they were typed or stand in the file.

use anyhow::{Context, Result, bail};
use clap::CommandFactory;
use toml::{Table, Value};

use crate::args::Args;

/// The command line with the file's and the recipe's flags put in, behind the subcommand.
///
/// # Errors
/// A file that cannot be read, is no TOML, or holds values that are no flags; a recipe that is not known.
pub(crate) fn expand(mut words: Vec<String>) -> Result<Vec<String>> {
    if let Some(path) = value_of("--config", &words) {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read --config {path}"))?;
        let table: Table = text.parse().with_context(|| format!("{path} is no TOML"))?;
        words = put_in(words, &table).with_context(|| path.clone())?;
    }
    if let Some(name) = value_of("--preset", &words) {
        let table = Table::try_from(exegete_harvest::presets::named(&name)?)?;
        words = put_in(words, &table)?;
    }
    Ok(words)
}

fn put_in(words: Vec<String>, table: &Table) -> Result<Vec<String>> {
    let mut flags = Vec::new();
    collect(table, &words, &mut flags)?;
    let at = behind_subcommands(&words);
    Ok([&words[..at], &flags, &words[at..]].concat())
}

fn value_of(flag: &str, words: &[String]) -> Option<String> {
    let given = |word: &String| word.strip_prefix(flag).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
    let at = words.iter().position(given)?;
    words[at].strip_prefix(flag)?.strip_prefix('=').map(str::to_owned).or_else(|| words.get(at + 1).cloned())
}

/// Where the last word that names a subcommand ends.
fn behind_subcommands(words: &[String]) -> usize {
    let (mut command, mut at) = (Args::command(), 1);
    for (i, word) in words.iter().enumerate().skip(1) {
        if let Some(found) = command.find_subcommand(word).cloned() {
            command = found;
            at = i + 1;
        }
    }
    at
}

/// A table's keys as flags; tables in it (as a run's manifest has them) are only groups.
fn collect(table: &Table, typed: &[String], flags: &mut Vec<String>) -> Result<()> {
    for (key, value) in table {
        let flag = format!("--{}", key.replace('_', "-"));
        if typed.iter().any(|w| *w == flag || w.starts_with(&format!("{flag}="))) {
            continue;
        }
        match value {
            Value::Table(group) => collect(group, typed, flags)?,
            Value::Boolean(true) => flags.push(flag),
            Value::Boolean(false) => {}
            Value::Array(items) => {
                for item in items {
                    flags.push(format!("{flag}={}", word(item).with_context(|| format!("key {key:?}"))?));
                }
            }
            single => flags.push(format!("{flag}={}", word(single).with_context(|| format!("key {key:?}"))?)),
        }
    }
    Ok(())
}

fn word(value: &Value) -> Result<String> {
    Ok(match value {
        Value::String(text) => text.clone(),
        Value::Integer(number) => number.to_string(),
        Value::Float(number) => number.to_string(),
        other => bail!("{} is no flag's value", other.type_str()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typed_flags_win_and_the_rest_stands_behind_the_subcommand() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "text = ['a', 'b']\nlatents = 7\nkeep_cache = true\n[train]\nlr = -1.0\n").unwrap();
        let config = format!("--config={}", file.path().display());
        let words = |line: &str| -> Vec<String> {
            line.split_whitespace().map(str::to_owned).chain([config.clone()]).collect()
        };
        let expanded = expand(words("exegete --json tour --text c")).unwrap();
        assert_eq!(expanded[..6], ["exegete", "--json", "tour", "--keep-cache", "--latents=7", "--lr=-1"]);
        assert_eq!(expanded[6..8], ["--text", "c"]);
        let recipe = expand(words("exegete sae train m --preset gao-2024 --k 8")).unwrap();
        assert!(recipe.contains(&"--lr=-1".into()) && recipe.contains(&"--aux-k=256".into()), "{recipe:?}");
        assert!(!recipe.iter().any(|word| word == "--k=32"), "{recipe:?}");
        let unknown = expand(words("exegete sae train m --preset=gao")).unwrap_err().to_string();
        assert!(unknown.contains("gao-2024"), "{unknown}");
        let expanded = expand(words("exegete --threads 2 tour --latents 9")).unwrap();
        assert_eq!(expanded[4..8], ["--keep-cache", "--text=a", "--text=b", "--lr=-1"].map(String::from));
    }
}
