//! `exegete model generate`: greedy continuation, with edits.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use exegete_base::Site;
use exegete_base::sampling::pair_hash;
use exegete_methods::direction;
use exegete_model::edits::{Add, ProjectOut, Replace, Scale, Vectors};
use exegete_model::{Batch, Bos, Edit, GenerateOptions, Hooks, Logits, Message, Model, Positions};
use exegete_tensor::{SiteFn, Tape, f32s};
use serde_json::json;

use super::numbers;
use crate::args::Generate;
use crate::printer::Printer;

pub(crate) fn run(settings: &Generate, printer: &Printer) -> Result<()> {
    let model = Model::open(&settings.model)?;
    let tokenizer = model.tokenizer()?;
    let ids = if settings.chat {
        let chat = model.chat.as_ref().context("--chat was given, but this model has no chat template")?;
        tokenizer.encode_prompt(&chat.render(&[Message::user(&settings.prompt)], true)?)?
    } else {
        let mut ids: Vec<u32> = tokenizer.bos(Bos::Auto)?.into_iter().collect();
        ids.extend(tokenizer.encode_prompt(&settings.prompt)?);
        ids
    };
    let mut hooks = edits(settings, &model)?.into_iter().fold(Hooks::none(), Hooks::edit);
    let options = GenerateOptions { max_new_tokens: settings.max_new_tokens, stop_ids: model.spec.eos_ids.clone() };
    let new = model.generate(std::slice::from_ref(&ids), &options, &mut hooks)?.ids.remove(0);
    let text = tokenizer.decode(&new)?;
    printer.line(&text);
    let mut result = json!({"text": text, "ids": new, "prompt_ids": ids});
    if settings.logits {
        let logits = model.run(&Tape::new(), &Batch::one(&ids), None, &mut hooks, Logits::Last)?;
        let logits = f32s(logits.context("no logits")?.tensor())?.to_vec();
        let checksum = logits.iter().fold(0, |sum, x| pair_hash(sum, u64::from(x.to_bits()), 0));
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap_or(0);
        printer.line(format!(
            "logits: largest {} ({:?}), checksum {checksum:016x}",
            logits[best],
            tokenizer.token_text(best as u32)
        ));
        result["logits_checksum"] = json!(format!("{checksum:016x}"));
    }
    printer.json(&result);
    Ok(())
}

/// The edits asked for, in the order add, replace, project out, scale.
fn edits(settings: &Generate, model: &Model) -> Result<Vec<Edit>> {
    let positions = match &settings.positions {
        None => Positions::All,
        Some(list) => Positions::At(numbers::parse(list)?.into_iter().map(|p| p as usize).collect()),
    };
    let mut edits = Vec::new();
    let mut push =
        |site: Site, f: Arc<dyn SiteFn>| edits.push(Edit { site, rows: None, positions: positions.clone(), f });
    for text in &settings.add {
        let (site, vector, scale) = scaled(text, model)?;
        push(site, Arc::new(Add { vectors: Vectors::One(vector), scale }));
    }
    for text in &settings.replace {
        let (site, vector, scale) = scaled(text, model)?;
        push(site, Arc::new(Replace(Vectors::One(vector.iter().map(|x| x * scale).collect()))));
    }
    for text in &settings.project_out {
        let (site, name) = site_and_rest(text, model)?;
        push(site, Arc::new(ProjectOut::new(&direction::resolve(name, model, site)?)));
    }
    for text in &settings.scale {
        let (site, factor) = site_and_rest(text, model)?;
        push(site, Arc::new(Scale(number(factor, text)?)));
    }
    Ok(edits)
}

/// `SITE:DIRECTION:SCALE`; a direction may hold colons of its own.
fn scaled(text: &str, model: &Model) -> Result<(Site, Vec<f32>, f32)> {
    let (site, rest) = site_and_rest(text, model)?;
    let Some((name, scale)) = rest.rsplit_once(':') else {
        bail!("{text:?} has no scale; the form is SITE:DIRECTION:SCALE");
    };
    Ok((site, direction::resolve(name, model, site)?, number(scale, text)?))
}

fn site_and_rest<'a>(text: &'a str, model: &Model) -> Result<(Site, &'a str)> {
    let (site, rest) = text.split_once(':').with_context(|| format!("{text:?} has no colon behind its site"))?;
    Ok((site.parse::<Site>()?.check(model.spec.n_layers)?, rest))
}

fn number(word: &str, text: &str) -> Result<f32> {
    let value: f32 = word.parse().with_context(|| format!("{word:?} in {text:?} is no number"))?;
    if !value.is_finite() {
        bail!("{word:?} in {text:?} is not finite");
    }
    Ok(value)
}
