//! Which examples stand for a latent, in equal intervals of its activations or in quantiles, and what share of its firings each
//! holds.
//!
//! A run keeps the strongest firings and a random sample of every level. The strongest are all there is above the weakest of
//! them, so each counts as itself; below it, a sampled firing of a level stands for as many as the level has left. With these
//! weights shares are estimated without bias, exactly where the firings of an interval are all kept or its levels lie whole
//! inside, and examples are drawn as if from all firings.

use std::collections::HashSet;

use exegete_base::levels::{N_LEVELS, level_of, lower_edge, upper_edge};
use exegete_base::sampling::pair_hash;

use crate::examples::{Example, ExampleKind};
use crate::latents::LatentRow;

/// A part of a latent's firings: those from `low` on and below `high`, which the highest part holds too.
#[derive(Debug, Clone, PartialEq)]
pub struct Slice<'a> {
    /// Lower edge.
    pub low: f64,
    /// Upper edge.
    pub high: f64,
    /// Share of the latent's firings.
    pub share: f64,
    /// Examples drawn of it as if from all its firings, the strongest first.
    pub examples: Vec<&'a Example>,
}

/// `n` intervals of equal length from 0 to the largest activation, the highest first, with up to `most` examples of each.
pub fn intervals<'a>(row: &LatentRow, examples: &'a [Example], n: usize, most: usize) -> Vec<Slice<'a>> {
    let max = f64::from(row.stats.max);
    let edges: Vec<f64> = (0..=n).map(|i| max * i as f64 / n as f64).collect();
    slices(&Firings::of(row, examples, &strongest(examples)), &edges, most)
}

/// `n` parts with equally many firings, as nearly as the examples tell, the highest first. They cover all activations from 0 to the
/// largest; where many firings are equally strong, a part is larger than the others.
pub fn quantiles<'a>(row: &LatentRow, examples: &'a [Example], n: usize, most: usize) -> Vec<Slice<'a>> {
    let firings = Firings::of(row, examples, &strongest(examples));
    let mut edges = vec![0.0];
    edges.extend((1..n).map(|i| firings.quantile(i as f64 / n as f64)));
    edges.push(row.stats.max.into());
    slices(&firings, &edges, most)
}

fn slices<'a>(firings: &Firings<'a>, edges: &[f64], most: usize) -> Vec<Slice<'a>> {
    let slice = |(i, ends): (usize, &[f64])| {
        // The last slice ends with the largest activation, which must not be lost to a rounding of its edge.
        let end = if i + 2 == edges.len() { f64::INFINITY } else { ends[1] };
        let (share, examples) = (firings.share(ends[0], end), firings.draw(ends[0], end, most));
        Slice { low: ends[0], high: ends[1], share, examples }
    };
    let mut slices: Vec<Slice> = edges.windows(2).enumerate().map(slice).collect();
    slices.reverse();
    slices
}

/// The strongest firings, strongest first.
pub fn strongest(examples: &[Example]) -> Vec<&Example> {
    let mut top: Vec<&Example> = examples.iter().filter(|e| e.kind == ExampleKind::Top).collect();
    top.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.hash.cmp(&b.hash)));
    top
}

/// All firings of a latent, by the examples that stand for them.
struct Firings<'a> {
    count: f64,
    /// Examples and the number of firings that each stands for.
    weighted: Vec<(&'a Example, f64)>,
    /// Firings of a level that no example stands for, between two activations.
    unseen: Vec<(f64, f64, f64)>,
}

