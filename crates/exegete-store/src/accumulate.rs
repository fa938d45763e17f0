//! Per-latent accumulators over firings: counts, moments, histograms of levels and positions, top examples, random samples, and
//! a sketch of the tokens fired on.
//!
//! Accumulators form a commutative monoid: counts and moments are integers (a value is rounded once to 2^-32, then
//! only added), and the kept examples are the smallest under a total order of the firings themselves. So every split of
//! the work, in every order, merges to the same state, bit for bit.

use std::cmp::Ordering;

use exegete_base::levels::{N_LEVELS, level_of};
use exegete_base::sampling::{firing_hash, pair_hash};
use exegete_base::{DocId, LatentId};

use crate::error::{Result, StoreError};
use crate::examples::{Example, ExampleKind};
use crate::profile::N_POSITIONS;
use crate::sketch::{self, Sketched};
use crate::tokens::Window;

/// Units in 1.0 of the fixed-point sums.
const UNITS: f64 = 4_294_967_296.0;
/// Largest fixed-point sum: the largest DECIMAL(38, 0). Sums stay exact up to there (2^32 firings of values to 2^31)
/// and stick there beyond; as no term is negative, even that does not depend on the order.
const MAX_FIXED: i128 = 10i128.pow(38) - 1;

/// What an accumulator keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccumulatorSettings {
    /// Seed of the samples.
    pub seed: u64,
    /// Size of the random sample at each level.
    pub samples_per_level: usize,
    /// Number of top examples.
    pub n_top: usize,
    /// Values kept on each side of an example.
    pub context: usize,
    /// Firings kept for the sketch, by which latents that fire together and the tokens fired on are told.
    pub sketch: usize,
    /// Tokens of the longest window, which positions are parts of.
    pub window: usize,
}

impl Default for AccumulatorSettings {
    fn default() -> Self {
        Self { seed: 0, samples_per_level: 4, n_top: 20, context: 16, sketch: 128, window: 128 }
    }
}

/// Counts and moments of a latent.
#[derive(Debug, Clone, PartialEq)]
pub struct LatentStats {
    /// Number of firings.
    pub count: u64,
    /// Sum of the activations in units of 2^-32.
    pub sum_fixed: i128,
    /// Sum of their squares in units of 2^-32.
    pub sumsq_fixed: i128,
    /// Largest activation, 0 for a latent that never fired.
    pub max: f32,
    /// Firings by level.
    pub histogram: [u64; N_LEVELS],
    /// Firings by part of the window.
    pub positions: [u64; N_POSITIONS],
}

impl Default for LatentStats {
    fn default() -> Self {
        Self { count: 0, sum_fixed: 0, sumsq_fixed: 0, max: 0.0, histogram: [0; N_LEVELS], positions: [0; N_POSITIONS] }
    }
}

impl LatentStats {
    /// Mean activation over the firings; 0 for a latent that never fired.
    pub fn mean(&self) -> f64 {
        self.sum_fixed as f64 / UNITS / self.count.max(1) as f64
    }

    /// Standard deviation over the firings.
    pub fn std(&self) -> f64 {
        let mean_square = self.sumsq_fixed as f64 / UNITS / self.count.max(1) as f64;
        (mean_square - self.mean().powi(2)).max(0.0).sqrt()
    }

    fn add(&mut self, value: f32, part: usize) {
        let value_f64 = f64::from(value);
        self.count += 1;
        self.sum_fixed = fixed_sum(self.sum_fixed, fixed(value_f64));
        self.sumsq_fixed = fixed_sum(self.sumsq_fixed, fixed(value_f64 * value_f64));
        self.max = self.max.max(value);
        self.histogram[level_of(value)] += 1;
        self.positions[part] += 1;
    }

    fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_fixed = fixed_sum(self.sum_fixed, other.sum_fixed);
        self.sumsq_fixed = fixed_sum(self.sumsq_fixed, other.sumsq_fixed);
        self.max = self.max.max(other.max);
        self.histogram.iter_mut().zip(other.histogram).for_each(|(mine, theirs)| *mine += theirs);
        self.positions.iter_mut().zip(other.positions).for_each(|(mine, theirs)| *mine += theirs);
    }
}

fn fixed(value: f64) -> i128 {
    // The cast saturates, infinities included.
    ((value * UNITS).round() as i128).min(MAX_FIXED)
}

fn fixed_sum(a: i128, b: i128) -> i128 {
    a.saturating_add(b).min(MAX_FIXED)
}

/// The accumulators of a dictionary's latents.
#[derive(Debug, Clone, PartialEq)]
pub struct Accumulators {
    pub(crate) settings: AccumulatorSettings,
    /// Tokens looked at, by part of the window.
    pub(crate) tokens: [u64; N_POSITIONS],
    /// A latent costs nothing but a pointer until it fires.
    pub(crate) latents: Vec<Option<Box<Cell>>>,
}

