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
/// Tokens of a document are not independent, so the document is the unit of sampling.
pub fn ratio_of_sums(pairs: &[(f64, f64)]) -> Estimate {
    let n = pairs.len() as u64;
    let (num, den) = pairs.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let value = num / den;
    if n < 2 {
        return Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY, n };
    }
    let squares: f64 = pairs.iter().map(|(x, y)| (x - value * y).powi(2)).sum();
    let half = Z95 * (squares * n as f64 / (n as f64 - 1.0)).sqrt() / den;
    Estimate { value, low: value - half, high: value + half, n }
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
}
