//! Summaries over seeds, with intervals.

use exegete_base::sampling::pair_hash;
use exegete_base::stats::Estimate;

/// Two-sided 95 % quantile of the normal distribution.
const Z95: f64 = 1.959_963_984_540_054;
/// Orders drawn for a permutation test.
const ORDERS: u64 = 4000;

/// Mean with Student's 95 % interval; without bounds from one value.
pub fn mean(values: &[f64]) -> Estimate {
    let n = values.len();
    let value = values.iter().sum::<f64>() / n as f64;
    if n < 2 {
        return Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY, n: n as u64 };
    }
    let variance = values.iter().map(|v| (v - value).powi(2)).sum::<f64>() / (n - 1) as f64;
    let half = student(n - 1) * (variance / n as f64).sqrt();
    Estimate { value, low: value - half, high: value + half, n: n as u64 }
}

/// Geometric mean of positive values, with Student's interval of the logarithms.
pub fn geometric_mean(values: &[f64]) -> Estimate {
    let logs: Vec<f64> = values.iter().map(|v| v.max(f64::MIN_POSITIVE).ln()).collect();
    let e = mean(&logs);
    Estimate { value: e.value.exp(), low: e.low.exp(), high: e.high.exp(), n: e.n }
}

/// Two-sided 95 % quantile of Student's distribution: exact for up to 3 degrees of freedom, beyond by the expansion of
/// Cornish and Fisher, which is within 0.3 % there.
fn student(freedom: usize) -> f64 {
    if let Some(exact) = [12.706, 4.303, 3.182].get(freedom - 1) {
        return *exact;
    }
    let (z, d) = (Z95, freedom as f64);
    z + (z.powi(3) + z) / (4.0 * d)
        + (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * d * d)
        + (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * d.powi(3))
}

/// Ranks from 1, equal values sharing their mean rank.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let below = |v: f64| values.iter().filter(|o| o.total_cmp(&v).is_lt()).count() as f64;
    let same = |v: f64| values.iter().filter(|o| o.total_cmp(&v).is_eq()).count() as f64;
    values.iter().map(|&v| below(v) + (same(v) + 1.0) / 2.0).collect()
}

/// Spearman's rank correlation with the interval of Fieller, Hartley and Pearson (1957): Fisher's z with variance
/// 1.06 / (n - 3). Constant lists have none (no number), and fewer than four pairs no bounds.
pub fn spearman(a: &[f64], b: &[f64]) -> Estimate {
    let n = a.len();
    let value = pearson(&ranks(a), &ranks(b));
    if n < 4 || value.is_nan() {
        return Estimate { value, low: -1.0, high: 1.0, n: n as u64 };
    }
    let (z, half) = (value.clamp(-1.0 + 1e-12, 1.0 - 1e-12).atanh(), Z95 * (1.06 / (n as f64 - 3.0)).sqrt());
    Estimate { value, low: (z - half).tanh(), high: (z + half).tanh(), n: n as u64 }
}

/// How often a random pairing correlates at least as strongly, of 4,000 drawn by hash: the control of [`spearman`].
pub fn permutation_p(a: &[f64], b: &[f64]) -> f64 {
    let (a, b) = (ranks(a), ranks(b));
    let seen = pearson(&a, &b).abs();
    let reached = (0..ORDERS).filter(|&order| {
        let mut places: Vec<usize> = (0..b.len()).collect();
        places.sort_by_key(|&i| pair_hash(order, i as u64, 0x5eed));
        let shuffled: Vec<f64> = places.iter().map(|&i| b[i]).collect();
        pearson(&a, &shuffled).abs() >= seen - 1e-12
    });
    (reached.count() as f64 + 1.0) / (ORDERS as f64 + 1.0)
}

fn pearson(a: &[f64], b: &[f64]) -> f64 {
    let middle = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let (ma, mb) = (middle(a), middle(b));
    let (mut ab, mut aa, mut bb) = (0.0, 0.0, 0.0);
    for (x, y) in a.iter().zip(b) {
        ab += (x - ma) * (y - mb);
        aa += (x - ma).powi(2);
        bb += (y - mb).powi(2);
    }
    ab / (aa * bb).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_correlations_match_tables() {
        for (freedom, want) in [(1, 12.706), (4, 2.776), (9, 2.262), (19, 2.093), (30, 2.042)] {
            assert!((student(freedom) / want - 1.0).abs() < 3e-3, "{freedom}: {}", student(freedom));
        }
        // scipy.stats.spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) is 0.8207826816681233.
        let e = spearman(&[1.0, 2.0, 3.0, 4.0, 5.0], &[5.0, 6.0, 7.0, 8.0, 7.0]);
        assert!((e.value - 0.820_782_681_668_123_3).abs() < 1e-12 && e.low < e.value && e.value < e.high);
        // Of the 120 orders of five, two are perfect (up, down).
        let p = permutation_p(&[1.0, 2.0, 3.0, 4.0, 5.0], &[1.0, 2.0, 3.0, 4.0, 5.0]);
        assert!((p - 2.0 / 120.0).abs() < 0.006, "{p}");
    }
}
