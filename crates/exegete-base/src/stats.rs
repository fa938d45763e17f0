//! Statistics with intervals. Every number that is reported carries one of these.

use serde::{Deserialize, Serialize};

/// A number with its 95 % interval and the count behind it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The point estimate.
    pub value: f64,
    /// Lower end of the 95 % interval.
    pub low: f64,
    /// Upper end of the 95 % interval.
    pub high: f64,
    /// Number of units (trials, documents) behind it.
    pub n: u64,
}

/// Two-sided 95 % quantile of the normal distribution.
pub const Z95: f64 = 1.959_963_984_540_054;

/// Share of successes with Wilson's score interval (Wilson 1927).
pub fn wilson(successes: u64, n: u64) -> Estimate {
    if n == 0 {
        return Estimate { value: f64::NAN, low: 0.0, high: 1.0, n };
    }
    let (count, p, z2) = (n as f64, successes as f64 / n as f64, Z95 * Z95);
    let centre = (p + z2 / (2.0 * count)) / (1.0 + z2 / count);
    let half = Z95 / (1.0 + z2 / count) * (p * (1.0 - p) / count + z2 / (4.0 * count * count)).sqrt();
    Estimate { value: p, low: (centre - half).max(0.0), high: (centre + half).min(1.0), n }
}

/// Ratio of sums over clusters (documents), with the linearised (delta-method) interval.
///
/// Tokens of a document are not independent, so the document is the unit of sampling. Of few documents the spread is known
/// badly, so the quantile is Student's.
pub fn ratio_of_sums(pairs: &[(f64, f64)]) -> Estimate {
    let n = pairs.len() as u64;
    let (num, den) = pairs.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let value = num / den;
    if n < 2 {
        return Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY, n };
    }
    let squares: f64 = pairs.iter().map(|(x, y)| (x - value * y).powi(2)).sum();
    let half = student95(n as f64 - 1.0) * (squares * n as f64 / (n as f64 - 1.0)).sqrt() / den;
    Estimate { value, low: value - half, high: value + half, n }
}

/// Difference of two ratios of sums over the same clusters, the first less the second, with the linearised interval.
///
/// Both are measured on the same documents, so what a hard document does to both is no part of the difference.
/// There are as many pairs in `b` as in `a`.
pub fn difference_of_ratios(a: &[(f64, f64)], b: &[(f64, f64)]) -> Estimate {
    let n = a.len().min(b.len()) as u64;
    let sums = |pairs: &[(f64, f64)]| pairs.iter().fold((0.0, 0.0), |(x, y), (num, den)| (x + num, y + den));
    let ((num_a, den_a), (num_b, den_b)) = (sums(a), sums(b));
    let (ratio_a, ratio_b) = (num_a / den_a, num_b / den_b);
    let value = ratio_a - ratio_b;
    if n < 2 {
        return Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY, n };
    }
    let pull = |(num, den): &(f64, f64), ratio: f64, all: f64| (num - ratio * den) / all;
    let squares: f64 = a.iter().zip(b).map(|(a, b)| (pull(a, ratio_a, den_a) - pull(b, ratio_b, den_b)).powi(2)).sum();
    let half = student95(n as f64 - 1.0) * (squares * n as f64 / (n as f64 - 1.0)).sqrt();
    Estimate { value, low: value - half, high: value + half, n }
}

/// Mean of a few independent values, such as one of each seed, with Student's interval.
pub fn mean_of(values: &[f64]) -> Estimate {
    let (mean, variance) = mean_and_variance(values);
    let n = values.len() as u64;
    if n < 2 {
        return Estimate { value: mean, low: f64::NEG_INFINITY, high: f64::INFINITY, n };
    }
    let half = student95(n as f64 - 1.0) * (variance / n as f64).sqrt();
    Estimate { value: mean, low: mean - half, high: mean + half, n }
}

/// Difference of the means of two groups, the first less the second, with Welch's interval (Welch 1947).
pub fn difference_of_means(a: &[f64], b: &[f64]) -> Estimate {
    let ((mean_a, var_a), (mean_b, var_b)) = (mean_and_variance(a), mean_and_variance(b));
    let (value, n) = (mean_a - mean_b, (a.len() + b.len()) as u64);
    if a.len() < 2 || b.len() < 2 {
        return Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY, n };
    }
    let (part_a, part_b) = (var_a / a.len() as f64, var_b / b.len() as f64);
    let sum = part_a + part_b;
    let free = sum * sum / (part_a * part_a / (a.len() as f64 - 1.0) + part_b * part_b / (b.len() as f64 - 1.0));
    let half = if sum > 0.0 { student95(free) * sum.sqrt() } else { 0.0 };
    Estimate { value, low: value - half, high: value + half, n }
}

fn mean_and_variance(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0))
}

/// Two-sided 95 % quantile of Student's distribution, of a whole number of degrees of freedom up to 10 by table and beyond
/// by Cornish and Fisher's expansion, whose error there is below 0.001.
fn student95(free: f64) -> f64 {
    const TABLE: [f64; 10] = [12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281];
    if free < 11.0 {
        // Welch's degrees are no whole number: the smaller one is the wider interval.
        return TABLE[(free.floor() as usize).clamp(1, 10) - 1];
    }
    let z = Z95;
    let third = 3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z;
    z + (z.powi(3) + z) / (4.0 * free)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * free * free)
        + third / (384.0 * free.powi(3))
}

