//! Faithfulness: can the direction be told from the text? Through an adapter (`exegete_methods::adapter`) the model says how likely the
//! text is for the latent's own decoder row and for those of other latents; the score is the share of the others for which it is less
//! likely. Equals are half.
//!
//! What is reconstructed is which direction was meant, not the vector itself: an adapter maps directions to texts alone (a text's own
//! likelihood is the same for all and falls out). Source: arXiv 2602.10352 (retrieval); the round trip of natural language
//! autoencoders asks the same of a second model.

use exegete_base::sampling::pair_hash;
use exegete_base::stats::wilson;
use serde_json::json;

use super::{ITSELF, Outcome, Task};
use crate::{ExplainError, Result};

/// Other latents that a text is told apart by.
const OTHERS: usize = 31;

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let Some(adapter) = task.adapter else {
        let detail = "faithfulness needs --adapter FILE: `exegete adapter` trains one";
        return Err(ExplainError::request(detail));
    };
    let dictionary = &task.subject.dictionary;
    let n = dictionary.n_latents() as u64;
    let mut latents = vec![task.latent];
    for draw in 0..4 * OTHERS as u64 {
        let other = (pair_hash(task.seed, u64::from(task.latent), draw) % n.max(1)) as u32;
        let is_empty = dictionary.decoder_row(other as usize).iter().all(|x| *x == 0.0);
        if latents.len() <= OTHERS && !latents.contains(&other) && !is_empty {
            latents.push(other);
        }
    }
    let rows: Vec<&[f32]> = latents.iter().map(|latent| dictionary.decoder_row(*latent as usize)).collect();
    let whose = task.rows();
    let mut outcomes = Vec::new();
    for (text, (number, control)) in task.with_controls().iter().zip(whose) {
        let told = adapter.log_likelihoods(&rows, text)?;
        let less = told[1..].iter().filter(|other| **other < told[0]).count() as u64;
        let same = told[1..].iter().filter(|other| **other == told[0]).count() as u64;
        let value = wilson(less + same / 2, told.len() as u64 - 1);
        let mean = told[1..].iter().sum::<f64>() / (told.len() - 1).max(1) as f64;
        outcomes.push(Outcome {
            text: number,
            against: control.unwrap_or(ITSELF).to_owned(),
            value,
            failed: told.iter().filter(|p| !p.is_finite()).count() as u64,
            chance: 0.5,
            measures: json!({
                "measure": "share of other directions for which the text is less likely", "nats_a_token": told[0],
                "nats_a_token_others": mean,
            }),
        });
    }
    Ok(outcomes)
}