/// State of a latent that has fired.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Cell {
    pub(crate) stats: LatentStats,
    /// Strongest firings, strongest first.
    pub(crate) top: Vec<Kept>,
    /// Samples of the levels seen, by rising level, each by rising hash.
    pub(crate) samples: Vec<(u8, Vec<Kept>)>,
    /// Firings whose tokens have the smallest hashes, by rising hash.
    pub(crate) sketch: Vec<Sketched>,
}

/// A firing that is kept. The values around it stay sparse: most latents are silent nearly everywhere.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    pub(crate) key: Key,
    pub(crate) around: Box<[(i32, f32)]>,
}

/// What orders firings; no two firings of a latent share it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Key {
    pub(crate) value: f32,
    pub(crate) hash: u64,
    pub(crate) doc: DocId,
    pub(crate) window: u32,
    pub(crate) position: u32,
}

impl Key {
    fn by_hash(&self, other: &Self) -> Ordering {
        let place = |k: &Self| (k.hash, k.doc, k.window, k.position);
        place(self).cmp(&place(other)).then(self.value.total_cmp(&other.value))
    }

    fn by_strength(&self, other: &Self) -> Ordering {
        other.value.total_cmp(&self.value).then(self.by_hash(other))
    }
}

impl Accumulators {
    /// Empty accumulators for `n_latents` latents.
    pub fn new(n_latents: usize, settings: AccumulatorSettings) -> Self {
        Self { settings, tokens: [0; N_POSITIONS], latents: vec![None; n_latents] }
    }

    /// What is kept.
    pub fn settings(&self) -> AccumulatorSettings {
        self.settings
    }

    /// Number of latents, alive or not.
    pub fn n_latents(&self) -> usize {
        self.latents.len()
    }

    /// Number of tokens looked at, the ground of firing rates.
    pub fn n_tokens(&self) -> u64 {
        self.tokens.iter().sum()
    }

    /// Those tokens by part of the window.
    pub fn tokens_by_position(&self) -> &[u64; N_POSITIONS] {
        &self.tokens
    }

    /// About how many bytes it takes.
    pub fn bytes(&self) -> usize {
        let kept = |kept: &Vec<Kept>| {
            kept.capacity() * size_of::<Kept>() + kept.iter().map(|k| k.around.len() * 8).sum::<usize>()
        };
        let cell = |cell: &Cell| {
            let samples: usize = cell.samples.iter().map(|(_, of)| size_of::<(u8, Vec<Kept>)>() + kept(of)).sum();
            size_of::<Cell>() + kept(&cell.top) + samples + cell.sketch.capacity() * size_of::<Sketched>()
        };
        self.latents.len() * size_of::<usize>() + self.latents.iter().flatten().map(|c| cell(c)).sum::<usize>()
    }

    /// Number of latents that fired at least once.
    pub fn n_alive(&self) -> usize {
        self.latents.iter().flatten().count()
    }

    /// Number of firings of all latents.
    pub fn n_firings(&self) -> u64 {
        self.latents.iter().flatten().map(|cell| cell.stats.count).sum()
    }

    /// Counts tokens looked at, by their offsets in the window, whether or not anything fired on them.
    pub fn add_tokens(&mut self, positions: impl IntoIterator<Item = u32>) {
        for position in positions {
            self.tokens[part_of(position, self.settings.window)] += 1;
        }
    }

    /// Takes in all firings of one latent in one window.
    ///
    /// `positions` are offsets in the window, ascending, with the latent's `values` there; values that are not positive are passed
    /// over, an infinite one counts as `f32::MAX`. The window's start and the offset name the token in the hash. All firings of a
    /// latent in a window must come in one call, since they are each other's surroundings.
    pub fn push_group(&mut self, window: &Window, latent: LatentId, positions: &[u32], values: &[f32]) {
        debug_assert_eq!(positions.len(), values.len());
        debug_assert!(positions.is_sorted_by(|a, b| a < b), "offsets ascend");
        debug_assert!(
            positions.last().is_none_or(|&p| (p as usize) < window.token_ids.len()),
            "offsets lie in the window"
        );
        let settings = self.settings;
        for (i, (&position, &value)) in positions.iter().zip(values).enumerate() {
            if value.is_nan() || value <= 0.0 {
                continue;
            }
            // An overflow upstream must not make sums and files hold what is no number.
            let value = value.min(f32::MAX);
            let cell = self.latents[latent.0 as usize].get_or_insert_default();
            cell.stats.add(value, part_of(position, settings.window));
            let (doc, at) = (window.doc, window.start + u64::from(position));
            let hash = firing_hash(settings.seed, doc, at, latent);
            let key = Key { value, hash, doc, window: window.window, position };
            let around = || surroundings(i, positions, values, settings.context);
            keep(&mut cell.top, settings.n_top, key, Key::by_strength, around);
            keep(cell.samples_at(level_of(value) as u8), settings.samples_per_level, key, Key::by_hash, around);
            // The token's own hash, the same for all latents: so sketches of two latents can be laid over each other.
            let token = window.token_ids.get(position as usize).copied().unwrap_or_default();
            let hash = pair_hash(settings.seed, doc.0, at);
            sketch::keep(&mut cell.sketch, settings.sketch, Sketched { hash, token, value });
        }
    }

