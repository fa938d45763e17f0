//! How rules of choosing a scale compare, on stored curves and texts alone.
//!
//! What a scale is worth is the score of the text that is said there, or whether a person picked it: nothing depends on taste, nor on what
//! a rule says of itself. Items are split in two by a hash of what they are about: each rule's weight is chosen on one half, what is
//! told is of the other, with intervals by drawing what items are about again, and differences over the same items.

use std::collections::BTreeMap;

use exegete_base::ranks::bootstrap;
use exegete_base::sampling::pair_hash;
use exegete_base::settings::{ScaleRule, SelfExplainSettings};
use exegete_base::stats::Estimate;
use serde::Serialize;

use super::Curves;
use super::choice::{Choice, Said, different, rank};
use super::plateaus::Background;

/// Texts that a rule may give.
const TEXTS: usize = 3;
/// Seed of the split and of the intervals.
const SEED: u64 = 0;
/// Weights that are tried where a rule has one.
const ALPHAS: [f64; 9] = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9];

/// The rules that are compared, and whether they have a weight; what the others are set against is last.
pub const RULES: &[(ScaleRule, &str, bool)] = &[
    (ScaleRule::SelfSimilarity, "self-similarity", false),
    (ScaleRule::MinEntropy, "min-entropy", false),
    (ScaleRule::Entropy, "entropy (composite c)", false),
    (ScaleRule::CrossEntropy, "cross-entropy (composite b)", true),
    (ScaleRule::Peaks, "peaks", true),
    (ScaleRule::Plateaus, "plateaus", true),
];

/// A direction as it was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What it is about: items about one thing are drawn together, and stand in one half.
    pub about: u64,
    /// Its curves.
    pub curves: Curves,
    /// What is said at each scale.
    pub texts: Vec<String>,
    /// What that is worth; none where it was not judged, which is passed over.
    pub worth: Vec<Option<f64>>,
    /// What saying nothing is worth: 0 of hits, chance of a score.
    pub nothing: f64,
}

/// How a rule does on the half that it was not tuned on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RuleResult {
    /// The rule.
    pub rule: &'static str,
    /// The weight that was best on the other half, for rules that have one.
    pub alpha: Option<f64>,
    /// Mean worth of its first text; that of saying nothing where it abstains.
    pub first: Estimate,
    /// Mean worth of the best of its first three different texts.
    pub best_of_three: Estimate,
    /// Items of which it says nothing.
    pub abstained: usize,
    /// The last rule less this one, over the same items; none for itself.
    pub last_less: Option<[Estimate; 2]>,
}

/// How the rules compare.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// Items that weights were chosen on.
    pub tuned_on: usize,
    /// Items that are told of.
    pub items: usize,
    /// Things that these are about.
    pub about: usize,
    /// The rules.
    pub rules: Vec<RuleResult>,
    /// The best scale of each item: what no rule can exceed.
    pub oracle: Estimate,
    /// The mean scale: what choosing blindly gives.
    pub any: Estimate,
}

/// Compares all rules. Hits are counted, so none abstains for its own reasons where another would speak: an abstention is worth nothing.
pub fn compare(items: &[Item], background: &Background) -> Comparison {
    let is_tuned = |item: &&Item| pair_hash(SEED, item.about, 1).is_multiple_of(2);
    let (tuning, test): (Vec<&Item>, Vec<&Item>) = items.iter().partition(is_tuned);
    let settings = |rule: ScaleRule, alpha: f64| SelfExplainSettings {
        rule,
        alpha,
        abstain_below: f64::NEG_INFINITY,
        ..SelfExplainSettings::default()
    };
    let all = |of: &[&Item], s: &SelfExplainSettings| {
        of.iter().map(|item| worth(item, background, s)).collect::<Vec<[f64; 2]>>()
    };
    let mut measured = Vec::new();
    for (rule, name, has_alpha) in RULES {
        let sum = |alpha: &f64| all(&tuning, &settings(*rule, *alpha)).iter().map(|w| w[0] + w[1]).sum::<f64>();
        let best = ALPHAS.iter().copied().map(|alpha| (sum(&alpha), alpha));
        // Of equals the first: `max_by` would take the last.
        let alpha = best.fold((f64::MIN, 0.4), |best, next| if next.0 > best.0 { next } else { best }).1;
        let chosen = settings(*rule, if *has_alpha { alpha } else { 0.4 });
        let abstained = test.iter().filter(|item| choose(item, background, &chosen) == Choice::Abstain).count();
        measured.push((*name, has_alpha.then_some(alpha), all(&test, &chosen), abstained));
    }
    let about: Vec<u64> = test.iter().map(|item| item.about).collect();
    let last = measured.last().map(|(_, _, of, _)| of.clone()).unwrap_or_default();
    let n_rules = measured.len();
    let rules = measured.into_iter().enumerate().map(|(i, (rule, alpha, of, abstained))| {
        let told = |k: usize| over(&about, &of.iter().map(|w| w[k]).collect::<Vec<_>>());
        let less = |k: usize| over(&about, &last.iter().zip(&of).map(|(last, w)| last[k] - w[k]).collect::<Vec<_>>());
        let last_less = (i + 1 < n_rules).then(|| [less(0), less(1)]);
        RuleResult { rule, alpha, first: told(0), best_of_three: told(1), abstained, last_less }
    });
    let rules = rules.collect();
    let judged = |item: &Item| -> Vec<f64> { item.worth[1..].iter().flatten().copied().collect() };
    let best: Vec<f64> = test.iter().map(|item| judged(item).into_iter().fold(item.nothing, f64::max)).collect();
    let any = |item: &&Item| judged(item).iter().sum::<f64>() / judged(item).len().max(1) as f64;
    let any: Vec<f64> = test.iter().map(any).collect();
    let different_about: std::collections::BTreeSet<u64> = about.iter().copied().collect();
    Comparison {
        tuned_on: tuning.len(),
        items: test.len(),
        about: different_about.len(),
        rules,
        oracle: over(&about, &best),
        any: over(&about, &any),
    }
}

