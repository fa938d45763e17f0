//! Area under the ROC curve, with documents as units.

use exegete_base::stats::{Estimate, Z95};

use super::tokens::{Half, LabelledTokens};

/// What a document adds to the area: its tokens with and without the concept, and of each the placements among the others.
#[derive(Clone, Copy, Default)]
struct Part {
    with: f64,
    without: f64,
    placed_with: f64,
    placed_without: f64,
}

/// Area under the ROC curve of a feature's values on the half for scoring, where silent tokens are tied at 0. The interval
/// is that of Obuchowski (1997, "Nonparametric analysis of clustered ROC curve data") with documents as clusters.
pub(super) fn auroc(
    values: &[(u32, f32)],
    is_present: impl Fn(u32) -> bool,
    present: &[u32],
    tokens: &LabelledTokens,
) -> Estimate {
    let half = tokens.half(Half::Score);
    let mut ranked: Vec<(f32, u32, bool)> = values.iter().map(|(t, v)| (*v, *t, is_present(*t))).collect();
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let first = tokens.document(half.start);
    let mut parts = vec![Part::default(); tokens.rows.len() - first];
    let document = |token: u32| tokens.document(token as usize) - first;
    for (i, part) in parts.iter_mut().enumerate() {
        let begins = tokens.first[first + i];
        let ends = tokens.first.get(first + i + 1).copied().unwrap_or(half.end);
        part.without = (ends - begins) as f64;
    }
    for token in present.iter().filter(|t| half.contains(&(**t as usize))) {
        let part = &mut parts[document(*token)];
        part.with += 1.0;
        part.without -= 1.0;
    }
    let (all_with, all_without) = parts.iter().fold((0.0, 0.0), |s, p| (s.0 + p.with, s.1 + p.without));
    // Tokens that fire: a placement is the share of the other kind that lies below (with) or above (without).
    let (mut above_with, mut above_without) = (0f64, 0f64);
    let mut fired: Vec<(f64, f64)> = vec![(0.0, 0.0); parts.len()];
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let with = tied.iter().filter(|t| t.2).count() as f64;
        let without = tied.len() as f64 - with;
        for (_, token, is_with) in tied {
            let at = document(*token);
            match is_with {
                true => {
                    parts[at].placed_with += (all_without - above_without - without / 2.0) / all_without;
                    fired[at].0 += 1.0;
                }
                false => {
                    parts[at].placed_without += (above_with + with / 2.0) / all_with;
                    fired[at].1 += 1.0;
                }
            }
        }
        above_with += with;
        above_without += without;
    }
    let (silent_with, silent_without) = (all_with - above_with, all_without - above_without);
    for (part, fired) in parts.iter_mut().zip(&fired) {
        part.placed_with += (part.with - fired.0) * silent_without / 2.0 / all_without;
        part.placed_without += (part.without - fired.1) * (above_with + silent_with / 2.0) / all_with;
    }
    let area = parts.iter().map(|p| p.placed_with).sum::<f64>() / all_with;
    let clusters = |f: &dyn Fn(&Part) -> f64| parts.iter().filter(|p| f(p) > 0.0).count() as f64;
    let (n, n_with, n_without) = (parts.len() as f64, clusters(&|p| p.with), clusters(&|p| p.without));
    let sum = |f: &dyn Fn(&Part) -> f64| parts.iter().map(f).sum::<f64>();
    let with = |p: &Part| p.placed_with - p.with * area;
    let without = |p: &Part| p.placed_without - p.without * area;
    let over = |n: f64| if n > 1.0 { n / (n - 1.0) } else { 1.0 };
    let variance = over(n_with) * sum(&|p| with(p).powi(2)) / all_with.powi(2)
        + over(n_without) * sum(&|p| without(p).powi(2)) / all_without.powi(2)
        + 2.0 * over(n) * sum(&|p| with(p) * without(p)) / (all_with * all_without);
    let width = Z95 * variance.max(0.0).sqrt();
    Estimate { value: area, low: (area - width).max(0.0), high: (area + width).min(1.0), n: n_with as u64 }
}
