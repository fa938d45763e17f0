//! Generation: the judge writes texts from what is said, and the latent either fires on them or not.
//!
//! A hit is any activation behind the first token; the score is the share of hits. What is reached by any text at all is the share of
//! stretches of the run's text, as long as what is written, in which the latent fires. Source: agencyenterprise/selfie-adapters (arXiv
//! 2602.10352); Juang et al. 2024.

use exegete_base::stats::wilson;
use serde::Deserialize;
use serde_json::json;

use super::{ITSELF, Outcome, Task, against};
use crate::Result;
use crate::judge::Writing;
use crate::question::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    request: String,
    tokens: usize,
    texts: usize,
    temperature: f32,
    top_p: f32,
}

fn prompt() -> Result<Prompt> {
    read("generation.toml", include_str!("../../prompts/generation.toml"))
}

/// Tokens that are written.
pub(super) fn tokens() -> Result<usize> {
    Ok(prompt()?.tokens)
}

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let prompt = prompt()?;
    let mut outcomes = Vec::new();
    let whose = task.rows();
    for (i, text) in task.with_controls().iter().enumerate() {
        let how = Writing {
            tokens: prompt.tokens,
            temperature: prompt.temperature,
            top_p: prompt.top_p,
            seed: task.seed ^ i as u64,
        };
        let request = prompt.request.replace("{explanation}", text.trim());
        let written = task.judge.write(&request, "", prompt.texts, &how)?;
        let failed = written.iter().filter(|text| text.is_none()).count() as u64;
        let texts: Vec<String> = written.into_iter().flatten().collect();
        let rows: Vec<Vec<u32>> = texts.iter().map(|text| task.subject.tokens(text)).collect::<Result<_>>()?;
        let (rows, texts): (Vec<Vec<u32>>, Vec<String>) =
            rows.into_iter().zip(texts).filter(|(row, _)| row.len() > 1).unzip();
        let strongest: Vec<f32> = task
            .subject
            .codes(&rows)?
            .iter()
            .map(|codes| {
                let of = (0..codes.n_tokens()).flat_map(|at| codes.of(at)).filter(|(l, _)| *l == task.latent);
                of.map(|(_, value)| value).fold(0.0, f32::max)
            })
            .collect();
        let hits = strongest.iter().filter(|value| **value > 0.0).count() as u64;
        let (number, control) = whose[i];
        outcomes.push(Outcome {
            text: number,
            against: against(control, ITSELF),
            value: wilson(hits, rows.len() as u64),
            failed,
            chance: task.base_rate,
            measures: json!({
                "measure": "share of texts on which it fires",
                "strongest": strongest,
                "texts": texts.iter().take(3).collect::<Vec<_>>(),
            }),
        });
    }
    Ok(outcomes)
}
