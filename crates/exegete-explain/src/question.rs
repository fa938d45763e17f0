//! Questions that are answered by yes or no, as data: `prompts/*.toml`.
//!
//! A prompt has four parts, in this order: instructions, an example, an explanation, the beginning of the answer. The first is the same
//! for all; examples and explanations are many. Which of them a part may look at is the judge's to arrange. A change of words raises the version in [`crate::scorers::SCORERS`].

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::{ExplainError, Result};

/// A question.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What stands first.
    pub instructions: String,
    /// Around an example: `{text}`.
    pub example: String,
    /// Around an explanation: `{explanation}`.
    pub explanation: String,
    /// How the answer begins.
    pub answer: String,
    /// What says yes, as the answer goes on.
    pub yes: Vec<String>,
    /// What says no.
    pub no: Vec<String>,
}

/// Reads a file of prompts.
///
/// # Errors
/// What is not TOML or lacks a key; the text names `file`.
pub(crate) fn read<T: DeserializeOwned>(file: &str, text: &str) -> Result<T> {
    toml::from_str(text).map_err(|e| ExplainError::request(format!("{file}: {e}")))
}

impl Question {
    /// Reads a question.
    ///
    /// # Errors
    /// What is not TOML, lacks a part or a placeholder; the text names `file`.
    pub fn read(file: &str, text: &str) -> Result<Self> {
        let question: Self = read(file, text)?;
        let rules = [
            (question.example.contains("{text}"), "`example` needs {text}"),
            (question.explanation.contains("{explanation}"), "`explanation` needs {explanation}"),
            (!question.yes.is_empty() && !question.no.is_empty(), "`yes` and `no` need a word each"),
            (!question.answer.is_empty(), "`answer` must not be empty"),
        ];
        match rules.iter().find(|(holds, _)| !holds) {
            Some((_, problem)) => Err(ExplainError::request(format!("{file}: {problem}"))),
            None => Ok(question),
        }
    }

    /// An example in its place.
    pub fn example(&self, text: &str) -> String {
        self.example.replace("{text}", text)
    }

    /// An explanation in its place.
    pub fn explanation(&self, text: &str) -> String {
        self.explanation.replace("{explanation}", text.trim())
    }
}
