//! A peak finder for the curves over scales: our rule for choosing where to read.
//!
//! Three things defeat a composite that is linear in the curves: single scales that stick out, self-similarity that creeps up at large
//! scales so that its maximum lies at the end, and entropy that is high at the smallest scales for reasons of its own. So the slow rise
//! is taken off by a robust line (Theil 1950, Sen 1968), a median over five scales takes off what sticks out, scales before the first
//! maximum of entropy do not count, and what is left is searched for maxima by their topographic prominence and their width. How far
//! the best stands out of the noise is its confidence; without any, the rule abstains.

use super::Curves;

/// Scales that the median filter looks at.
const WINDOW: usize = 5;
/// Least width of a peak at half its prominence, in scales.
const LEAST_WIDTH: usize = 2;
/// From the median absolute deviation to a standard deviation of normal noise.
const MAD_TO_STD: f64 = 1.4826;
/// Noise that rounding makes.
const ROUNDING: f64 = 1e-6;

/// A peak of self-similarity.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Its scale's index.
    pub idx: usize,
    /// Its prominence over the largest one, less what entropy takes off.
    pub merit: f64,
    /// Prominence over the noise of the curve, in its standard deviations.
    pub confidence: f64,
}

/// Peaks, best first; `beta` is what a whole range of entropy takes off, in units of the largest prominence. None where there is no
/// peak.
pub fn peaks(curves: &Curves, beta: f64) -> Vec<Peak> {
    let n = curves.scales.len();
    if n < WINDOW || curves.self_similarity.iter().chain(&curves.entropy).any(|x| !x.is_finite()) {
        return Vec::new();
    }
    let level = detrended(&curves.scales, &curves.self_similarity);
    let smooth = median_filtered(&level);
    let residuals: Vec<f64> = level.iter().zip(&smooth).map(|(x, s)| (x - s).abs()).collect();
    let noise = median(residuals) * MAD_TO_STD + ROUNDING;
    let from = after_first_maximum(&median_filtered(&curves.entropy));
    let found: Vec<(usize, f64)> = maxima(&smooth)
        .into_iter()
        .filter(|idx| *idx >= from)
        .map(|idx| (idx, prominence(&smooth, idx)))
        .filter(|(idx, height)| width(&smooth, *idx, *height) >= LEAST_WIDTH)
        .collect();
    let tallest = found.iter().map(|(_, height)| *height).fold(0.0, f64::max);
    if tallest <= 0.0 {
        return Vec::new();
    }
    let considered = &curves.entropy[from..];
    let low = considered.iter().copied().fold(f64::MAX, f64::min);
    let span = considered.iter().copied().fold(f64::MIN, f64::max) - low;
    let uncertain = |idx: usize| if span > 0.0 { (curves.entropy[idx] - low) / span } else { 0.0 };
    let peak = |(idx, height): (usize, f64)| Peak {
        idx,
        merit: height / tallest - beta * uncertain(idx),
        confidence: height / noise,
    };
    let mut peaks: Vec<Peak> = found.into_iter().map(peak).collect();
    peaks.sort_by(|a, b| b.merit.total_cmp(&a.merit).then(a.idx.cmp(&b.idx)));
    peaks
}

/// A curve without the slow rise that its last third shows. A fall stays: behind a peak that is what there should be.
fn detrended(scales: &[f64], curve: &[f64]) -> Vec<f64> {
    let from = curve.len() * 2 / 3;
    let mut slopes = Vec::new();
    for i in from..curve.len() {
        for j in i + 1..curve.len() {
            slopes.push((curve[j] - curve[i]) / (scales[j] - scales[i]));
        }
    }
    let slope = if slopes.is_empty() { 0.0 } else { median(slopes).max(0.0) };
    curve.iter().zip(scales).map(|(y, x)| y - slope * x).collect()
}

/// The median of the scales around each; fewer at the ends.
fn median_filtered(curve: &[f64]) -> Vec<f64> {
    let reach = WINDOW / 2;
    let around = |i: usize| curve[i.saturating_sub(reach)..(i + reach + 1).min(curve.len())].to_vec();
    (0..curve.len()).map(|i| median(around(i))).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len().is_multiple_of(2) { 0.5 * (values[middle - 1] + values[middle]) } else { values[middle] }
}

/// The first scale that counts: the first maximum of entropy, but not beyond a third of the scales, and never scale 0.
fn after_first_maximum(entropy: &[f64]) -> usize {
    let mut at = 0;
    while at + 1 < entropy.len() && entropy[at + 1] >= entropy[at] {
        at += 1;
    }
    at.clamp(1, (entropy.len() / 3).max(1))
}

/// Maxima inside a curve, the middle of each plateau.
fn maxima(curve: &[f64]) -> Vec<usize> {
    let mut found = Vec::new();
    let mut i = 1;
    while i + 1 < curve.len() {
        let mut end = i;
        while end + 1 < curve.len() && curve[end + 1] == curve[i] {
            end += 1;
        }
        if curve[i] > curve[i - 1] && end + 1 < curve.len() && curve[end + 1] < curve[i] {
            found.push((i + end) / 2);
        }
        i = end + 1;
    }
    found
}

