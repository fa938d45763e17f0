//! `exegete model generate`: continuations of a prompt, greedy or sampled, with edits.

use anyhow::{Context, Result, bail};
use exegete_base::sampling::pair_hash;
use exegete_model::{Batch, GenerateOptions, Hooks, KvCache, Logits, Model, Sampling, Stop};
use exegete_tensor::{Tape, f32s};
use serde_json::{Value, json};

use super::{edits, prompt};
use crate::args::{Common, Generate};
use crate::open_model;
use crate::printer::Printer;

pub(crate) fn run(settings: &Generate, common: &Common, printer: &Printer) -> Result<()> {
    let model = open_model::open(&settings.model, common, printer)?;
    let tokenizer = model.tokenizer()?;
    let ids = prompt::ids(&model, &settings.prompt)?;
    if settings.samples == 0 {
        bail!("--samples must be at least 1");
    }
    let sampled = settings.top_k > 0 || settings.top_p != 1.0 || settings.min_p != 0.0 || settings.samples > 1;
    if settings.temperature == 0.0 && sampled {
        bail!("--top-k, --top-p, --min-p and --samples draw tokens, which needs a --temperature above 0");
    }
    let mut hooks = edits::hooks(&settings.edits, &model, printer)?;
    let options = GenerateOptions {
        max_new_tokens: settings.max_new_tokens,
        stop_ids: model.spec.eos_ids.clone(),
        stop_texts: settings.stop.clone(),
        sampling: Sampling {
            temperature: settings.temperature,
            top_k: settings.top_k,
            top_p: settings.top_p,
            min_p: settings.min_p,
            repetition_penalty: settings.repetition_penalty,
            seed: common.seed,
        },
        guidance: None,
    };
    let generated = match settings.samples {
        1 => model.generate(std::slice::from_ref(&ids), &options, &mut hooks)?,
        n => share_prompt(&model, &ids, n, &options, &mut hooks)?,
    };
    edits::tell_untouched(&hooks, printer);
    let mut samples: Vec<Value> = Vec::new();
    for (new, stop) in generated.ids.iter().zip(&generated.stops) {
        let whole = tokenizer.decode(new)?;
        let (text, reason) = match stop {
            Stop::Length => (whole.as_str(), "length".to_owned()),
            Stop::Token(id) => (whole.as_str(), tokenizer.token_text(*id)),
            Stop::Text(stop) => (whole.split(stop.as_str()).next().unwrap_or_default(), stop.clone()),
        };
        if !samples.is_empty() {
            printer.line("");
        }
        printer.line(text);
        samples.push(json!({"text": text, "ids": new, "stopped_by": reason}));
    }
    let mut result = samples.first().cloned().unwrap_or_default();
    result["prompt_ids"] = json!(ids);
    if samples.len() > 1 {
        result["samples"] = json!(samples);
    }
    if settings.logits {
        let context = Some(ids.len().saturating_add(settings.max_new_tokens));
        let batch = Batch { context, ..Batch::one(&ids) };
        let logits = model.run(&Tape::new(), &batch, None, &mut hooks, Logits::Last)?;
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

/// Continues one prompt several times; all but its last token is run once and shared.
fn share_prompt(
    model: &Model,
    ids: &[u32],
    n: usize,
    options: &GenerateOptions,
    hooks: &mut Hooks,
) -> Result<exegete_model::Generation> {
    let (last, rest) = ids.split_last().context("an empty prompt")?;
    let mut cache = KvCache::new(&model.spec, 1, rest.len().max(1))?;
    let prompts_B = vec![ids.len(); n];
    // Rotations that depend on the length of the context are those of the whole text, in the prompt too.
    let context = Some(ids.len().saturating_add(options.max_new_tokens));
    if !rest.is_empty() {
        let batch = Batch { prompts_B: vec![ids.len()], context, ..Batch::one(rest) };
        model.run(&Tape::new(), &batch, Some(&mut cache), hooks, Logits::None)?;
    }
    let mut forked = cache.freeze().fork(&vec![0; n], options.max_new_tokens.saturating_add(1))?;
    let batch = Batch { prompts_B, context, before_B: vec![rest.to_vec(); n], ..Batch::uniform(vec![*last; n], n) };
    Ok(model.generate_behind(&mut forked, batch, options, hooks)?)
}
