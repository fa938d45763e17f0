//! Output: the judge sees texts written while the latent was amplified, beside those of two other latents, and says which are the
//! latent's by what is said of it.
//!
//! All are amplified until they move the model equally far, and the right group stands at every place equally often, so that a liking for
//! a place does not help. Source: Gur-Arieh et al. 2025 (arXiv 2501.08319).

use exegete_base::stats::{Estimate, wilson};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ITSELF, Outcome, Task, against};
use crate::completions::{Round, SHOWN};
use crate::question::read;
use crate::{ExplainError, Result};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    request: String,
    group: String,
    text: String,
    question: String,
    begun: String,
}

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let prompt: Prompt = read("output.toml", include_str!("../../prompts/output.toml"))?;
    let rounds = match rounds(task)? {
        Ok(rounds) => rounds,
        Err(nothing) => return Ok(nothing),
    };
    let own = task.completions.of(task.latent)?;
    let texts = task.with_controls();
    let choices: Vec<String> = (1..=SHOWN).map(|i| format!(" {i}")).collect();
    let mut said = vec![[0u64; SHOWN]; texts.len()];
    let (mut right, mut failed) = (vec![0u64; texts.len()], vec![0u64; texts.len()]);
    for round in &rounds {
        let mut groups: Vec<&[String]> = round.others.iter().map(|o| o.texts[round.target].as_slice()).collect();
        groups.insert(round.place, &own.texts[round.target]);
        let listed = |(i, texts): (usize, &&[String])| {
            let texts: String = texts.iter().map(|text| prompt.text.replace("{text}", text)).collect();
            prompt.group.replace("{number}", &(i + 1).to_string()).replace("{texts}", &texts)
        };
        let shown = prompt.request.replace("{groups}", &groups.iter().enumerate().map(listed).collect::<String>());
        // All texts are asked about at once: what they are shown is the same.
        let asked = |text: &String| {
            let question = prompt.question.replace("{explanation}", text.trim());
            (format!("{shown}{question}"), prompt.begun.clone())
        };
        let told = task.judge.choose(&texts.iter().map(asked).collect::<Vec<_>>(), &choices)?;
        for (i, p) in told.iter().enumerate() {
            match p.iter().enumerate().filter(|(_, p)| p.is_finite()).max_by(|a, b| a.1.total_cmp(b.1)) {
                Some((best, _)) => {
                    said[i][best] += 1;
                    right[i] += u64::from(best == round.place);
                }
                None => failed[i] += 1,
            }
        }
    }
    let outcome = |i: usize| {
        let value = wilson(right[i], rounds.len() as u64 - failed[i]);
        let measures = json!({
            "measure": "share of groups found", "shown": SHOWN, "amplified": own.reached, "places_said": said[i],
        });
        of_text(task, i, value, failed[i], measures)
    };
    Ok((0..texts.len()).map(outcome).collect())
}

/// The rounds, or scores that say why there are none.
pub(super) fn rounds(task: &Task) -> Result<std::result::Result<Vec<Round>, Vec<Outcome>>> {
    // Of a dictionary that cannot be clamped there is no score; a latent that cannot be amplified says why in its own.
    task.completions.of(task.latent)?;
    match task.completions.rounds(task.latent) {
        Ok(rounds) => Ok(Ok(rounds)),
        Err(ExplainError::Request(why)) => {
            let nothing = Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN, n: 0 };
            let outcome = |i: usize| of_text(task, i, nothing, 0, json!({"why": why}));
            Ok(Err((0..task.with_controls().len()).map(outcome).collect()))
        }
        Err(error) => Err(error),
    }
}

/// The score of a text or, behind the texts, of a control.
pub(super) fn of_text(task: &Task, i: usize, value: Estimate, failed: u64, measures: Value) -> Outcome {
    let (text, control) = task.rows()[i];
    Outcome { text, against: against(control, ITSELF), value, failed, chance: 1.0 / SHOWN as f64, measures }
}