/// How far one must come down from a maximum before anything higher is reached; to the curve's end where nothing is.
fn prominence(curve: &[f64], idx: usize) -> f64 {
    let top = curve[idx];
    let down = |side: &mut dyn Iterator<Item = f64>| side.take_while(|y| *y <= top).fold(top, f64::min);
    let left = down(&mut curve[..idx].iter().rev().copied());
    let right = down(&mut curve[idx + 1..].iter().copied());
    top - left.max(right)
}

/// Scales around a maximum that lie above half its prominence.
fn width(curve: &[f64], idx: usize, height: f64) -> usize {
    let level = curve[idx] - 0.5 * height;
    let left = curve[..idx].iter().rev().take_while(|y| **y > level).count();
    let right = curve[idx + 1..].iter().take_while(|y| **y > level).count();
    left + right + 1
}

#[cfg(test)]
mod tests {
    use exegete_base::sampling::pair_hash;

    use super::*;

    const N: usize = 64;

    fn curves(similarity: impl Fn(f64) -> f64, entropy: impl Fn(f64) -> f64) -> Curves {
        let scales: Vec<f64> = (0..N).map(|i| i as f64 * 200.0 / 63.0).collect();
        Curves {
            self_similarity: scales.iter().map(|s| similarity(*s)).collect(),
            entropy: scales.iter().map(|s| entropy(*s)).collect(),
            cross_entropy: vec![1.0; N],
            cross_entropy_random: vec![],
            by_layer: vec![],
            scales,
        }
    }

    fn bump(s: f64, at: f64, width: f64) -> f64 {
        (-((s - at) / width).powi(2)).exp()
    }

    fn noise(s: f64) -> f64 {
        0.01 * (pair_hash(5, s.to_bits(), 1) as f64 / u64::MAX as f64 - 0.5)
    }

    fn best(curves: &Curves) -> Option<f64> {
        peaks(curves, 0.5).first().map(|peak| curves.scales[peak.idx])
    }

    #[test]
    fn a_peak_is_found_through_what_defeats_composites() {
        let near = |found: Option<f64>| (found.unwrap() - 80.0).abs() < 8.0;
        let plain = curves(|s| 0.3 * bump(s, 80.0, 20.0) + noise(s), |_| 0.0);
        assert!(near(best(&plain)) && peaks(&plain, 0.5)[0].confidence > 10.0);
        // A scale that sticks out.
        let spiked =
            curves(|s| 0.3 * bump(s, 80.0, 20.0) + if (150.0..152.0).contains(&s) { 2.0 } else { 0.0 }, |_| 0.0);
        assert!(near(best(&spiked)), "{:?}", best(&spiked));
        // A slow rise, at whose end the maximum lies.
        let rising = curves(|s| 0.2 * bump(s, 80.0, 20.0) + 0.003 * s + noise(s), |_| 0.0);
        let last = rising.self_similarity.iter().copied().fold(f64::MIN, f64::max);
        assert!(
            rising.self_similarity[60..].contains(&last) || rising.self_similarity[N - 1] > rising.self_similarity[25]
        );
        assert!(near(best(&rising)), "{:?}", best(&rising));
        // Entropy that is low at the very start, where self-similarity has a first little hill.
        let early = curves(|s| 0.3 * bump(s, 80.0, 20.0) + 0.5 * bump(s, 6.0, 6.0), |s| 3.0 * bump(s, 20.0, 15.0));
        assert!(near(best(&early)), "{:?}", best(&early));
    }

    #[test]
    fn entropy_decides_between_peaks() {
        let two = |flat_at: f64| {
            curves(
                |s| 0.3 * bump(s, 60.0, 12.0) + 0.28 * bump(s, 140.0, 12.0),
                move |s| 2.0 - 2.0 * bump(s, flat_at, 25.0),
            )
        };
        assert!((best(&two(60.0)).unwrap() - 60.0).abs() < 6.0);
        assert!((best(&two(140.0)).unwrap() - 140.0).abs() < 6.0);
    }

    #[test]
    fn where_there_is_no_peak_none_is_found() {
        assert_eq!(best(&curves(|_| 0.0, |_| 0.0)), None);
        assert_eq!(best(&curves(|_| f64::NAN, |_| 0.0)), None);
        let noisy = peaks(&curves(noise, |_| 0.0), 0.5);
        assert!(noisy.iter().all(|peak| peak.confidence < 6.0), "{noisy:?}");
        assert_eq!(prominence(&[0.0, 2.0, 1.0, 3.0, 0.5], 1), 1.0);
        assert_eq!(prominence(&[0.0, 2.0, 1.0, 3.0, 0.5], 3), 2.5);
    }
}
