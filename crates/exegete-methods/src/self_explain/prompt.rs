//! The template: a question about a word, with a placeholder for the word.

use exegete_model::{Bos, Message, Model};

use crate::{MethodError, Result};

/// The placeholder: one token of nearly every vocabulary.
const PLACEHOLDER: &str = "X";
const QUESTION: &str = "What is the meaning of the word \"X\"?";
const ANSWER: &str = "The meaning of the word \"X\" is \"";

/// A template as tokens.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Prompt {
    /// The tokens.
    pub(crate) ids: Vec<u32>,
    /// Positions whose token spells exactly the placeholder; at least one.
    pub(crate) placeholders: Vec<usize>,
}

impl Prompt {
    /// "What is the meaning of the word?", as a chat with the answer begun where the model has a chat template, as
    /// plain text where it has none.
    pub(crate) fn meaning(model: &Model) -> Result<Self> {
        let tokenizer = model.tokenizer()?;
        let text = match &model.chat {
            Some(chat) => chat.render(&[Message::user(QUESTION)], true)? + ANSWER,
            None => format!("{QUESTION}\n{ANSWER}"),
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