/// The worth of a rule's first text, and of the best of its first different ones; nothing after abstention.
fn worth(item: &Item, background: &Background, settings: &SelfExplainSettings) -> [f64; 2] {
    let Choice::Scales(ranked) = choose(item, background, settings) else { return [item.nothing; 2] };
    let judged: Vec<(&String, f64)> =
        ranked.iter().filter_map(|(i, _)| Some((&item.texts[*i], item.worth[*i]?))).collect();
    let texts: Vec<String> = judged.iter().map(|(text, _)| (*text).clone()).collect();
    let of: Vec<f64> = different(&texts, TEXTS).into_iter().map(|at| judged[at].1).collect();
    [of.first().copied().unwrap_or(item.nothing), of.iter().copied().reduce(f64::max).unwrap_or(item.nothing)]
}

fn choose(item: &Item, background: &Background, settings: &SelfExplainSettings) -> Choice {
    rank(&item.curves, Some(Said { texts: &item.texts, background }), settings)
}

/// The mean, with an interval over what items are about.
fn over(about: &[u64], values: &[f64]) -> Estimate {
    let mut groups: BTreeMap<u64, Vec<f64>> = BTreeMap::new();
    for (about, value) in about.iter().zip(values) {
        groups.entry(*about).or_default().push(*value);
    }
    let groups: Vec<Vec<f64>> = groups.into_values().collect();
    let mean = |groups: &[Vec<f64>]| {
        let (sum, n) = groups.iter().flatten().fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
        sum / n.max(1) as f64
    };
    Estimate { n: values.len() as u64, ..bootstrap(&groups, SEED, mean) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Self-similarity rises to the end and has a hump at `at`, where alone the right text is said.
    fn item(about: u64, at: usize) -> Item {
        let scales: Vec<f64> = (0..64).map(f64::from).collect();
        let hump = |s: f64| (-((s - at as f64) / 4.0).powi(2)).exp();
        let curves = Curves {
            self_similarity: scales.iter().map(|s| 0.3 * hump(*s) + 0.01 * s).collect(),
            entropy: scales.iter().map(|s| -0.001 * s).collect(),
            cross_entropy: vec![1.0; 64],
            cross_entropy_random: vec![],
            by_layer: vec![],
            scales,
        };
        let right = |i: usize| i.abs_diff(at) <= 2;
        let texts = (0..64).map(|i| if right(i) { "right".into() } else { format!("wrong {i}") }).collect();
        Item {
            about,
            curves,
            texts,
            worth: (0..64).map(|i| Some(f64::from(u8::from(right(i))))).collect(),
            nothing: 0.0,
        }
    }

    #[test]
    fn a_rule_that_finds_the_hump_beats_one_that_takes_the_maximum() {
        let items: Vec<Item> = (0..80).map(|i| item(i / 2, 20 + (i as usize % 7))).collect();
        let random: Vec<Vec<String>> = (0..4).map(|_| (0..64).map(|i| format!("wrong {i}")).collect()).collect();
        let told = compare(&items, &Background::of(&random));
        assert_eq!(told.tuned_on + told.items, 80);
        assert_eq!(told.about * 2, told.items, "what is about one thing stands in one half");
        let [argmax, .., peaks, plateaus] = told.rules.as_slice() else { panic!() };
        assert_eq!((argmax.first.value, peaks.first.value, plateaus.first.value), (0.0, 1.0, 1.0));
        let less = argmax.last_less.unwrap()[0];
        assert!(less.low > 0.0 && plateaus.last_less.is_none());
        assert_eq!(told.oracle.value, 1.0);
        assert!((told.any.value - 5.0 / 63.0).abs() < 1e-9);
    }
}
