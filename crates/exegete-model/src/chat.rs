//! Chat templates: the Jinja text that a checkpoint ships, rendered as transformers renders it.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, State, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ModelError, Result};

/// What a rendering may use up: about as many steps of the engine, and 64 bytes of text each. A template is a program
/// from a foreign file; the longest conversation that fits into a context needs a hundredth of this.
const FUEL: u64 = 2_000_000;

/// One turn of a conversation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `user` or `assistant`.
    pub role: String,
    /// What was said.
    pub content: String,
}

impl Message {
    /// A user's turn.
    pub fn user(content: impl Into<String>) -> Self {
        Self { role: "user".into(), content: content.into() }
    }
}

/// A chat template with the special tokens that it may name.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    source: String,
    bos_token: String,
    eos_token: String,
}

impl ChatTemplate {
    /// A template from its text and the spellings of the special tokens.
    pub fn new(source: impl Into<String>, bos_token: impl Into<String>, eos_token: impl Into<String>) -> Self {
        Self { source: source.into(), bos_token: bos_token.into(), eos_token: eos_token.into() }
    }

    /// The template of a Hugging Face directory: `chat_template.jinja`, or the key in `tokenizer_config.json`.
    ///
    /// # Errors
    /// `tokenizer_config.json` is there and no JSON.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("tokenizer_config.json");
        let config: Value = match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map_err(|e| ModelError::format(&path, format!("not JSON: {e}")))?
            }
            Err(_) => Value::Null,
        };
        let token = |key: &str| match &config[key] {
            Value::String(text) => text.clone(),
            object => object["content"].as_str().unwrap_or_default().to_owned(),
        };
        let source = match (std::fs::read_to_string(dir.join("chat_template.jinja")), &config["chat_template"]) {
            (Ok(text), _) => Some(text),
            (_, Value::String(text)) => Some(text.clone()),
            // Several named templates: the one called "default" is what transformers takes.
            (_, Value::Array(named)) => {
                named.iter().find(|t| t["name"] == "default").and_then(|t| t["template"].as_str()).map(str::to_owned)
            }
            _ => None,
        };
        Ok(source.map(|source| Self::new(source, token("bos_token"), token("eos_token"))))
    }

    /// The conversation as one text, ready for the tokenizer; with `add_generation_prompt`, the assistant's turn
    /// is opened at the end.
    ///
    /// # Errors
    /// The template is malformed, refuses the conversation, or does not come to an end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let fail = |e: Error| ModelError::Chat(format!("{e:#}"));
        let mut env = Environment::new();
        env.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(fail)?);
        env.set_fuel(Some(FUEL));
        env.set_unknown_method_callback(method);
        env.add_function("raise_exception", |message: String| -> std::result::Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        env.add_template("chat", &self.source).map_err(fail)?;
        let turn =
            |m: &Message| minijinja::Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
        let turns: Vec<minijinja::Value> = messages.iter().map(turn).collect();
        let template = env.get_template("chat").map_err(fail)?;
        template
            .render(context! {
                messages => turns, add_generation_prompt,
                bos_token => self.bos_token.as_str(), eos_token => self.eos_token.as_str(),
            })
            .map_err(fail)
    }
}

/// Python's methods of texts and lists, paid for before they run: the engine charges for what a method returns only once
/// it is there, and by then a few steps could have filled the memory.
fn method(
    state: &mut State,
    value: &minijinja::Value,
    name: &str,
    args: &[minijinja::Value],
) -> std::result::Result<minijinja::Value, Error> {
    let len = |v: &minijinja::Value| v.as_str().map_or(1, |s| s.len() as u64 + 1);
    if let Some(text) = value.as_str() {
        let made = match (name, args) {
            ("replace", [old, new, ..]) => text.matches(old.as_str().unwrap_or_default()).count() as u64 * len(new),
            ("format", _) => numbers(text),
            ("join", [items]) => {
                let mut sum = 0u64;
                for item in items.try_iter()? {
                    if item.as_str().is_none() {
                        let detail = format!("join takes texts; {} was found among them", item.kind());
                        return Err(Error::new(ErrorKind::InvalidOperation, detail));
                    }
                    sum = sum.saturating_add(len(&item)).saturating_add(len(value));
                }
                sum
            }
            _ => 0,
        };
        state.consume_fuel(len(value).saturating_add(made) / 64)?;
    }
    minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
}

/// The sum of all numbers in a format, among which its widths are.
fn numbers(format: &str) -> u64 {
    let runs = format.split(|c: char| !c.is_ascii_digit()).filter(|run| !run.is_empty());
    runs.fold(0, |sum: u64, run| sum.saturating_add(run.parse().unwrap_or(u64::MAX)))
}
