//! Simulation: the judge says from the text how strongly the latent fires on each token, and that is set against what it does.
//!
//! All tokens of an excerpt are asked about at once: behind each stands a tab, and the distribution over the digits is read there. The
//! expected digit is `sum k p(k) / sum p(k)`; the score is Pearson's correlation over the tokens of all excerpts. Digits go to 9, not 10, since
//! vocabularies write 10 as two tokens. Source: Bills et al. 2023 (openai/automated-interpretability, `simulator.py`).

use exegete_base::ranks::{bootstrap, pearson};
use exegete_base::stats::Estimate;
use serde_json::json;

use super::{FEWEST, ITSELF, Outcome, Task, against};
use crate::Result;

/// Excerpts that are simulated: the half on which the latent fires, the half on which it is silent.
const EXCERPTS: usize = 10;

/// The activation that a distribution over the digits `0..p.len()` expects: `sum k p(k) / sum p(k)`.
pub fn expected(p: &[f64]) -> f64 {
    let total: f64 = p.iter().sum();
    p.iter().enumerate().map(|(k, p)| k as f64 * p).sum::<f64>() / total
}

/// Correlation of simulated and true activations over all tokens of some excerpts.
pub fn correlation(excerpts: &[(Vec<f64>, Vec<f64>)]) -> f64 {
    let pairs = excerpts.iter().flat_map(|(simulated, real)| simulated.iter().copied().zip(real.iter().copied()));
    pearson(&pairs.collect::<Vec<(f64, f64)>>())
}

pub(super) fn score(task: &Task) -> Result<Vec<Outcome>> {
    let tokenizer = task.subject.tokenizer()?;
    let random = task.silent.first().map_or(&[][..], |(_, excerpts)| excerpts);
    let excerpts: Vec<_> = task.firing.iter().take(EXCERPTS / 2).chain(random.iter().take(EXCERPTS / 2)).collect();
    let digits: Vec<String> = (0..10).map(|k| k.to_string()).collect();
    let mut outcomes = Vec::new();
    let rows = task.rows();
    for (i, text) in task.with_controls().iter().enumerate() {
        let (number, control) = rows[i];
        let (mut pairs, mut failed) = (Vec::new(), 0);
        for excerpt in &excerpts {
            let beginning = format!(
                "A neuron of a language model looks for something in a text. After each token stands how strongly it fires, from 0 to 9; \
                 most tokens have 0.\n\nThe neuron looks for: animals\nThe\t0\n dog\t9\n ran\t0\n home\t0\n\nThe neuron looks for: {}\n",
                text.trim()
            );
            // A line for each token; what it is worth is read behind the tab and never shown.
            let pieces: Vec<String> =
                excerpt.ids.iter().map(|id| tokenizer.token_text(*id).replace(['\n', '\t'], " ")).collect();
            let told = task.judge.follow(&beginning, &pieces, ("\t", "unknown\n"), &digits)?;
            let expected: Vec<f64> = told.iter().map(|p| expected(p)).collect();
            if expected.iter().all(|x| x.is_finite()) && expected.len() == excerpt.values.len() {
                pairs.push((expected, excerpt.values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>()));
            } else {
                failed += 1;
            }
        }
        let value = match pairs.len() >= FEWEST {
            true => bootstrap(&pairs, task.seed, correlation),
            false => Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN, n: pairs.len() as u64 },
        };
        outcomes.push(Outcome {
            text: number,
            against: against(control, ITSELF),
            value,
            failed,
            chance: 0.0,
            measures: json!({"measure": "Pearson's correlation over tokens", "digits": "0 to 9"}),
        });
    }
    Ok(outcomes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_the_published_formula() {
        // Half of the probability on 2, a quarter each on 0 and 4, and nothing outside counts: (0 + 1 + 1) / 1 = 2.
        assert!((expected(&[0.25, 0.0, 0.5, 0.0, 0.25]) - 2.0).abs() < 1e-12);
        // Not all probability lies on digits: what is there is brought to one.
        assert!((expected(&[0.1, 0.3]) - 0.75).abs() < 1e-12);
        // numpy.corrcoef([0, 2, 0, 8], [0, 1, 0, 5])[0, 1]
        let pairs = vec![(vec![0.0, 2.0], vec![0.0, 1.0]), (vec![0.0, 8.0], vec![0.0, 5.0])];
        assert!((correlation(&pairs) - 0.998_631_073_964_667_3).abs() < 1e-12, "{}", correlation(&pairs));
        assert!(correlation(&[(vec![1.0, 1.0], vec![0.0, 3.0])]).is_nan());
    }
}
