//! Surprisal: how much likelier an excerpt becomes when the text stands before it.
//!
//! `log p(excerpt | text) - log p(excerpt | "various unrelated sentences")`, higher where the latent fires. What stands before is computed once
//! for all excerpts. Source: EleutherAI/delphi (`scorers/surprisal`).

use serde::Deserialize;
use serde_json::json;

use super::{Outcome, Task};
use crate::Result;
use crate::question::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    beginning: String,
    nothing: String,
}

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let prompt: Prompt = read("surprisal.toml", include_str!("../../prompts/surprisal.toml"))?;
    let before = |text: &str| prompt.beginning.replace("{explanation}", text.trim()).trim_end().to_owned();
    let mut beginnings: Vec<String> = task.with_controls().iter().map(|text| before(text)).collect();
    beginnings.push(before(&prompt.nothing));
    // A space stands before the first word, and belongs to it.
    let excerpts: Vec<String> = task.excerpts()?.iter().map(|text| format!(" {text}")).collect();
    let mut told = task.judge.log_probabilities(&beginnings, &excerpts)?;
    let without = told.pop().unwrap_or_default();
    let gain = |row: Vec<f64>| row.iter().zip(&without).map(|(with, without)| Some(with - without)).collect();
    let values: Vec<Vec<Option<f64>>> = told.into_iter().map(gain).collect();
    Ok(task.outcomes(&values, |_, judged| {
        let mean = |fires: bool| {
            let of: Vec<f64> = judged.iter().filter(|j| j.fires == fires).map(|j| j.value).collect();
            of.iter().sum::<f64>() / of.len() as f64
        };
        json!({"measure": "auroc", "nats_gained_firing": mean(true), "nats_gained_silent": mean(false)})
    }))
}