/// Area under the curve of true against false positive rates, with an interval over clusters (Obuchowski 1997): the area is
/// the share of pairs of a positive and a negative where the positive has the higher score, ties counting half.
pub fn auc(scores: &[f64], is_positive: &[bool], cluster: &[u32]) -> Estimate {
    let (mut positive, mut negative): (Vec<f64>, Vec<f64>) = (Vec::new(), Vec::new());
    for (score, is_positive) in scores.iter().zip(is_positive) {
        if *is_positive { positive.push(*score) } else { negative.push(*score) }
    }
    positive.sort_by(f64::total_cmp);
    negative.sort_by(f64::total_cmp);
    // The share of the sorted that lie below, ties counting half.
    let below = |sorted: &[f64], score: f64| {
        let (less, up_to) = (sorted.partition_point(|s| *s < score), sorted.partition_point(|s| *s <= score));
        (less + up_to) as f64 / (2 * sorted.len()) as f64
    };
    let (n_pos, n_neg) = (positive.len() as f64, negative.len() as f64);
    let value = positive.iter().map(|score| below(&negative, *score)).sum::<f64>() / n_pos;
    // By cluster: what its positives and its negatives add above the mean.
    let mut pulls: std::collections::BTreeMap<u32, f64> = std::collections::BTreeMap::new();
    for ((score, is_positive), cluster) in scores.iter().zip(is_positive).zip(cluster) {
        *pulls.entry(*cluster).or_default() += match is_positive {
            true => (below(&negative, *score) - value) / n_pos,
            false => (1.0 - below(&positive, *score) - value) / n_neg,
        };
    }
    let n = pulls.len() as u64;
    if n < 2 {
        return Estimate { value, low: 0.0, high: 1.0, n };
    }
    let half =
        student95(n as f64 - 1.0) * (pulls.values().map(|p| p * p).sum::<f64>() * n as f64 / (n as f64 - 1.0)).sqrt();
    Estimate { value, low: (value - half).max(0.0), high: (value + half).min(1.0), n }
}

impl Estimate {
    /// Whether 0 lies inside the interval: a difference that may as well be none.
    pub fn holds_zero(&self) -> bool {
        self.low <= 0.0 && self.high >= 0.0
    }

    /// Cut to 0..1, for a share.
    pub fn as_share(self) -> Self {
        Self { low: self.low.max(0.0), high: self.high.min(1.0), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wilson_matches_published_values() {
        // scipy.stats.binomtest(8, 16).proportion_ci(method="wilson") = (0.2800, 0.7200).
        let e = wilson(8, 16);
        assert!((e.low - 0.27999).abs() < 1e-4 && (e.high - 0.72001).abs() < 1e-4, "{e:?}");
        assert_eq!(wilson(0, 10).low, 0.0);
    }

    #[test]
    fn a_ratio_of_constant_clusters_has_no_width() {
        let e = ratio_of_sums(&[(1.0, 4.0), (2.0, 8.0), (0.5, 2.0)]);
        assert!((e.value - 0.25).abs() < 1e-12 && (e.high - e.low).abs() < 1e-12);
    }

    #[test]
    fn students_interval_matches_tables() {
        // scipy.stats.t.ppf(0.975, df)
        for (free, want) in [(1.0, 12.7062), (2.0, 4.3027), (10.5, 2.2281), (12.0, 2.1788), (30.0, 2.0423)] {
            assert!((student95(free) - want).abs() < 1e-3, "{free}: {}", student95(free));
        }
        let e = mean_of(&[1.0, 2.0, 3.0]);
        assert!((e.value - 2.0).abs() < 1e-12 && (e.high - 2.0 - 4.3027 / 3f64.sqrt()).abs() < 1e-3, "{e:?}");
        assert!(!mean_of(&[1.0]).high.is_finite());
        let same = difference_of_means(&[1.0, 2.0, 3.0], &[1.5, 2.0, 2.6]);
        let apart = difference_of_means(&[1.0, 1.1, 0.9], &[2.0, 2.1, 1.9]);
        assert!(same.holds_zero() && !apart.holds_zero(), "{same:?} {apart:?}");
    }

    #[test]
    fn a_difference_on_the_same_documents_is_sharper_than_its_parts() {
        let a: Vec<(f64, f64)> = (0..20).map(|i| (f64::from(i % 7) + 0.1, 3.0)).collect();
        let b: Vec<(f64, f64)> = a.iter().map(|(x, y)| (x - 0.1, *y)).collect();
        let difference = difference_of_ratios(&a, &b);
        assert!((difference.value - 0.1 / 3.0).abs() < 1e-12 && difference.high - difference.low < 1e-12);
        assert!(difference_of_ratios(&a, &a).holds_zero());
    }

    #[test]
    fn the_area_counts_pairs_and_its_interval_clusters() {
        let scores = [0.1, 0.4, 0.35, 0.8];
        // sklearn.metrics.roc_auc_score([0, 0, 1, 1], scores) = 0.75.
        let e = auc(&scores, &[false, false, true, true], &[0, 1, 2, 3]);
        assert!((e.value - 0.75).abs() < 1e-12, "{e:?}");
        let tied = auc(&[1.0; 4], &[false, false, true, true], &[0, 1, 2, 3]);
        assert_eq!(tied.value, 0.5);
        // The same examples ten times over, in the same clusters, tell no more.
        let again: Vec<f64> = scores.repeat(10);
        let more = auc(&again, &[false, false, true, true].repeat(10), &[0, 1, 2, 3].repeat(10));
        assert!((more.low - e.low).abs() < 1e-9 && more.n == 4, "{e:?} {more:?}");
    }
}
