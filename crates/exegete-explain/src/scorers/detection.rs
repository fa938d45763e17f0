//! Detection: the judge sees an excerpt and a text, and says whether the latent fires on the excerpt.
//!
//! Source: EleutherAI/delphi (Paulo et al. 2024, arXiv 2410.13928); one excerpt to a prompt, probabilities in place of answers. What the
//! judge is inclined to say of an excerpt whatever the text is measured by a text that says nothing, and taken off in
//! `auroc_corrected` and `balanced_accuracy_corrected` (after Zhao et al. 2021, contextual calibration).

use serde_json::Value;

use super::{Outcome, Task, of_probabilities};
use crate::Result;
use crate::judge::Verdict;
use crate::question::Question;
use crate::statistics::{Judged, auroc, balanced_accuracy, over_examples};

/// A text that says nothing of a latent.
pub(super) const NOTHING: &str = "unknown";

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let question = Question::read("detection.toml", include_str!("../../prompts/detection.toml"))?;
    let excerpts = task.excerpts()?;
    let (values, idle) = asked(task, &question, &excerpts)?;
    let n_firing = task.firing.len();
    let sorts: Vec<(&str, usize)> = task.silent.iter().map(|(sort, all)| (sort.name(), all.len())).collect();
    Ok(with_correction(task, (values, idle), (n_firing, &sorts)))
}

/// Verdicts under every text and the controls, and under the text that says nothing.
pub(super) fn asked(
    task: &Task,
    question: &Question,
    examples: &[String],
) -> Result<(Vec<Vec<Verdict>>, Vec<Verdict>)> {
    let mut texts = task.with_controls();
    texts.push(NOTHING.to_owned());
    let mut values = task.judge.verdicts(question, examples, &texts)?;
    let idle = values.pop().unwrap_or_default();
    Ok((values, idle))
}

/// Scores of verdicts, with those of verdicts less what is said whatever the text.
pub(super) fn with_correction(
    task: &Task,
    (values, idle): (Vec<Vec<Verdict>>, Vec<Verdict>),
    (n_firing, sorts): (usize, &[(&str, usize)]),
) -> Vec<Outcome> {
    let log_odds = |p: f64| (p.clamp(1e-9, 1.0 - 1e-9) / (1.0 - p.clamp(1e-9, 1.0 - 1e-9))).ln();
    let less = |row: &Vec<Verdict>| -> Vec<Verdict> {
        row.iter().zip(&idle).map(|(with, without)| Some(log_odds((*with)?) - log_odds((*without)?))).collect()
    };
    let corrected: Vec<Vec<Verdict>> = values.iter().map(less).collect();
    let seed = task.seed;
    let told = |_: usize, judged: &[Judged]| of_probabilities(judged, seed);
    let told_corrected = |_: usize, judged: &[Judged]| {
        let area = over_examples(judged, seed, auroc);
        let accuracy = over_examples(judged, seed, |judged| balanced_accuracy(judged, 0.0));
        serde_json::json!({
            "auroc_corrected": [area.value, area.low, area.high],
            "balanced_accuracy_corrected": [accuracy.value, accuracy.low, accuracy.high],
        })
    };
    let mut plain = super::outcomes(&values, &task.rows(), (n_firing, sorts), seed, told);
    let corrected = super::outcomes(&corrected, &task.rows(), (n_firing, sorts), seed, told_corrected);
    for (plain, corrected) in plain.iter_mut().zip(corrected) {
        if let (Value::Object(measures), Value::Object(more)) = (&mut plain.measures, corrected.measures) {
            measures.extend(more);
        }
    }
    plain
}
