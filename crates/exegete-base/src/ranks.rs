//! Agreement of two orders, and intervals by drawing again.

use crate::sampling::pair_hash;
use crate::stats::Estimate;

/// Samples drawn for an interval.
const RESAMPLES: u64 = 2000;

/// Spearman's rank correlation of pairs, ties at their mean rank; NaN where either side has one value alone.
pub fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let [x, y] =
        [|p: &(f64, f64)| p.0, |p: &(f64, f64)| p.1].map(|of| ranks(&pairs.iter().map(of).collect::<Vec<_>>()));
    pearson(&x.into_iter().zip(y).collect::<Vec<_>>())
}

/// Pearson's correlation of pairs; NaN where either side has one value alone.
pub fn pearson(pairs: &[(f64, f64)]) -> f64 {
    let n = pairs.len() as f64;
    let (mean_x, mean_y) = (pairs.iter().map(|p| p.0).sum::<f64>() / n, pairs.iter().map(|p| p.1).sum::<f64>() / n);
    let (mut xy, mut xx, mut yy) = (0.0, 0.0, 0.0);
    for (x, y) in pairs {
        let (x, y) = (x - mean_x, y - mean_y);
        (xy, xx, yy) = (xy + x * y, xx + x * x, yy + y * y);
    }
    if xx > 0.0 && yy > 0.0 { xy / (xx * yy).sqrt() } else { f64::NAN }
}

/// Ranks from 0; equal values share the mean of their places.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    for group in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = from as f64 + (group.len() as f64 - 1.0) / 2.0;
        group.iter().for_each(|at| ranks[*at] = rank);
        from += group.len();
    }
    ranks
}

/// A statistic of items with the interval between the 2.5 % and the 97.5 % quantile over samples of as many items, drawn with
/// replacement (Efron 1979); the draws depend on the seed alone. Samples without a finite statistic are left out, and where half are,
/// there is no interval.
pub fn bootstrap<T: Clone>(items: &[T], seed: u64, statistic: impl Fn(&[T]) -> f64) -> Estimate {
    let (value, n) = (statistic(items), items.len() as u64);
    let none = Estimate { value, low: f64::NEG_INFINITY, high: f64::INFINITY, n };
    if n < 2 {
        return none;
    }
    let mut drawn: Vec<f64> = Vec::with_capacity(RESAMPLES as usize);
    let mut sample = Vec::with_capacity(items.len());
    for draw in 0..RESAMPLES {
        sample.clear();
        sample.extend((0..n).map(|i| items[(pair_hash(seed, draw, i) % n) as usize].clone()));
        drawn.push(statistic(&sample));
    }
    drawn.retain(|x| x.is_finite());
    if drawn.len() < RESAMPLES as usize / 2 {
        return none;
    }
    drawn.sort_by(f64::total_cmp);
    let at = |q: f64| drawn[((drawn.len() - 1) as f64 * q).round() as usize];
    Estimate { value, low: at(0.025), high: at(0.975), n }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_agree_with_published_values() {
        // scipy.stats.spearmanr([1, 2, 3, 4, 5], [5, 6, 7, 8, 7]) = 0.8207826816681233.
        let pairs: Vec<(f64, f64)> = [1.0, 2.0, 3.0, 4.0, 5.0].into_iter().zip([5.0, 6.0, 7.0, 8.0, 7.0]).collect();
        assert!((spearman(&pairs) - 0.820_782_681_668_123_3).abs() < 1e-12);
        assert!(spearman(&[(1.0, 2.0), (1.0, 3.0)]).is_nan());
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 0.0]), [2.5, 1.0, 2.5, 0.0]);
    }

    #[test]
    fn an_interval_holds_the_mean_as_often_as_it_says() {
        let mut held = 0;
        for trial in 0..200u64 {
            let uniform = |i: u64| pair_hash(trial, i, 9) as f64 / u64::MAX as f64;
            let items: Vec<f64> = (0..60).map(uniform).collect();
            let mean = |items: &[f64]| items.iter().sum::<f64>() / items.len() as f64;
            let e = bootstrap(&items, trial, mean);
            held += u32::from(e.low <= 0.5 && 0.5 <= e.high);
        }
        assert!((180..=199).contains(&held), "{held} of 200");
        assert_eq!(bootstrap(&[1.0], 0, |x: &[f64]| x[0]).high, f64::INFINITY);
    }
}
