//! Templates: a question about a word, with a placeholder for the word. Plain data, one file each, one line each in [`TEMPLATES`];
//! anyone's own file does the same.

use std::path::Path;

use exegete_model::{Bos, Message, Model};
use serde::Deserialize;

use crate::{MethodError, Result};

/// The templates that the program carries.
pub const TEMPLATES: &[(&str, &str)] = &[
    ("meaning", include_str!("templates/meaning.toml")),
    ("repeat", include_str!("templates/repeat.toml")),
    ("few-shot", include_str!("templates/few-shot.toml")),
    ("selfie", include_str!("templates/selfie.toml")),
];

/// A template as its file has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    /// What is asked; may be empty where nothing is asked in a chat.
    #[serde(default)]
    question: String,
    /// How the answer begins.
    begun: String,
    /// The token that gives its place: one of nearly every vocabulary.
    #[serde(default = "placeholder")]
    placeholder: String,
    /// Whether the question is a user's turn, where the model has a chat template.
    #[serde(default = "yes")]
    is_chat: bool,
    /// What ends an answer. The first part that is not blank counts.
    #[serde(default)]
    ends: Vec<String>,
}

fn placeholder() -> String {
    "X".into()
}

fn yes() -> bool {
    true
}

impl Template {
    /// A template by name, or from a file.
    fn named(name: &str) -> Result<Self> {
        let (text, of) = match TEMPLATES.iter().find(|(known, _)| *known == name) {
            Some((_, text)) => ((*text).to_owned(), name.to_owned()),
            None if Path::new(name).extension().is_some_and(|ending| ending == "toml") => {
                let text = std::fs::read_to_string(name);
                (text.map_err(|e| MethodError::Request(format!("--template: {name}: {e}")))?, name.to_owned())
            }
            None => {
                let known: Vec<&str> = TEMPLATES.iter().map(|(known, _)| *known).collect();
                let detail = format!("--template: {name:?} is none of {}, and no .toml file", known.join(", "));
                return Err(MethodError::Request(detail));
            }
        };
        let template: Self = toml::from_str(&text)
            .map_err(|e| MethodError::Request(format!("--template: {of}: {}", e.to_string().trim_end())))?;
        match template.placeholder.trim().is_empty() {
            true => Err(MethodError::Request(format!("--template: {of}: the placeholder is empty"))),
            false => Ok(template),
        }
    }
}

/// A template as tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompt {
    /// The tokens.
    pub(crate) ids: Vec<u32>,
    /// Positions whose token spells exactly the placeholder, ascending; at least one.
    pub(crate) placeholders: Vec<usize>,
    /// What ends an answer.
    ends: Vec<String>,
}

impl Prompt {
    /// The template as a chat with the answer begun where the model has a chat template, as plain text where it has
    /// none.
    pub(crate) fn new(model: &Model, template: &str) -> Result<Self> {
        let tokenizer = model.tokenizer()?;
        let Template { question, begun, placeholder, is_chat, ends } = Template::named(template)?;
        let chat = model.chat.as_ref().filter(|_| is_chat);
        let text = match chat {
            Some(chat) => chat.render(&[Message::user(&question)], true)? + &begun,
            None if question.is_empty() => begun,
            None => format!("{question}\n{begun}"),
        };
        let mut ids = tokenizer.encode_prompt(&text)?;
        // A chat template writes its own BOS; plain text gets the model's.
        if chat.is_none() {
            ids.splice(0..0, tokenizer.bos(Bos::Auto)?);
        }
        let spells = |id: u32| tokenizer.token_bytes(id).trim_ascii() == placeholder.trim().as_bytes();
        let placeholders: Vec<usize> = (0..ids.len()).filter(|i| spells(ids[*i])).collect();
        if placeholders.is_empty() {
            let detail = format!("--template {template}: no token spells {placeholder:?} alone in this vocabulary");
            return Err(MethodError::Request(detail));
        }
        Ok(Self { ids, placeholders, ends })
    }

    /// What an answer is ended by.
    pub(crate) fn end(&self) -> &str {
        self.ends.first().map_or("", String::as_str)
    }

    /// The answer in what was generated: its first part that is not blank. What follows its end is talk about the answer.
    pub(crate) fn answer(&self, text: &str) -> String {
        let mut rest = text;
        loop {
            let end = self
                .ends
                .iter()
                .filter(|end| !end.is_empty())
                .filter_map(|end| Some((rest.find(end)?, end.len())))
                .min();
            let part = end.map_or(rest, |(at, _)| &rest[..at]).trim();
            match end {
                Some((at, len)) if part.is_empty() => rest = &rest[at + len..],
                _ => return part.to_owned(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_can_be_read_and_answers_end() {
        for (name, _) in TEMPLATES {
            let template = Template::named(name).unwrap();
            assert!(template.begun.contains('X') && !template.ends.is_empty(), "{name}");
        }
        assert!(Template::named("meaning").unwrap().begun.ends_with("is \""));
        let refused = Template::named("riddle").unwrap_err().to_string();
        assert!(refused.contains("few-shot"), "{refused}");
        let prompt = Prompt { ids: vec![], placeholders: vec![0], ends: vec!["\"".into(), "\n".into()] };
        assert_eq!(prompt.answer("\n \" a sea\". It is"), "a sea");
        assert_eq!(prompt.answer(" a sea "), "a sea");
        assert_eq!(prompt.answer("\n\""), "");
    }
}
