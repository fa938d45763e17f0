//! The choice of scales, from stored curves alone.

use exegete_base::settings::{ScaleRule, SelfExplainSettings};

use super::Curves;
use super::peaks::{Peak, peaks};
use super::plateaus::Background;

/// What the rule says.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// Indices into the scales with their merit, best first.
    Scales(Vec<(usize, f64)>),
    /// No scale is worth reading.
    Abstain,
}

/// The least confidence of a peak that is worth reading, in standard deviations of the curve's noise.
const LEAST_CONFIDENCE: f64 = 4.0;

/// What is said at each scale, scale 0 among them, and what is said of directions that mean nothing; for rules that look at it.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// A text a scale.
    pub texts: &'a [String],
    /// What random directions say.
    pub background: &'a Background,
}

/// Ranks all scales by the rule asked for, best first. Both composites are published, and run in their authors'
/// code; `docs/self-explanation.md` says how they compare.
///
/// Abstains where self-similarity never rises above `abstain_below`, under the rule of peaks where none stands out, and under that of
/// plateaus where nothing is said that is not said of random directions, or no texts are given. Scale 0
/// inserts nothing and is never chosen.
pub fn rank(curves: &Curves, said: Option<Said>, settings: &SelfExplainSettings) -> Choice {
    if settings.rule == ScaleRule::Plateaus {
        // The threshold is one of what is said, and not of how near the direction it is held.
        let ranked = said.and_then(|Said { texts, background }| {
            let beta = (1.0 - settings.alpha) / settings.alpha.max(f64::MIN_POSITIVE);
            background.rank(texts, &curves.entropy, beta, settings.abstain_below)
        });
        return ranked.map_or(Choice::Abstain, Choice::Scales);
    }
    let best = curves.self_similarity.iter().copied().fold(f64::MIN, f64::max);
    // `f64::max` passes over NaN, so a curve of nothing else ends at the smallest number and abstains.
    if best <= settings.abstain_below {
        return Choice::Abstain;
    }
    let (from, merits) = match settings.rule {
        ScaleRule::Entropy => by_entropy(curves),
        ScaleRule::CrossEntropy => (1, by_cross_entropy(curves, settings.alpha)),
        ScaleRule::SelfSimilarity => (1, curves.self_similarity.clone()),
        ScaleRule::MinEntropy => (1, curves.entropy.iter().map(|h| -h).collect()),
        ScaleRule::Peaks => match by_peaks(curves, settings.alpha) {
            Some(merits) => (1, merits),
            None => return Choice::Abstain,
        },
        // Ranked above.
        ScaleRule::Plateaus => return Choice::Abstain,
    };
    let mut ranked: Vec<(usize, f64)> = merits.into_iter().enumerate().skip(from).collect();
    ranked.retain(|(_, merit)| merit.is_finite());
    ranked.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    Choice::Scales(ranked)
}

/// The places of the first `n` different texts, letter case aside. Neighbouring scales often say the same thing; three readings of it
/// would be one.
pub fn different(texts: &[String], n: usize) -> Vec<usize> {
    let mut found: Vec<usize> = Vec::new();
    for (at, text) in texts.iter().enumerate() {
        let same = |other: &usize| is_same(&texts[*other], text);
        if found.len() < n && !text.is_empty() && !found.iter().any(same) {
            found.push(at);
        }
    }
    found
}

/// Whether two texts say the same, letter case aside.
pub fn is_same(a: &str, b: &str) -> bool {
    a.to_lowercase() == b.to_lowercase()
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

/// The merits of peaks; a scale beside a peak has the merit of the nearest, less its distance, so that what is said around a peak
/// counts before what is said anywhere else. None where no peak stands out.
fn by_peaks(curves: &Curves, alpha: f64) -> Option<Vec<f64>> {
    let mut peaks = peaks(curves, (1.0 - alpha) / alpha.max(f64::MIN_POSITIVE));
    peaks.retain(|peak| peak.confidence >= LEAST_CONFIDENCE);
    if peaks.is_empty() {
        return None;
    }
    // A whole step away is worse than the lowest peak.
    let lowest = peaks.iter().map(|peak| peak.merit).fold(f64::MAX, f64::min);
    let merit = |i: usize| {
        let beside = |peak: &Peak| match peak.idx.abs_diff(i) {
            0 => peak.merit,
            steps => lowest - steps as f64 + 1e-3 * peak.merit,
        };
        peaks.iter().map(beside).fold(f64::MIN, f64::max)
    };
    Some((0..curves.scales.len()).map(merit).collect())
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
        Curves {
            scales,
            self_similarity: similarity.into(),
            entropy,
            cross_entropy: cross.into(),
            cross_entropy_random: vec![],
            by_layer: vec![],
        }
    }

    fn settings(rule: ScaleRule) -> SelfExplainSettings {
        SelfExplainSettings { rule, ..SelfExplainSettings::default() }
    }

    fn order(curves: &Curves, rule: ScaleRule) -> Option<Vec<usize>> {
        match rank(curves, None, &settings(rule)) {
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
    fn single_curves_and_peaks_rank_too() {
        let similarity: Vec<f64> = (0..32).map(|i| (-((f64::from(i) - 12.0) / 4.0).powi(2)).exp()).collect();
        let mut c = curves(&similarity, &[1.0; 32]);
        c.entropy = (0..32).map(|i| (f64::from(i) - 20.0).abs()).collect();
        assert_eq!(order(&c, ScaleRule::SelfSimilarity).unwrap()[0], 12);
        assert_eq!(order(&c, ScaleRule::MinEntropy).unwrap()[0], 20);
        let peaked = order(&c, ScaleRule::Peaks).unwrap();
        assert_eq!((peaked[0], peaked.len()), (12, 31));
        assert!(peaked[1..3].iter().all(|i| i.abs_diff(12) == 1), "{peaked:?}");
        let rising: Vec<f64> = (0..32).map(f64::from).collect();
        assert_eq!(order(&curves(&rising, &[1.0; 32]), ScaleRule::Peaks), None, "a slow rise is no peak");
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