    /// Takes in what another accumulator has gathered.
    ///
    /// # Errors
    /// [`StoreError::Merge`] if the two were not made for the same settings and dictionary size.
    pub fn merge(&mut self, other: Accumulators) -> Result<()> {
        if (self.settings, self.n_latents()) != (other.settings, other.n_latents()) {
            let shown = |a: &Self| format!("{:?} over {} latents", a.settings, a.n_latents());
            return Err(StoreError::Merge { what: format!("settings: {} and {}", shown(self), shown(&other)) });
        }
        self.tokens.iter_mut().zip(other.tokens).for_each(|(mine, theirs)| *mine += theirs);
        for (mine, theirs) in self.latents.iter_mut().zip(other.latents) {
            match (mine.as_mut(), theirs) {
                (Some(mine), Some(theirs)) => mine.merge(*theirs, &self.settings),
                (None, theirs) => *mine = theirs,
                (Some(_), None) => {}
            }
        }
        Ok(())
    }

    /// Counts and moments of a latent; zeros if it never fired or does not exist.
    pub fn stats(&self, latent: LatentId) -> LatentStats {
        self.cell(latent).map(|cell| cell.stats.clone()).unwrap_or_default()
    }

    /// The kept examples of a latent, sorted by (level, kind, hash).
    pub fn examples(&self, latent: LatentId) -> Vec<Example> {
        let Some(cell) = self.cell(latent) else { return Vec::new() };
        let top = cell.top.iter().map(|kept| (ExampleKind::Top, kept));
        let samples = cell.samples.iter().flat_map(|(_, kept)| kept).map(|kept| (ExampleKind::Sample, kept));
        let mut examples: Vec<Example> =
            top.chain(samples).map(|(kind, kept)| kept.example(latent, kind, self.settings.context)).collect();
        examples.sort_by_key(|e| (e.level, e.kind, e.hash, e.doc, e.window, e.position));
        examples
    }

    /// The sketch of a latent, by rising hash.
    pub fn sketch(&self, latent: LatentId) -> &[Sketched] {
        self.cell(latent).map_or(&[], |cell| &cell.sketch)
    }

    fn cell(&self, latent: LatentId) -> Option<&Cell> {
        self.latents.get(latent.0 as usize)?.as_deref()
    }
}

impl Cell {
    pub(crate) fn samples_at(&mut self, level: u8) -> &mut Vec<Kept> {
        let at = self.samples.partition_point(|(l, _)| *l < level);
        if self.samples.get(at).is_none_or(|(l, _)| *l != level) {
            self.samples.insert(at, (level, Vec::new()));
        }
        &mut self.samples[at].1
    }

    fn merge(&mut self, other: Cell, settings: &AccumulatorSettings) {
        self.stats.merge(&other.stats);
        for kept in other.top {
            keep(&mut self.top, settings.n_top, kept.key, Key::by_strength, || kept.around);
        }
        for (level, samples) in other.samples {
            let mine = self.samples_at(level);
            for kept in samples {
                keep(mine, settings.samples_per_level, kept.key, Key::by_hash, || kept.around);
            }
        }
        for sketched in other.sketch {
            sketch::keep(&mut self.sketch, settings.sketch, sketched);
        }
    }
}

impl Kept {
    fn example(&self, latent: LatentId, kind: ExampleKind, context: usize) -> Example {
        let mut values = vec![0.0; 2 * context + 1];
        for &(offset, value) in &self.around {
            values[(context as i32 + offset) as usize] = value;
        }
        let Key { value, hash, doc, window, position } = self.key;
        Example { latent, level: level_of(value) as u8, kind, doc, window, position, value, values, hash }
    }
}

/// The part of the window in which an offset lies.
fn part_of(position: u32, window: usize) -> usize {
    (position as usize * N_POSITIONS / window.max(1)).min(N_POSITIONS - 1)
}

/// Inserts a firing into a sorted list of at most `limit`; the surroundings are made only if it stays.
fn keep(
    list: &mut Vec<Kept>,
    limit: usize,
    key: Key,
    order: impl Fn(&Key, &Key) -> Ordering,
    around: impl FnOnce() -> Box<[(i32, f32)]>,
) {
    let at = list.partition_point(|kept| order(&kept.key, &key).is_lt());
    if at < limit {
        list.truncate(limit - 1);
        list.insert(at, Kept { key, around: around() });
    }
}

/// The latent's values within `context` tokens of the `i`-th firing, as (offset, value).
fn surroundings(i: usize, positions: &[u32], values: &[f32], context: usize) -> Box<[(i32, f32)]> {
    let here = i64::from(positions[i]);
    let from = positions.partition_point(|&p| i64::from(p) < here - context as i64);
    let to = positions.partition_point(|&p| i64::from(p) <= here + context as i64);
    let near = positions[from..to].iter().zip(&values[from..to]);
    near.filter(|&(_, &value)| value > 0.0)
        .map(|(&p, &value)| ((i64::from(p) - here) as i32, value.min(f32::MAX)))
        .collect()
}
