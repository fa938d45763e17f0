//! Two other views of the sample that a harvest keeps at every level: intervals of equal width, and quantiles.
//!
//! The sample is uniform within a level, so an item of it stands for `firings of the level / items kept of it` firings.
//! What both views say is an estimate by these weights, and exact where all firings were kept.

use exegete_base::levels::N_LEVELS;

/// Groups of a view.
pub(crate) const N_GROUPS: usize = 5;

/// An item of the sample: which level it is of, and its activation.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Item {
    pub(crate) level: usize,
    pub(crate) value: f32,
}

/// A part of a latent's firings.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Slice {
    /// Lower edge, itself outside but for the lowest slice of quantiles.
    pub(crate) low: f32,
    /// Upper edge, itself inside.
    pub(crate) high: f32,
    /// Estimated share of the firings.
    pub(crate) share: f64,
    /// Numbers of the items in it, the strongest first.
    pub(crate) items: Vec<usize>,
}

/// Slices of equal width from 0 to the largest activation, the highest first.
pub(crate) fn intervals(items: &[Item], histogram: &[u64; N_LEVELS], max: f32) -> Vec<Slice> {
    let width = max / N_GROUPS as f32;
    let edge = |i: usize| if i == N_GROUPS { max } else { width * i as f32 };
    let mut slices: Vec<Slice> =
        (0..N_GROUPS).map(|i| Slice { low: edge(i), high: edge(i + 1), ..Slice::default() }).collect();
    for (idx, weight) in strongest_first(items, histogram) {
        let value = items[idx].value;
        if let Some(slice) = slices.iter_mut().find(|slice| value <= slice.high) {
            slice.share += weight;
            slice.items.push(idx);
        }
    }
    slices.reverse();
    slices
}

/// Slices of equal numbers of firings, the highest first. An edge is the activation at which so large a part of the firings is
/// reached; where many firings are equally strong, a slice may be larger than the others.
pub(crate) fn quantiles(items: &[Item], histogram: &[u64; N_LEVELS]) -> Vec<Slice> {
    let mut weighted = strongest_first(items, histogram);
    weighted.reverse();
    let mut slices = vec![Slice::default(); N_GROUPS];
    let mut below = 0.0;
    for (idx, weight) in weighted {
        // The slice in which the middle of what the item stands for lies.
        let at = ((below + weight / 2.0) * N_GROUPS as f64) as usize;
        let slice = &mut slices[at.min(N_GROUPS - 1)];
        let value = items[idx].value;
        (slice.low, slice.high) = if slice.items.is_empty() { (value, value) } else { (slice.low, value) };
        slice.share += weight;
        slice.items.push(idx);
        below += weight;
    }
    slices.iter_mut().for_each(|slice| slice.items.reverse());
    slices.reverse();
    slices
}

/// The items with the shares of all firings that they stand for.
fn strongest_first(items: &[Item], histogram: &[u64; N_LEVELS]) -> Vec<(usize, f64)> {
    let mut kept = [0u64; N_LEVELS];
    items.iter().for_each(|item| kept[item.level] += 1);
    let covered: u64 = histogram.iter().zip(kept).filter(|(_, kept)| *kept > 0).map(|(count, _)| count).sum();
    let weight = |item: &Item| histogram[item.level] as f64 / kept[item.level] as f64 / covered.max(1) as f64;
    let mut weighted: Vec<(usize, f64)> = items.iter().enumerate().map(|(idx, item)| (idx, weight(item))).collect();
    weighted.sort_by(|a, b| items[b.0].value.total_cmp(&items[a.0].value).then(a.0.cmp(&b.0)));
    weighted
}

#[cfg(test)]
mod tests {
    use exegete_base::levels::level_of;
    use exegete_base::sampling::pair_hash;

    use super::*;

    fn firings(n: u64) -> Vec<f32> {
        let unit = |i: u64| (pair_hash(3, i, 7) >> 40) as f32 / (1u64 << 24) as f32;
        (0..n).map(|i| 0.01 + 9.0 * unit(i).powi(3)).collect()
    }

    fn histogram(values: &[f32]) -> [u64; N_LEVELS] {
        let mut counts = [0; N_LEVELS];
        values.iter().for_each(|value| counts[level_of(*value)] += 1);
        counts
    }

    fn items(values: &[f32]) -> Vec<Item> {
        values.iter().map(|&value| Item { level: level_of(value), value }).collect()
    }

    #[test]
    fn where_all_firings_are_kept_both_views_are_those_of_a_sort() {
        let values = firings(1000);
        let max = values.iter().copied().fold(0.0, f32::max);
        let views = intervals(&items(&values), &histogram(&values), max);
        for (i, slice) in views.iter().rev().enumerate() {
            let (low, high) = (max * i as f32 / 5.0, if i == 4 { max } else { max / 5.0 * (i + 1) as f32 });
            let inside = values.iter().filter(|v| **v > max / 5.0 * i as f32 && **v <= high).count();
            assert!((slice.low - low).abs() < 1e-5 && slice.items.len() == inside, "{i}");
            assert!((slice.share - inside as f64 / 1000.0).abs() < 1e-9, "{i}: {}", slice.share);
        }
        let mut sorted = values.clone();
        sorted.sort_by(f32::total_cmp);
        for (i, slice) in quantiles(&items(&values), &histogram(&values)).iter().rev().enumerate() {
            let part = &sorted[i * 200..(i + 1) * 200];
            assert_eq!((slice.low, slice.high, slice.items.len()), (part[0], part[199], 200));
            assert!((slice.share - 0.2).abs() < 1e-9);
            assert_eq!(values[slice.items[0]], part[199], "the strongest first");
        }
    }

    #[test]
    fn a_sample_estimates_what_all_firings_say() {
        let values = firings(40_000);
        let counts = histogram(&values);
        let mut kept = [0; N_LEVELS];
        let sample: Vec<f32> = values
            .iter()
            .copied()
            .filter(|value| {
                kept[level_of(*value)] += 1;
                kept[level_of(*value)] <= 40
            })
            .collect();
        let max = values.iter().copied().fold(0.0, f32::max);
        for (of_sample, of_all) in
            intervals(&items(&sample), &counts, max).iter().zip(intervals(&items(&values), &counts, max))
        {
            assert!((of_sample.share - of_all.share).abs() < 0.03, "{} {}", of_sample.share, of_all.share);
        }
        let of_all = quantiles(&items(&values), &counts);
        for (of_sample, of_all) in quantiles(&items(&sample), &counts).iter().zip(of_all) {
            assert!((of_sample.high / of_all.high - 1.0).abs() < 0.25, "{} {}", of_sample.high, of_all.high);
        }
    }

    #[test]
    fn nothing_gives_empty_slices() {
        assert!(intervals(&[], &[0; N_LEVELS], 0.0).iter().all(|slice| slice.items.is_empty()));
        assert!(quantiles(&[], &[0; N_LEVELS]).iter().all(|slice| slice.items.is_empty()));
    }
}
