//! From judgements to numbers: the area under the ROC curve, balanced accuracy, and their intervals over examples.

use exegete_base::ranks::{bootstrap, ranks};
use exegete_base::stats::Estimate;
use serde::Serialize;

/// What a judge made of an example.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Judged {
    /// The larger, the more the example is one on which the latent fires.
    pub value: f64,
    /// Whether it is.
    pub fires: bool,
}

/// Area under the ROC curve, ties counting half: of an example that fires and one that does not, how often the first has the larger
/// value. Of answers by yes and no alone it is the balanced accuracy. Not a number where either kind is missing.
pub fn auroc(judged: &[Judged]) -> f64 {
    let positive = judged.iter().filter(|j| j.fires).count() as f64;
    let negative = judged.len() as f64 - positive;
    if positive == 0.0 || negative == 0.0 {
        return f64::NAN;
    }
    let values: Vec<f64> = judged.iter().map(|j| j.value).collect();
    let sum: f64 = ranks(&values).iter().zip(judged).filter(|(_, j)| j.fires).map(|(rank, _)| rank).sum();
    // Ranks count from 0.
    (sum - positive * (positive - 1.0) / 2.0) / (positive * negative)
}

/// Mean of the shares of both kinds that lie on their side of a bound.
pub fn balanced_accuracy(judged: &[Judged], bound: f64) -> f64 {
    let share = |fires: bool| {
        let of: Vec<&Judged> = judged.iter().filter(|j| j.fires == fires).collect();
        of.iter().filter(|j| (j.value > bound) == fires).count() as f64 / of.len() as f64
    };
    (share(true) + share(false)) / 2.0
}

/// A statistic with its bootstrap interval over examples.
pub fn over_examples(judged: &[Judged], seed: u64, statistic: impl Fn(&[Judged]) -> f64) -> Estimate {
    bootstrap(judged, seed, statistic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(positive: &[f64], negative: &[f64]) -> Vec<Judged> {
        let all =
            |values: &[f64], fires| values.iter().map(|value| Judged { value: *value, fires }).collect::<Vec<_>>();
        [all(positive, true), all(negative, false)].concat()
    }

    #[test]
    fn the_area_of_yes_and_no_is_the_balanced_accuracy() {
        let judged = of(&[1.0, 1.0, 0.0], &[0.0, 1.0, 0.0, 0.0]);
        let accuracy = balanced_accuracy(&judged, 0.5);
        assert!((accuracy - (2.0 / 3.0 + 0.75) / 2.0).abs() < 1e-12);
        assert!((auroc(&judged) - accuracy).abs() < 1e-12);
        // sklearn.metrics.roc_auc_score([1, 1, 0, 0], [0.8, 0.35, 0.4, 0.1]) = 0.75.
        assert!((auroc(&of(&[0.8, 0.35], &[0.4, 0.1])) - 0.75).abs() < 1e-12);
        assert!(auroc(&of(&[1.0], &[])).is_nan());
    }

    #[test]
    fn a_judge_that_knows_nothing_is_at_chance_within_its_interval() {
        let mut held = 0;
        for trial in 0..100u64 {
            let value = |i: u64| exegete_base::sampling::pair_hash(trial, i, 3) as f64;
            let judged: Vec<Judged> = (0..80).map(|i| Judged { value: value(i), fires: i % 2 == 0 }).collect();
            let e = over_examples(&judged, trial, auroc);
            held += u32::from(e.low <= 0.5 && 0.5 <= e.high);
        }
        assert!(held >= 88, "{held} of 100");
    }
}
