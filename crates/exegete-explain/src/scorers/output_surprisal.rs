//! Output by surprisal: how much likelier what is said of a latent becomes behind texts written while the latent was amplified.
//!
//! `log p(text | amplified) - log p(text | clean)`, in nats, is told beside the score (Paulo et al. 2024, arXiv 2410.13928: the
//! intervention score). The score is the share of rounds of [`super::output`] in which the latent's own texts make what is said likelier
//! than those of either other latent do. No judge has to pick a group here, so a small one will do. Equals are not found. Some
//! texts make anything likelier that follows them: what they make of descriptions of nothing is taken off in `share_corrected`.

use std::collections::HashSet;

use exegete_base::stats::wilson;
use serde::Deserialize;
use serde_json::json;

use super::{Outcome, Task, output};
use crate::Result;
use crate::question::read;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Prompt {
    beginning: String,
    text: String,
    idle: Vec<String>,
}

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let prompt: Prompt = read("output-surprisal.toml", include_str!("../../prompts/output-surprisal.toml"))?;
    let mut rounds = match output::rounds(task)? {
        Ok(rounds) => rounds,
        Err(nothing) => return Ok(nothing),
    };
    // There are no places here, and what differs by them alone would count twice.
    let mut seen = HashSet::new();
    rounds.retain(|round| seen.insert((round.target, round.others.each_ref().map(|other| other.latent))));
    let own = task.completions.of(task.latent)?;
    let before = |texts: &[String]| {
        let listed: String = texts.iter().map(|text| prompt.text.replace("{text}", text)).collect();
        prompt.beginning.replace("{texts}", &listed).trim_end().to_owned()
    };
    // Groups by latent and divergence, each once, behind the one that nothing was amplified in.
    let (mut beginnings, mut places) = (vec![before(task.completions.clean()?)], Vec::new());
    for round in &rounds {
        for steered in [&own].into_iter().chain(&round.others) {
            let place = (steered.latent, round.target);
            if !places.contains(&place) {
                places.push(place);
                beginnings.push(before(&steered.texts[round.target]));
            }
        }
    }
    let texts = task.with_controls();
    let behind: Vec<String> = texts.iter().chain(&prompt.idle).map(|text| format!(" {}", text.trim())).collect();
    let told = task.judge.log_probabilities(&beginnings, &behind)?;
    // By group, in the order of `places`.
    let gains = |i: usize| told[1..].iter().map(|row| row[i] - told[0][i]).collect::<Vec<f64>>();
    let mut idle = vec![0f64; places.len()];
    for i in texts.len()..behind.len() {
        idle.iter_mut().zip(gains(i)).for_each(|(idle, gain)| *idle += gain / prompt.idle.len() as f64);
    }
    let found = |gains: &[f64]| {
        let gain = |latent: u32, target: usize| {
            places.iter().position(|place| *place == (latent, target)).map_or(f64::NAN, |at| gains[at])
        };
        let (mut right, mut failed) = (0, 0);
        for round in &rounds {
            let mine = gain(task.latent, round.target);
            let others = round.others.each_ref().map(|other| gain(other.latent, round.target));
            match mine.is_finite() && others.iter().all(|other| other.is_finite()) {
                true => right += u64::from(others.iter().all(|other| mine > *other)),
                false => failed += 1,
            }
        }
        (wilson(right, rounds.len() as u64 - failed), failed)
    };
    let outcome = |i: usize| {
        let gains = gains(i);
        let mean = |is_own: bool| {
            let of = places.iter().zip(&gains).filter(|((latent, _), _)| (*latent == task.latent) == is_own);
            let of: Vec<f64> = of.map(|(_, gain)| *gain).collect();
            of.iter().sum::<f64>() / of.len() as f64
        };
        let (value, failed) = found(&gains);
        let (corrected, _) = found(&gains.iter().zip(&idle).map(|(gain, idle)| gain - idle).collect::<Vec<f64>>());
        let measures = json!({
            "measure": "share of groups found", "nats_gained": mean(true), "nats_gained_others": mean(false),
            "share_corrected": [corrected.value, corrected.low, corrected.high], "amplified": own.reached,
        });
        output::of_text(task, i, value, failed, measures)
    };
    Ok((0..texts.len()).map(outcome).collect())
}
