//! The choice of scales, from stored curves alone.

use exegete_base::settings::{ScaleRule, SelfExplainSettings};

use super::Curves;

/// What the rule says.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Indices into the scales with their merit, best first.
    Scales(Vec<(usize, f64)>),
    /// No scale is worth reading.
    Abstain,
}

/// Ranks all scales by the composite asked for, best first. Both composites are published, and run in their authors'
/// code; `docs/self-explanation.md` says how they compare.
///
/// Abstains where self-similarity never rises above `abstain_below`. Scale 0 inserts nothing and is never chosen.
pub fn rank(curves: &Curves, settings: &SelfExplainSettings) -> Choice {
    let best = curves.self_similarity.iter().copied().fold(f64::MIN, f64::max);
    // `f64::max` passes over NaN, so a curve of nothing else ends at the smallest number and abstains.
    if best <= settings.abstain_below {
        return Choice::Abstain;
    }
    let (from, merits) = match settings.rule {
        ScaleRule::Entropy => by_entropy(curves),
        ScaleRule::CrossEntropy => (1, by_cross_entropy(curves, settings.alpha)),
    };
    let mut ranked: Vec<(usize, f64)> = merits.into_iter().enumerate().skip(from).collect();
    ranked.retain(|(_, merit)| merit.is_finite());
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    Choice::Scales(ranked)
}

/// `self_similarity - 0.1 * entropy` (variant c), and the first scale that counts: entropy falls at small scales for
/// reasons of its own, so the first 10 of every 64 scales are passed over.
fn by_entropy(curves: &Curves) -> (usize, Vec<f64>) {
    let n = curves.scales.len();
    let merits = curves.self_similarity.iter().zip(&curves.entropy).map(|(s, h)| s - 0.1 * h).collect();
    ((n * 10 / 64).clamp(1, n - 1), merits)
}

/// `alpha * self_similarity - (1 - alpha) * cross_entropy`, both brought to 0..1 over the scales (variant b).
fn by_cross_entropy(curves: &Curves, alpha: f64) -> Vec<f64> {
    let (similarity, cross) = (to_unit(&curves.self_similarity), to_unit(&curves.cross_entropy));
    similarity.iter().zip(&cross).map(|(s, c)| alpha * s - (1.0 - alpha) * c).collect()
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

    fn settings(rule: ScaleRule) -> SelfExplainSettings {
        SelfExplainSettings { rule, ..SelfExplainSettings::default() }
    }

    fn order(curves: &Curves, rule: ScaleRule) -> Option<Vec<usize>> {
        match rank(curves, &settings(rule)) {
            Choice::Scales(ranked) => Some(ranked.iter().map(|r| r.0).collect()),
            Choice::Abstain => None,
        }
    }

    #[test]
    fn the_peak_wins_and_a_flat_curve_abstains() {
        for rule in [ScaleRule::Entropy, ScaleRule::CrossEntropy] {
            let peaked = curves(&[0.0, 0.1, 0.5, 0.4, 0.1], &[1.0, 1.0, 1.0, 1.0, 1.0]);
            assert_eq!(order(&peaked, rule), Some(vec![2, 3, 1, 4]));
            assert_eq!(order(&curves(&[0.0, 0.005, 0.01], &[1.0, 2.0, 3.0]), rule), None);
            assert_eq!(order(&curves(&[f64::NAN; 3], &[1.0; 3]), rule), None);
        }
    }

    #[test]
    fn uncertainty_counts_against_a_scale() {
        let mut c = curves(&[0.0, 1.0, 1.0], &[0.0, 0.0, 5.0]);
        assert_eq!(order(&c, ScaleRule::CrossEntropy), Some(vec![1, 2]));
        c.entropy = vec![0.0, 3.0, 1.0];
        assert_eq!(order(&c, ScaleRule::Entropy), Some(vec![2, 1]));
    }

    #[test]
    fn the_smallest_scales_do_not_count_under_the_entropy_rule() {
        let early = curves(&[vec![0.0, 9.0, 9.0, 9.0, 9.0], vec![0.1; 28]].concat(), &[0.0; 33]);
        assert_eq!(order(&early, ScaleRule::Entropy).unwrap()[0], 5);
    }
}
