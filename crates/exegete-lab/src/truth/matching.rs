//! For each concept its best features, chosen on one half, and how good the best is on the other.

use rayon::prelude::*;

use super::sources::{Firings, Source};
use super::tokens::{Half, LabelledTokens};

/// Features kept for each concept.
const KEPT: usize = 10;

/// A feature as the sign of a concept, from a level on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Match {
    /// The feature.
    pub feature: usize,
    /// It counts as firing from this value on.
    pub level: f32,
    /// F1 on the half where it was chosen.
    pub chosen_f1: f64,
}

/// A concept's features, and its best one's firings.
#[derive(Debug, Clone, Default)]
pub struct Matched {
    /// The best features, best first.
    pub best: Vec<Match>,
    /// Tokens of both halves on which each of `best` fires, ascending.
    pub fires_on: Vec<Vec<u32>>,
    /// Values of the best feature, on the half for scoring.
    pub values: Vec<(u32, f32)>,
}

/// Matches all features of a source with all concepts that have at least `least` tokens in each half.
pub fn match_concepts(source: &dyn Source, tokens: &LabelledTokens, n_concepts: usize, least: usize) -> Vec<Matched> {
    let counts = tokens.counts(Half::Choose, n_concepts);
    let scored = tokens.counts(Half::Score, n_concepts);
    let is_measured: Vec<bool> = counts.iter().zip(&scored).map(|(a, b)| *a.min(b) as usize >= least).collect();
    let choose = tokens.half(Half::Choose);
    let mut best: Vec<Vec<Match>> = vec![Vec::new(); n_concepts];
    let features: Vec<usize> = (0..source.n()).collect();
    source.each(&features, &mut |features, firings| {
        let found: Vec<Vec<(u32, f64, f32)>> =
            firings.par_iter().map(|f| best_of_feature(f, tokens, choose.end as u32, &counts)).collect();
        for (feature, found) in features.iter().zip(found) {
            for (concept, f1, level) in found {
                if !is_measured[concept as usize] {
                    continue;
                }
                let list = &mut best[concept as usize];
                let at = list.partition_point(|m| m.chosen_f1 >= f1);
                if at < KEPT {
                    list.insert(at, Match { feature: *feature, level, chosen_f1: f1 });
                    list.truncate(KEPT);
                }
            }
        }
    });
    // What the chosen ones do everywhere.
    let mut wanted: Vec<Vec<(usize, usize)>> = vec![Vec::new(); source.n()];
    for (concept, list) in best.iter().enumerate() {
        for (rank, m) in list.iter().enumerate() {
            wanted[m.feature].push((concept, rank));
        }
    }
    let mut all: Vec<Matched> =
        best.into_iter().map(|best| Matched { fires_on: vec![Vec::new(); best.len()], best, values: vec![] }).collect();
    let chosen: Vec<usize> = features.into_iter().filter(|f| !wanted[*f].is_empty()).collect();
    source.each(&chosen, &mut |features, firings| {
        for (feature, firings) in features.iter().zip(firings) {
            for (concept, rank) in &wanted[*feature] {
                let matched = &mut all[*concept];
                let level = matched.best[*rank].level;
                matched.fires_on[*rank] = firings.iter().filter(|(_, v)| *v >= level).map(|(t, _)| *t).collect();
                if *rank == 0 {
                    matched.values = firings.iter().filter(|(t, _)| *t as usize >= choose.end).copied().collect();
                }
            }
        }
    });
    all
}

/// For each concept that a feature ever fires on, the best F1 over all levels, and that level.
fn best_of_feature(firings: &Firings, tokens: &LabelledTokens, end: u32, counts: &[u32]) -> Vec<(u32, f64, f32)> {
    // Values above 0 are ordered as their bits are: the strongest first, and among equals the earlier token.
    let key = |(t, v): &(u32, f32)| u64::from(!v.to_bits()) << 32 | u64::from(*t);
    let mut ranked: Vec<u64> = firings.iter().filter(|(t, _)| *t < end).map(key).collect();
    ranked.sort_unstable();
    // Hits and best so far, by concept; most concepts are never met.
    let mut hits = vec![0u32; counts.len()];
    let mut best = vec![(0f64, 0f32); counts.len()];
    let mut met = Vec::new();
    let mut fired = 0f64;
    // Equal values fire together or not at all.
    for tied in ranked.chunk_by(|a, b| a >> 32 == b >> 32) {
        let value = f32::from_bits(!((tied[0] >> 32) as u32));
        let concepts = || tied.iter().flat_map(|key| tokens.of(*key as u32 as usize));
        for concept in concepts() {
            if hits[*concept as usize] == 0 {
                met.push(*concept);
            }
            hits[*concept as usize] += 1;
        }
        fired += tied.len() as f64;
        for concept in concepts() {
            let c = *concept as usize;
            let f1 = 2.0 * f64::from(hits[c]) / (fired + f64::from(counts[c]));
            if f1 > best[c].0 {
                best[c] = (f1, value);
            }
        }
    }
    met.into_iter().map(|c| (c, best[c as usize].0, best[c as usize].1)).collect()
}
