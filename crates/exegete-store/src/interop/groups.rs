//! Which examples stand for a latent, in equal intervals of its activations, and what share of its firings each interval holds.
//!
//! A run keeps the strongest firings and a random sample of every level. The strongest are all there is above the weakest of
//! them, so each counts as itself; below it, a sampled firing of a level stands for as many as the level has left. With these
//! weights shares are estimated without bias, exactly where the firings of an interval are all kept or its levels lie whole
//! inside, and examples are drawn as if from all firings.

use std::collections::HashSet;

use exegete_base::levels::{N_LEVELS, level_of, lower_edge, upper_edge};
use exegete_base::sampling::pair_hash;

use super::feature::Bin;
use crate::examples::{Example, ExampleKind};
use crate::latents::LatentRow;

/// How many examples stand for a latent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grouping {
    /// The strongest.
    pub n_top: usize,
    /// Intervals of equal length from 0 to the largest activation.
    pub n_intervals: usize,
    /// Examples of each, drawn at random.
    pub per_interval: usize,
}

impl Default for Grouping {
    fn default() -> Self {
        Self { n_top: 20, n_intervals: 5, per_interval: 5 }
    }
}

/// The examples that stand for a latent, each with its bin: the strongest first, then the intervals from the highest down.
pub fn choose<'a>(row: &LatentRow, examples: &'a [Example], how: &Grouping) -> Vec<(&'a Example, Bin)> {
    let max = f64::from(row.stats.max);
    let top = strongest(examples);
    let top_bin = Bin { min: Some(-1.0), max: Some(max), share: Some(-1.0) };
    let mut chosen: Vec<_> = top.iter().take(how.n_top).map(|e| (*e, top_bin)).collect();
    let firings = Firings::of(row, examples, &top);
    for i in (0..how.n_intervals).rev() {
        let edge = |i: usize| max * i as f64 / how.n_intervals as f64;
        // The last interval ends with the largest activation, which must not be lost to a rounding of its edge.
        let end = if i + 1 == how.n_intervals { f64::INFINITY } else { edge(i + 1) };
        let bin = Bin { min: Some(edge(i)), max: Some(edge(i + 1)), share: Some(firings.share(edge(i), end)) };
        chosen.extend(firings.draw(edge(i), end, how.per_interval).into_iter().map(|e| (e, bin)));
    }
    chosen
}

fn strongest(examples: &[Example]) -> Vec<&Example> {
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
        let chosen = choose(&row, &examples, &Grouping::default());
        assert!(
            (40..=45).contains(&chosen.len()),
            "20 strongest and up to 5 of each interval, as far as they were kept"
        );
        let mut seen = HashSet::new();
        for (example, bin) in &chosen {
            if bin.is_top() {
                continue;
            }
            let (min, max, value) = (bin.min.unwrap(), bin.max.unwrap(), f64::from(example.value));
            assert!((min..=max).contains(&value), "{value} in {min} to {max}");
            assert!(seen.insert((example.doc, example.position)), "drawn twice");
        }
        let mut shares: Vec<f64> = chosen.iter().filter(|(_, b)| !b.is_top()).filter_map(|(_, b)| b.share).collect();
        shares.dedup();
        let total: f64 = shares.iter().sum();
        assert!((total - 1.0).abs() < 1e-9, "shares add up to {total}");
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
