//! The choice of scales, from stored curves alone.

use super::Curves;

/// What the rule says.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Indices into the scales with their merit, best first.
    Scales(Vec<(usize, f64)>),
    /// No scale is worth reading.
    Abstain,
}

/// The published composite (variant b of the reference code): with self-similarity and cross-entropy brought to
/// 0..1 over the scales, `merit = alpha * self_similarity - (1 - alpha) * cross_entropy`; the `n` best scales.
/// Abstains where self-similarity never rises above `abstain_below`. Scale 0 inserts nothing and is never chosen.
pub fn composite(curves: &Curves, alpha: f64, abstain_below: f64, n: usize) -> Choice {
    let best = curves.self_similarity.iter().copied().fold(f64::MIN, f64::max);
    // Written so that a NaN abstains too.
    if !(best > abstain_below) {
        return Choice::Abstain;
    }
    let (similarity, cross) = (to_unit(&curves.self_similarity), to_unit(&curves.cross_entropy));
    let mut merits: Vec<(usize, f64)> =
        (1..similarity.len()).map(|i| (i, alpha * similarity[i] - (1.0 - alpha) * cross[i])).collect();
    merits.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    merits.truncate(n);
    Choice::Scales(merits)
}

/// Brings a curve to 0..1; a flat one to 0.
fn to_unit(curve: &[f64]) -> Vec<f64> {
    let low = curve.iter().copied().fold(f64::MAX, f64::min);
    let high = curve.iter().copied().fold(f64::MIN, f64::max);
    let span = if high > low { high - low } else { 1.0 };
    curve.iter().map(|x| (x - low) / span).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curves(similarity: &[f64], cross: &[f64]) -> Curves {
        let scales = (0..similarity.len()).map(|i| i as f64).collect();
        let entropy = vec![0.0; similarity.len()];
        Curves { scales, self_similarity: similarity.into(), entropy, cross_entropy: cross.into() }
    }

    #[test]
    fn the_peak_wins_and_a_flat_curve_abstains() {
        let peaked = curves(&[0.0, 0.1, 0.5, 0.4, 0.1], &[1.0, 1.0, 1.0, 1.0, 1.0]);
        let Choice::Scales(picked) = composite(&peaked, 0.4, 0.01, 3) else { panic!("abstained") };
        assert_eq!(picked.iter().map(|p| p.0).collect::<Vec<_>>(), [2, 3, 1]);
        let flat = curves(&[0.0, 0.005, 0.01], &[1.0, 2.0, 3.0]);
        assert_eq!(composite(&flat, 0.4, 0.01, 3), Choice::Abstain);
        let broken = curves(&[f64::NAN; 3], &[1.0; 3]);
        assert_eq!(composite(&broken, 0.4, 0.01, 3), Choice::Abstain);
    }

    #[test]
    fn cross_entropy_counts_against_a_scale() {
        let c = curves(&[0.0, 1.0, 1.0], &[0.0, 0.0, 5.0]);
        let Choice::Scales(picked) = composite(&c, 0.4, 0.01, 1) else { panic!("abstained") };
        assert_eq!(picked[0].0, 1);
    }
}
