//! Intruder: four excerpts of like strength on which the latent fires and one on which it is silent, all marked; which is it?
//!
//! No text is needed: this says whether there is anything to explain. Chance is one in as many as are shown. The judge's liking for a
//! number is met by putting the intruder at every place equally often. Source: EleutherAI/delphi (`classifier/intruder`).

use exegete_base::sampling::pair_hash;
use exegete_base::stats::wilson;
use serde::Deserialize;
use serde_json::json;

use super::{Outcome, Task};
use crate::Result;
use crate::examples::Excerpt;
use crate::question::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    request: String,
    example: String,
    begun: String,
    shown: usize,
    rounds: usize,
}

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let prompt: Prompt = read("intruder.toml", include_str!("../../prompts/intruder.toml"))?;
    let tokenizer = task.subject.tokenizer()?;
    let choices: Vec<String> = (1..=prompt.shown).map(|i| format!(" {i}")).collect();
    let mut outcomes = Vec::new();
    for (sort, silent) in task.silent {
        if task.firing.len() + 1 < prompt.shown || silent.is_empty() {
            continue;
        }
        // Excerpts of like strength stand together.
        let mut firing: Vec<&Excerpt> = task.firing.iter().collect();
        firing.sort_by(|a, b| b.peak().total_cmp(&a.peak()));
        let mut prompts = Vec::new();
        for round in 0..prompt.rounds {
            let others = prompt.shown - 1;
            let from = round * others % (firing.len() - others + 1);
            let intruder = &silent[pair_hash(task.seed, round as u64, 0) as usize % silent.len()];
            let place = round % prompt.shown;
            let marked = |excerpt: &Excerpt| excerpt.marked(tokenizer, |i| excerpt.is_strong(i));
            let mut texts: Vec<String> = firing[from..from + others].iter().map(|excerpt| marked(excerpt)).collect();
            // As many tokens are marked as in the middle one of the others, or their number would give it away.
            let mut marks: Vec<usize> = firing[from..from + others]
                .iter()
                .map(|excerpt| (0..excerpt.ids.len()).filter(|i| excerpt.is_strong(*i)).count())
                .collect();
            marks.sort_unstable();
            let n = marks[others / 2].clamp(1, intruder.ids.len());
            let first = intruder.middle.saturating_sub(n / 2).min(intruder.ids.len() - n);
            texts.insert(place, intruder.marked(tokenizer, |i| (first..first + n).contains(&i)));
            let listed: String = texts
                .iter()
                .enumerate()
                .map(|(i, text)| prompt.example.replace("{number}", &(i + 1).to_string()).replace("{text}", text))
                .collect();
            prompts.push((prompt.request.replace("{examples}", &listed), prompt.begun.clone()));
        }
        let told = task.judge.choose(&prompts, &choices)?;
        let (mut right, mut failed) = (0, 0);
        for (round, p) in told.iter().enumerate() {
            match p.iter().enumerate().filter(|(_, p)| p.is_finite()).max_by(|a, b| a.1.total_cmp(b.1)) {
                Some((best, _)) => right += u64::from(best == round % prompt.shown),
                None => failed += 1,
            }
        }
        outcomes.push(Outcome {
            text: None,
            against: sort.name().to_owned(),
            value: wilson(right, told.len() as u64 - failed),
            failed,
            chance: 1.0 / prompt.shown as f64,
            measures: json!({"measure": "share of intruders found", "shown": prompt.shown}),
        });
    }
    Ok(outcomes)
}
