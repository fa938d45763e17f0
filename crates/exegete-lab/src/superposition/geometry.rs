//! How vectors share the dimensions of a space: capacity, antipodal pairs, cosines.

use exegete_base::stats::{Estimate, ratio_of_sums};

/// Norm below which a vector counts as absent. Ideal norms are 0 and 1.
pub const REPRESENTED: f64 = 0.5;

/// Cosine at or below which two vectors count as antipodal.
pub const ANTIPODAL: f64 = -0.9;

/// Dot product in f64.
pub fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

/// Euclidean norm.
pub fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// Cosine of two vectors; 0 where one of them is zero.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let norms = norm(a) * norm(b);
    if norms > 0.0 { dot(a, b) / norms } else { 0.0 }
}

/// Feature dimensionality of each row (Elhage et al. 2022), `D_i = |v_i|^2 / sum_j (u_i . v_j)^2` with `u_i` the unit
/// vector of `v_i`: the share of a dimension that the feature has for itself. 1 for a feature alone in its direction,
/// 1/2 for each of an antipodal pair, 0 for a row of zeros.
///
/// # Shapes
/// `rows` is `[features, width]` row after row.
pub fn capacity(rows: &[f32], width: usize) -> Vec<f64> {
    let of = |v: &[f32]| {
        let own = dot(v, v);
        let shared: f64 = rows.chunks_exact(width).map(|other| dot(v, other).powi(2)).sum();
        if own > 0.0 { own * own / shared } else { 0.0 }
    };
    rows.chunks_exact(width).map(of).collect()
}

/// Pairs of rows that point against each other: both norms at least [`REPRESENTED`], cosine at most [`ANTIPODAL`].
pub fn antipodal_pairs(rows: &[f32], width: usize) -> Vec<(usize, usize)> {
    let rows: Vec<(usize, &[f32])> =
        rows.chunks_exact(width).enumerate().filter(|(_, v)| norm(v) >= REPRESENTED).collect();
    let mut pairs = Vec::new();
    for (at, (i, v)) in rows.iter().enumerate() {
        let against = rows[at + 1..].iter().filter(|(_, other)| cosine(v, other) <= ANTIPODAL);
        pairs.extend(against.map(|(j, _)| (*i, *j)));
    }
    pairs
}

/// Mean with its 95 % interval, the values being independent.
pub fn mean(values: &[f64]) -> Estimate {
    let pairs: Vec<(f64, f64)> = values.iter().map(|v| (*v, 1.0)).collect();
    ratio_of_sums(&pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensionality_of_known_arrangements() {
        // Alone, a pair, absent; then five in a plane, which have 2/5 each.
        let rows = [1.0, 0.0, 0.0, 2.0, 0.0, -2.0, 0.0, 0.0];
        assert_eq!(capacity(&rows, 2), [1.0, 0.5, 0.5, 0.0]);
        assert_eq!(antipodal_pairs(&rows, 2), [(1, 2)]);
        let angle = |i: usize| std::f32::consts::TAU * i as f32 / 5.0;
        let pentagon: Vec<f32> = (0..5).flat_map(|i| [angle(i).cos(), angle(i).sin()]).collect();
        assert!(capacity(&pentagon, 2).iter().all(|d| (d - 0.4).abs() < 1e-6));
        assert!(antipodal_pairs(&pentagon, 2).is_empty());
    }
}
