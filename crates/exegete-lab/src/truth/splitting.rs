//! Concepts that several features share, and concepts that the feature of what is above them leaves out.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::matching::Matched;
use super::report::f1_of;
use super::tokens::{Half, LabelledTokens};
use crate::language::Concepts;

/// F1 that a further latent must add for a concept to count as split (SAEBench's rule).
const SPLIT_GAIN: f64 = 0.03;
/// Share of tokens on which a latent must be silent, or fire, for absorption; F1 of a latent of one's own.
const MOSTLY: f64 = 0.5;

/// A concept whose parent's latent is silent where it is present.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Absorbed {
    /// The concept.
    pub concept: String,
    /// The concept above it.
    pub parent: String,
    /// Share of the concept's tokens on which the parent's latent fires.
    pub parent_recall_here: f64,
    /// The same on the parent's other tokens.
    pub parent_recall_elsewhere: f64,
}

/// How many latents together are a concept's sign, where they are chosen.
pub(super) fn split(matched: &Matched, present: &[u32], end: u32) -> usize {
    let before = |list: &[u32]| list[..list.partition_point(|t| *t < end)].to_vec();
    let present = before(present);
    let mut joined: Vec<u32> = match matched.fires_on.first() {
        Some(first) => before(first),
        None => return 0,
    };
    let f1 = |fired: &[u32]| {
        let hits = fired.iter().filter(|t| present.binary_search(t).is_ok()).count() as f64;
        f1_of([hits, fired.len() as f64, present.len() as f64])
    };
    let (mut best, mut count) = (f1(&joined), 1);
    let mut left: Vec<&Vec<u32>> = matched.fires_on.iter().skip(1).collect();
    while !left.is_empty() {
        let with = |more: &[u32]| {
            let mut all = [joined.as_slice(), &before(more)].concat();
            all.sort_unstable();
            all.dedup();
            all
        };
        let found = left.iter().enumerate().map(|(i, more)| (i, f1(&with(more)))).max_by(|a, b| a.1.total_cmp(&b.1));
        match found {
            Some((i, gained)) if gained >= best + SPLIT_GAIN => {
                joined = with(left.remove(i));
                best = gained;
                count += 1;
            }
            _ => break,
        }
    }
    count
}

/// Concepts that are absorbed (after Chanin et al. 2024). `f1` is that of each concept's best latent, where it is scored.
pub(super) fn absorbed(
    own: &[Matched],
    f1: &[f64],
    tokens: &LabelledTokens,
    concepts: &Concepts,
    present: &[Vec<u32>],
    measured: &[usize],
) -> Vec<Absorbed> {
    let half = tokens.half(Half::Score);
    let parent_of = |c: usize| concepts.all()[c].parent.map(|p| p as usize);
    let best = |c: usize| own[c].best.first().map(|m| m.feature);
    // Where the best latent of what is above is rather that of one of its parts, there is no latent of the whole that
    // could leave out another.
    let of_part = |c: &usize| {
        let parent = parent_of(*c)?;
        Some((parent, best(*c)?)).filter(|_| f1[*c] > f1[parent])
    };
    let of_parts: HashSet<(usize, usize)> = measured.iter().filter_map(of_part).collect();
    let mut all = Vec::new();
    for c in measured {
        let Some(parent) = parent_of(*c).filter(|p| measured.contains(p)) else { continue };
        let (Some(fires), Some(latent)) = (own[parent].fires_on.first(), best(parent)) else { continue };
        // The concept must have a latent of its own for its parent's to be replaced by it.
        if f1[*c] < MOSTLY || of_parts.contains(&(parent, latent)) {
            continue;
        }
        let (mut here, mut elsewhere) = ([0f64; 2], [0f64; 2]);
        for token in present[parent].iter().filter(|t| half.contains(&(**t as usize))) {
            let fired = f64::from(u8::from(fires.binary_search(token).is_ok()));
            let sums = if tokens.of(*token as usize).contains(&(*c as u32)) { &mut here } else { &mut elsewhere };
            sums[0] += fired;
            sums[1] += 1.0;
        }
        let [here, elsewhere] = [here, elsewhere].map(|[fired, all]| if all > 0.0 { fired / all } else { f64::NAN });
        if here < 1.0 - MOSTLY && elsewhere >= MOSTLY {
            let name = |c: usize| concepts.all()[c].name.clone();
            all.push(Absorbed {
                concept: name(*c),
                parent: name(parent),
                parent_recall_here: here,
                parent_recall_elsewhere: elsewhere,
            });
        }
    }
    all
}
