//! The template: a question about a word, with a placeholder for the word.

use exegete_base::settings::Template;
use exegete_model::{Bos, Message, Model};

use crate::{MethodError, Result};

/// The placeholder: one token of nearly every vocabulary.
const PLACEHOLDER: &str = "X";

/// A template's question and the beginning of its answer.
fn words(template: Template) -> (&'static str, &'static str) {
    match template {
        Template::Meaning => ("What is the meaning of the word \"X\"?", "The meaning of the word \"X\" is \""),
        Template::Repeat => {
            ("Repeat \"X\" four times exactly as it is written.", "1. \"X\"\n2. \"X\"\n3. \"X\"\n4. \"")
        }
    }
}

/// A template as tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompt {
    /// The tokens.
    pub(crate) ids: Vec<u32>,
    /// Positions whose token spells exactly the placeholder; at least one.
    pub(crate) placeholders: Vec<usize>,
}

impl Prompt {
    /// The template as a chat with the answer begun where the model has a chat template, as plain text where it has
    /// none.
    pub(crate) fn new(model: &Model, template: Template) -> Result<Self> {
        let tokenizer = model.tokenizer()?;
        let (question, answer) = words(template);
        let text = match &model.chat {
            Some(chat) => chat.render(&[Message::user(question)], true)? + answer,
            None => format!("{question}\n{answer}"),
        };
        let mut ids = tokenizer.encode_prompt(&text)?;
        // A chat template writes its own BOS; plain text gets the model's.
        if model.chat.is_none() {
            ids.splice(0..0, tokenizer.bos(Bos::Auto)?);
        }
        let spells = |id: u32| tokenizer.token_bytes(id).trim_ascii() == PLACEHOLDER.as_bytes();
        let placeholders: Vec<usize> = (0..ids.len()).filter(|i| spells(ids[*i])).collect();
        if placeholders.is_empty() {
            let detail = format!("no token of the template spells {PLACEHOLDER:?} alone in this vocabulary");
            return Err(MethodError::Request(detail));
        }
        Ok(Self { ids, placeholders })
    }
}
