//! Blind rating: candidate texts in random order, whose they are and what their scores are hidden, beside firings of random
//! levels.

use std::collections::HashSet;

use exegete_base::LatentId;
use exegete_base::sampling::pair_hash;
use exegete_store::{Candidate, Example, ExampleKind};
use serde::Deserialize;

use crate::Result;
use crate::detail::example_text;
use crate::harvest::Harvest;
use crate::wire::{Rated, RatingTask};

/// Firings shown beside a text.
const EXAMPLES: usize = 8;
/// The best grade. 0 stands for "cannot tell".
pub(crate) const BEST_GRADE: u8 = 5;

/// What is asked, as it stands in the address.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(crate) struct RatingQuery {
    pub(crate) dictionary: String,
    /// Seed of the order; anything that is no number is 0.
    pub(crate) seed: String,
    /// Number of a text that is passed over, as many as there are, with commas between.
    pub(crate) skip: String,
}

impl RatingQuery {
    pub(crate) fn seed(&self) -> u64 {
        self.seed.parse().unwrap_or(0)
    }
}

/// How many texts there are, and how many were rated.
pub(crate) fn counts(harvest: &Harvest) -> Result<Rated> {
    let candidates = harvest.with_notes(|notes| notes.candidates())?;
    let done = done(harvest)?;
    Ok(Rated { rated: candidates.iter().filter(|c| done.contains(&key(c))).count(), total: candidates.len() })
}

/// Why there is no text to be rated.
pub(crate) fn none_left(counts: &Rated) -> &'static str {
    match counts.total {
        0 => "There is no text to be rated: nothing has explained these latents yet.",
        _ => "All texts of this dictionary are rated.",
    }
}

/// The next text to be rated, in the order of the seed; `None` when all are.
pub(crate) fn next(harvest: &Harvest, query: &RatingQuery) -> Result<Option<RatingTask>> {
    let seed = query.seed();
    let mut candidates = harvest.with_notes(|notes| notes.candidates())?;
    let done = done(harvest)?;
    let rated = candidates.iter().filter(|c| done.contains(&key(c))).count();
    let total = candidates.len();
    let skipped: HashSet<i64> = query.skip.split(',').filter_map(|id| id.parse().ok()).collect();
    candidates.retain(|c| !done.contains(&key(c)) && !skipped.contains(&c.id));
    let Some(candidate) = candidates.into_iter().min_by_key(|c| (pair_hash(seed, c.id.cast_unsigned(), 1), c.id))
    else {
        return Ok(None);
    };
    let latent = LatentId(candidate.latent);
    let examples = chosen(harvest.examples().latent(latent)?, pair_hash(seed, candidate.id.cast_unsigned(), 2));
    let examples = examples.iter().map(|e| example_text(harvest, e, false)).collect::<Result<_>>()?;
    let max = harvest.row(latent).map_or(0.0, |row| row.stats.max);
    Ok(Some(RatingTask { candidate: candidate.id, seed, text: candidate.text, examples, max, rated, total }))
}

/// What was rated: texts are known by what they say, for their numbers are others when a method is run again.
fn done(harvest: &Harvest) -> Result<HashSet<(u32, String)>> {
    let ratings = harvest.with_notes(|notes| notes.ratings())?;
    Ok(ratings.into_iter().map(|rating| (rating.latent, rating.text)).collect())
}

fn key(candidate: &Candidate) -> (u32, String) {
    (candidate.latent, candidate.text.clone())
}

/// One firing of each of as many random levels as there is room for, and then more of them, in random order.
fn chosen(mut examples: Vec<Example>, seed: u64) -> Vec<Example> {
    examples.retain(|e| e.kind == ExampleKind::Sample);
    examples.sort_by_key(|e| pair_hash(seed, e.hash, 1));
    let mut seen = [0u32; 256];
    // How often its level was drawn before it decides first, so that levels take turns.
    let mut drawn: Vec<(u32, u64, Example)> = Vec::with_capacity(examples.len());
    for e in examples {
        let before = &mut seen[usize::from(e.level)];
        drawn.push((*before, pair_hash(seed, e.hash, 2), e));
        *before += 1;
    }
    drawn.sort_by_key(|(before, at, _)| (*before, *at));
    drawn.truncate(EXAMPLES);
    drawn.sort_by_key(|(_, at, _)| *at);
    drawn.into_iter().map(|(.., e)| e).collect()
}
