//! What was typed as a prompt, as tokens.

use anyhow::{Context, Result};
use exegete_model::{Bos, Message, Model};

/// Ids of a prompt, through the model's chat template if asked for.
pub(crate) fn ids(model: &Model, prompt: &str, chat: bool) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer()?;
    if chat {
        let template = model.chat.as_ref().context("--chat was given, but this model has no chat template")?;
        return Ok(tokenizer.encode_prompt(&template.render(&[Message::user(prompt)], true)?)?);
    }
    let mut ids: Vec<u32> = tokenizer.bos(Bos::Auto)?.into_iter().collect();
    ids.extend(tokenizer.encode_prompt(prompt)?);
    Ok(ids)
}