impl<'a> Firings<'a> {
    fn of(row: &LatentRow, examples: &'a [Example], top: &[&'a Example]) -> Self {
        let place = |e: &Example| (e.doc, e.window, e.position);
        let known: HashSet<_> = top.iter().map(|e| place(e)).collect();
        let mut left = row.stats.histogram.map(|n| n as f64);
        for e in top {
            let level = level_of(e.value);
            left[level] = (left[level] - 1.0).max(0.0);
        }
        let mut samples: Vec<Vec<&Example>> = vec![Vec::new(); N_LEVELS];
        for e in examples.iter().filter(|e| e.kind == ExampleKind::Sample && !known.contains(&place(e))) {
            samples[level_of(e.value)].push(e);
        }
        let mut weighted: Vec<(&Example, f64)> = top.iter().map(|e| (*e, 1.0)).collect();
        let mut unseen = Vec::new();
        let weakest = top.last().map_or(f64::INFINITY, |e| f64::from(e.value));
        for (level, samples) in samples.iter().enumerate().filter(|(level, _)| left[*level] > 0.0) {
            let weight = left[level] / samples.len() as f64;
            weighted.extend(samples.iter().map(|e| (*e, weight)));
            if samples.is_empty() {
                let low = if level == 0 { 0.0 } else { f64::from(lower_edge(level)) };
                let high = f64::from(upper_edge(level)).min(f64::from(row.stats.max)).min(weakest);
                unseen.push((low, high.max(low), left[level]));
            }
        }
        Self { count: row.stats.count as f64, weighted, unseen }
    }

    /// The activation below which a share of the firings lies.
    fn quantile(&self, share: f64) -> f64 {
        let seen = self.weighted.iter().map(|(e, weight)| (f64::from(e.value), *weight));
        let unseen = self.unseen.iter().map(|(low, high, n)| (0.5 * (low + high), *n));
        let mut all: Vec<(f64, f64)> = seen.chain(unseen).collect();
        all.sort_by(|a, b| a.0.total_cmp(&b.0));
        let total: f64 = all.iter().map(|(_, weight)| weight).sum();
        let mut below = 0.0;
        for (value, weight) in &all {
            // Sums of weights are rounded; what is within a millionth of a firing is there.
            if below >= share * total - 1e-6 {
                return *value;
            }
            below += weight;
        }
        all.last().map_or(0.0, |(value, _)| *value)
    }

    /// Share of the firings from `low` on and below `high`.
    fn share(&self, low: f64, high: f64) -> f64 {
        let seen: f64 = self.within(low, high).map(|(_, weight)| weight).sum();
        let unseen = self.unseen.iter().map(|&(from, to, n)| {
            let overlap = (to.min(high) - from.max(low)).max(0.0);
            // A level of no width lies where it begins.
            if to > from {
                n * overlap / (to - from)
            } else if (low..high).contains(&from) {
                n
            } else {
                0.0
            }
        });
        ((seen + unseen.sum::<f64>()) / self.count.max(1.0)).clamp(0.0, 1.0)
    }

    /// Up to `n` examples from `low` on and below `high`, strongest first: a draw without replacement by weight, in which the
    /// chances come from the firings' hashes (the largest `ln u / w` are taken).
    fn draw(&self, low: f64, high: f64, n: usize) -> Vec<&'a Example> {
        let chance = |e: &Example| (pair_hash(e.hash, e.doc.0, u64::from(e.position)) as f64 + 1.0) / 2f64.powi(64);
        let mut drawn: Vec<(f64, &Example)> =
            self.within(low, high).map(|(e, weight)| (chance(e).ln() / weight, e)).collect();
        drawn.sort_by(|a, b| b.0.total_cmp(&a.0));
        drawn.truncate(n);
        let mut drawn: Vec<&Example> = drawn.into_iter().map(|(_, e)| e).collect();
        drawn.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.hash.cmp(&b.hash)));
        drawn
    }

    fn within(&self, low: f64, high: f64) -> impl Iterator<Item = (&'a Example, f64)> + '_ {
        self.weighted.iter().copied().filter(move |(e, _)| (low..high).contains(&f64::from(e.value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Window;
    use crate::accumulate::{AccumulatorSettings, Accumulators};
    use exegete_base::{DocId, LatentId};

    /// A latent that fired with these strengths, and what is kept of it.
    fn latent(values: &[f32], settings: AccumulatorSettings) -> (LatentRow, Vec<Example>) {
        let mut state = Accumulators::new(1, settings);
        for (i, value) in values.iter().enumerate() {
            let window = Window { doc: DocId(i as u64), window: 0, start: 0, token_ids: vec![0] };
            state.push_group(&window, LatentId(0), &[0], &[*value]);
        }
        (LatentRow::new(LatentId(0), state.stats(LatentId(0)), 10_000), state.examples(LatentId(0)))
    }

    fn strengths(n: u64) -> Vec<f32> {
        (0..n).map(|i| 12.0 * ((pair_hash(3, i, 0) >> 40) as f32 / (1u64 << 24) as f32).powi(2) + 1e-3).collect()
    }

    #[test]
    fn every_activation_lies_in_its_bin() {
        let (row, examples) = latent(&strengths(3000), AccumulatorSettings::default());
        let mut seen = HashSet::new();
        let mut total = 0.0;
        for slice in intervals(&row, &examples, 5, 5) {
            assert!((1..=5).contains(&slice.examples.len()));
            for example in &slice.examples {
                let value = f64::from(example.value);
                assert!((slice.low..=slice.high).contains(&value), "{value} in {} to {}", slice.low, slice.high);
                assert!(seen.insert((example.doc, example.position)), "drawn twice");
            }
            total += slice.share;
        }
        assert!((total - 1.0).abs() < 1e-9, "shares add up to {total}");
    }

    #[test]
    fn quantiles_are_those_of_a_sort_and_cover_all_activations() {
        let values = strengths(1000);
        let mut sorted = values.clone();
        sorted.sort_by(f32::total_cmp);
        let (row, examples) =
            latent(&values, AccumulatorSettings { samples_per_level: 1000, ..AccumulatorSettings::default() });
        for (i, slice) in quantiles(&row, &examples, 5, usize::MAX).iter().rev().enumerate() {
            let part = &sorted[i * 200..(i + 1) * 200];
            let inside: Vec<f32> = slice.examples.iter().rev().map(|e| e.value).collect();
            assert_eq!(inside, part, "slice {i}");
            assert!((slice.share - 0.2).abs() < 1e-9);
        }
        let few = AccumulatorSettings { samples_per_level: 8, n_top: 10, ..AccumulatorSettings::default() };
        let (row, examples) = latent(&strengths(40_000), few);
        let slices = quantiles(&row, &examples, 5, 6);
        assert_eq!((slices[0].high, slices[4].low), (f64::from(row.stats.max), 0.0));
        for pair in slices.windows(2) {
            assert_eq!(pair[0].low, pair[1].high, "no gap between slices");
        }
        for slice in &slices {
            assert!((slice.share - 0.2).abs() < 0.08, "{}", slice.share);
        }
        let (row, _) = latent(&[], AccumulatorSettings::default());
        assert!(quantiles(&row, &[], 5, 6).iter().chain(&intervals(&row, &[], 5, 6)).all(|s| s.examples.is_empty()));
    }

    #[test]
    fn shares_are_exact_where_everything_is_kept_and_unbiased_elsewhere() {
        let values = strengths(400);
        let max = values.iter().fold(0f32, |m, v| m.max(*v));
        let truth = |i: usize| {
            let edge = |i: usize| f64::from(max) * i as f64 / 5.0;
            let inside = |v: &&f32| f64::from(**v) >= edge(i) && (i == 4 || f64::from(**v) < edge(i + 1));
            values.iter().filter(inside).count() as f64 / 400.0
        };
        let shares = |settings: AccumulatorSettings| -> Vec<f64> {
            let (row, examples) = latent(&values, settings);
            let top = strongest(&examples);
            let firings = Firings::of(&row, &examples, &top);
            let edge = |i: usize| f64::from(max) * i as f64 / 5.0;
            (0..5).map(|i| firings.share(edge(i), if i == 4 { f64::INFINITY } else { edge(i + 1) })).collect()
        };
        let whole = shares(AccumulatorSettings { samples_per_level: 400, ..AccumulatorSettings::default() });
        let few: Vec<Vec<f64>> = (0..200)
            .map(|seed| {
                shares(AccumulatorSettings {
                    seed,
                    samples_per_level: 3,
                    n_top: 5,
                    context: 0,
                    ..AccumulatorSettings::default()
                })
            })
            .collect();
        for i in 0..5 {
            assert!((whole[i] - truth(i)).abs() < 1e-12, "interval {i}: {} of {}", whole[i], truth(i));
            let mean = few.iter().map(|s| s[i]).sum::<f64>() / 200.0;
            assert!((mean - truth(i)).abs() < 0.015, "interval {i}: on average {mean} of {}", truth(i));
        }
    }

    #[test]
    fn draws_follow_the_firings_and_not_the_levels() {
        // One strong firing in each of many levels, and a thousand weak ones: a uniform draw has the weak ones nearly always.
        let mut values = vec![0.9f32; 1000];
        values.extend([1.1, 1.5, 2.1, 10.0]);
        let mut weak = 0;
        for seed in 0..50 {
            let settings = AccumulatorSettings {
                seed,
                samples_per_level: 4,
                n_top: 1,
                context: 0,
                ..AccumulatorSettings::default()
            };
            let (row, examples) = latent(&values, settings);
            let top = strongest(&examples);
            let drawn = Firings::of(&row, &examples, &top).draw(0.0, 5.0, 2);
            weak += drawn.iter().filter(|e| e.value == 0.9).count();
        }
        assert!(weak >= 97, "{weak} of 100 draws");
    }
}
