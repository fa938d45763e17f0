//! Faithfulness: can the direction be told from the text? Through an adapter (`exegete_methods::adapter`) the model says how likely the
//! text is for the latent's own decoder row and for those of other latents; the score is the share of the others for which it is less
//! likely. Equals are half. A latent that the adapter was trained on says little: its text may be known by heart, and `trained_on` says so.
//!
//! What is reconstructed is which direction was meant, not the vector itself: an adapter maps directions to texts alone (a text's own
//! likelihood is the same for all and falls out). Source: arXiv 2602.10352 (retrieval); the round trip of natural language
//! autoencoders asks the same of a second model.

use exegete_base::sampling::pair_hash;
use exegete_base::stats::{Estimate, wilson};
use serde_json::json;

use super::{ITSELF, Outcome, Task, against};
use crate::{ExplainError, Result};

/// Other latents that a text is told apart by.
const OTHERS: usize = 31;

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let Some(adapter) = task.adapter else {
        let lacks = "is given no adapter: faithfulness needs --adapter FILE, which `exegete adapter` trains".into();
        return Err(ExplainError::Unable { judge: task.judge.name(), lacks });
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
        let others: Vec<f64> = told[1..].iter().copied().filter(|p| p.is_finite()).collect();
        let less: f64 = others
            .iter()
            .map(|other| if *other < told[0] { 1.0 } else { 0.5 * f64::from(u8::from(*other == told[0])) })
            .sum();
        let n = others.len() as f64;
        // Equals are half.
        let value = match told[0].is_finite() && !others.is_empty() {
            true => Estimate { value: less / n, ..wilson(less.round() as u64, others.len() as u64) },
            false => Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN, n: 0 },
        };
        let mean = others.iter().sum::<f64>() / n;
        outcomes.push(Outcome {
            text: number,
            against: against(control, ITSELF),
            value,
            failed: told.iter().filter(|p| !p.is_finite()).count() as u64,
            chance: 0.5,
            measures: json!({
                "measure": "share of other directions for which the text is less likely", "nats_a_token": told[0],
                "nats_a_token_others": mean, "trained_on": adapter.is_trained_on(task.latent),
            }),
        });
    }
    Ok(outcomes)
}
