//! What was typed as a prompt, as tokens.

use anyhow::{Context, Result, bail};
use exegete_model::{Bos, Message, Model};

use crate::args::PromptArgs;

/// Ids of a prompt, through the model's chat template if asked for.
pub(crate) fn ids(model: &Model, args: &PromptArgs) -> Result<Vec<u32>> {
    let tokenizer = model.tokenizer()?;
    let messages: Option<Vec<Message>> = match (&args.messages, &args.prompt) {
        (Some(path), _) => {
            let bytes = std::fs::read(path).with_context(|| path.display().to_string())?;
            let form = || format!("{}: a JSON list of {{\"role\", \"content\"}} is needed", path.display());
            Some(serde_json::from_slice(&bytes).with_context(form)?)
        }
        (None, Some(prompt)) if args.chat => {
            let system = args.system.iter().map(|text| Message { role: "system".into(), content: text.clone() });
            Some(system.chain([Message::user(prompt)]).collect())
        }
        _ => None,
    };
    if let Some(messages) = messages {
        let flag = if args.chat { "--chat" } else { "--messages" };
        let template = model.chat.as_ref();
        let template = template.with_context(|| format!("{flag} was given, but this model has no chat template"))?;
        return Ok(tokenizer.encode_prompt(&template.render(&messages, true)?)?);
    }
    let Some(prompt) = &args.prompt else { bail!("give --prompt or --messages") };
    let mut ids: Vec<u32> = tokenizer.bos(Bos::Auto)?.into_iter().collect();
    ids.extend(tokenizer.encode_prompt(prompt)?);
    Ok(ids)
}
