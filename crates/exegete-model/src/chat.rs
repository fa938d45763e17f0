//! Chat templates: the Jinja text that a checkpoint ships, rendered as transformers renders it.

use std::path::Path;

use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, context};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{ModelError, Result, chat_limits};

/// Roles that templates know.
const ROLES: [&str; 5] = ["system", "developer", "user", "assistant", "tool"];

/// One turn of a conversation.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Message {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
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
    /// A role that no template knows (many would leave its turn out without a word); the template is malformed, refuses
    /// the conversation, or does not come to an end.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        if let Some(m) = messages.iter().find(|m| !ROLES.contains(&m.role.as_str())) {
            return Err(ModelError::Chat(format!("unknown role {:?}; roles are {}", m.role, ROLES.join(", "))));
        }
        chat_limits::on_large_stack(|| self.render_here(messages, add_generation_prompt))
            .ok_or_else(|| ModelError::Chat("the template cannot be run".into()))?
            .map_err(|e| ModelError::Chat(format!("{e:#}")))
    }

    fn render_here(&self, messages: &[Message], add_generation_prompt: bool) -> std::result::Result<String, Error> {
        let mut env = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        env.set_syntax(syntax.clone());
        chat_limits::set(&mut env);
        env.add_function("raise_exception", |message: String| -> std::result::Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        let source = chat_limits::with_checked_assignments(&self.source, syntax);
        env.add_template("chat", &source)?;
        let turn =
            |m: &Message| minijinja::Value::from_pairs([("role", m.role.as_str()), ("content", m.content.as_str())]);
        let turns: Vec<minijinja::Value> = messages.iter().map(turn).collect();
        env.get_template("chat")?.render(context! {
            messages => turns, add_generation_prompt,
            bos_token => self.bos_token.as_str(), eos_token => self.eos_token.as_str(),
        })
    }
}
