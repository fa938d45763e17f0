//! Excerpts on which a latent fires, at every level of activation, and excerpts on which it is silent, easy and hard.
//!
//! A document's excerpts are either for explaining or for scoring, by a hash of the document. Excerpts that read the same around
//! their middle are taken once.

use std::collections::{BTreeMap, HashSet};

use exegete_base::sampling::pair_hash;
use exegete_base::{DocId, LatentId, levels};
use exegete_model::Tokenizer;
use exegete_store::{Example, ExampleReader, LatentRow, TokenReader};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::pool::Pool;

/// What splits documents. It depends on no seed: what explained a latent yesterday must not score it today under another one.
const SPLIT: u64 = 0x5713;
/// Tokens on each side of the middle by which excerpts are told apart.
const SAME_WITHIN: usize = 4;

/// The share of an excerpt's peak from which a token is marked, as in delphi.
pub const STRONG: f32 = 0.3;

/// What excerpts are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// For explaining.
    Explain,
    /// For scoring.
    Score,
}

impl Use {
    /// What a document's excerpts are for.
    pub fn of(doc: DocId) -> Self {
        if pair_hash(SPLIT, doc.0, 0).is_multiple_of(2) { Self::Explain } else { Self::Score }
    }
}

/// What a latent's excerpts are told apart from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Against {
    /// Anywhere in the text.
    Random,
    /// Where a latent fires that often fires together with this one.
    Cofiring,
    /// Where a latent fires whose decoder row is near this one's.
    Decoder,
    /// Around the very tokens on which this one often fires.
    SameToken,
}

impl Against {
    /// All, easy ones first.
    pub const ALL: [Self; 4] = [Self::Random, Self::Cofiring, Self::Decoder, Self::SameToken];

    /// Its name in scores.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Cofiring => "co-firing",
            Self::Decoder => "decoder",
            Self::SameToken => "same-token",
        }
    }
}

/// A stretch of text with a latent's activations.
#[derive(Debug, Clone, PartialEq)]
pub struct Excerpt {
    /// Document.
    pub doc: DocId,
    /// Window of the document.
    pub window: u32,
    /// Tokens.
    pub ids: Vec<u32>,
    /// The latent's activation on each.
    pub values: Vec<f32>,
    /// The token that it was cut around.
    pub middle: usize,
    /// Level of the activation in the middle; none where the latent is silent throughout.
    pub level: Option<usize>,
}

impl Excerpt {
    /// Cut of at most `len` tokens around a position of a window, without the token that begins the window.
    fn cut(
        (doc, window, ids): (DocId, u32, &[u32]),
        (from, position): (usize, usize),
        len: usize,
        value: impl Fn(usize) -> f32,
    ) -> Self {
        let room = ids.len() - from;
        let len = len.min(room);
        let first = position.saturating_sub(len / 2).max(from).min(ids.len() - len);
        let values: Vec<f32> = (first..first + len).map(value).collect();
        let strength = values.get(position - first).copied().unwrap_or(0.0);
        let level = (strength > 0.0).then(|| levels::level_of(strength));
        Self { doc, window, ids: ids[first..first + len].to_vec(), values, middle: position - first, level }
    }

    /// The largest activation.
    pub fn peak(&self) -> f32 {
        self.values.iter().copied().fold(0.0, f32::max)
    }

    /// Whether the latent fires on a token with [`STRONG`] of its peak or more: such tokens are marked.
    pub fn is_strong(&self, i: usize) -> bool {
        self.values[i] > 0.0 && self.values[i] >= STRONG * self.peak()
    }

    /// The text.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn text(&self, tokenizer: &Tokenizer) -> Result<String> {
        Ok(tokenizer.decode(&self.ids)?.trim().to_owned())
    }

    /// The text with `<<` and `>>` around runs of chosen tokens.
    pub fn marked(&self, tokenizer: &Tokenizer, is_chosen: impl Fn(usize) -> bool) -> String {
        marked(self.ids.iter().map(|id| tokenizer.token_bytes(*id)), is_chosen).trim().to_owned()
    }

    /// What it reads around its middle.
    fn around(&self) -> &[u32] {
        let to = (self.middle + SAME_WITHIN + 1).min(self.ids.len());
        &self.ids[self.middle.saturating_sub(SAME_WITHIN)..to]
    }
}

/// Tokens as a text with `<<` and `>>` around runs of chosen ones.
pub fn marked(tokens: impl Iterator<Item = Vec<u8>>, is_chosen: impl Fn(usize) -> bool) -> String {
    let (mut bytes, mut inside) = (Vec::new(), false);
    for (i, token) in tokens.enumerate() {
        if is_chosen(i) != inside {
            bytes.extend_from_slice(if inside { b">>" } else { b"<<" });
            inside = !inside;
        }
        bytes.extend(token);
    }
    if inside {
        bytes.extend_from_slice(b">>");
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Where excerpts come from.
pub struct Source<'a> {
    /// The run's windows.
    pub tokens: &'a TokenReader,
    /// The firings that it kept.
    pub examples: &'a ExampleReader,
    /// Windows with all codes.
    pub pool: &'a Pool,
    /// Tokens of an excerpt.
    pub len: usize,
    /// Tokens that stand before a window's text.
    pub n_bos: usize,
    /// Seed of all draws.
    pub seed: u64,
}

impl Source<'_> {
    /// Excerpts on which a latent fires: as many of each level as there are, until `n` are found; of a level those of smallest hash.
    ///
    /// # Errors
    /// Damaged parts.
    pub fn firing(&self, latent: u32, wanted: Use, n: usize) -> Result<Vec<Excerpt>> {
        let mut by_level: BTreeMap<usize, Vec<(u64, usize, Excerpt)>> = BTreeMap::new();
        let mut put = |excerpt: Excerpt, position: usize| {
            if let Some(level) = excerpt.level {
                let place = (u64::from(excerpt.window) << 32) | position as u64;
                by_level.entry(level).or_default().push((
                    pair_hash(self.seed, excerpt.doc.0, place),
                    position,
                    excerpt,
                ));
            }
        };
        for example in self.examples.latent(LatentId(latent))? {
            if Use::of(example.doc) != wanted {
                continue;
            }
            if let Some(window) = self.tokens.window_of(example.doc, example.window)? {
                put(self.of_example(&example, &window.token_ids), example.position as usize);
            }
        }
        for firing in self.pool.firings(latent) {
            let window = &self.pool.windows[firing.window as usize];
            if Use::of(window.doc) == wanted {
                put(self.of_pool(firing.window as usize, firing.position as usize, latent), firing.position as usize);
            }
        }
        let mut by_level: Vec<Vec<(usize, Excerpt)>> = by_level
            .into_values()
            .map(|mut level| {
                level.sort_by_key(|(hash, ..)| *hash);
                level.into_iter().rev().map(|(_, position, excerpt)| (position, excerpt)).collect()
            })
            .collect();
        let (mut found, mut seen, mut taken) = (Vec::new(), HashSet::new(), HashSet::new());
        // Rounds through the levels, the strongest first.
        while found.len() < n && by_level.iter().any(|level| !level.is_empty()) {
            for level in by_level.iter_mut().rev() {
                while let Some((position, excerpt)) = level.pop() {
                    // Stretches of one window that overlap are near copies, and would count as two.
                    let place = (excerpt.doc, excerpt.window, position / self.len.max(1));
                    if seen.insert(excerpt.around().to_vec()) && taken.insert(place) {
                        found.push(excerpt);
                        break;
                    }
                }
                if found.len() == n {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// Excerpts on which a latent is silent.
    pub fn silent(&self, row: &LatentRow, firing: &[Excerpt], against: Against, wanted: Use, n: usize) -> Vec<Excerpt> {
        let latent = row.latent.0;
        let mut places = match against {
            Against::Random => self.anywhere(wanted),
            Against::Cofiring => self.where_fire(row.profile.cofiring.iter().map(|p| p.0)),
            Against::Decoder => self.where_fire(row.neighbours.iter().map(|p| p.0)),
            Against::SameToken => self.at_tokens(firing),
        };
        places.retain(|(window, _)| Use::of(self.pool.windows[*window].doc) == wanted);
        // A draw of its own for every latent and comparison.
        let salt = self.seed ^ (u64::from(latent) << 8 | against as u64);
        places.sort_by_cached_key(|(window, position)| pair_hash(salt, *window as u64, *position as u64));
        let (mut found, mut seen) = (Vec::new(), HashSet::new());
        for (window, position) in places {
            if found.len() == n {
                break;
            }
            let excerpt = self.of_pool(window, position, latent);
            if excerpt.peak() == 0.0 && seen.insert(excerpt.around().to_vec()) {
                found.push(excerpt);
            }
        }
        found
    }

    fn anywhere(&self, wanted: Use) -> Vec<(usize, usize)> {
        let mut places = Vec::new();
        for (at, window) in self.pool.windows.iter().enumerate() {
            if Use::of(window.doc) == wanted {
                // One to a stretch, so that excerpts hardly overlap.
                places.extend((self.n_bos..window.ids.len()).step_by(self.len.max(1)).map(|p| (at, p + self.len / 2)));
            }
        }
        places.retain(|(at, position)| *position < self.pool.windows[*at].ids.len());
        places
    }

    fn where_fire(&self, latents: impl Iterator<Item = u32>) -> Vec<(usize, usize)> {
        latents
            .flat_map(|latent| self.pool.firings(latent).iter().map(|f| (f.window as usize, f.position as usize)))
            .collect()
    }

    fn at_tokens(&self, firing: &[Excerpt]) -> Vec<(usize, usize)> {
        let tokens: HashSet<u32> = firing.iter().map(|excerpt| excerpt.ids[excerpt.middle]).collect();
        let mut places = Vec::new();
        for (at, window) in self.pool.windows.iter().enumerate() {
            let here = window.ids.iter().enumerate().skip(self.n_bos.max(1));
            places.extend(here.filter(|(_, id)| tokens.contains(id)).map(|(position, _)| (at, position)));
        }
        places
    }

    fn of_example(&self, example: &Example, ids: &[u32]) -> Excerpt {
        let (position, context) = (example.position as usize, example.values.len() / 2);
        let value = |at: usize| (at + context).checked_sub(position).and_then(|i| example.values.get(i)).copied();
        // No further than the run has kept the latent's values: what is not known is not 0.
        let (from, to) = (self.n_bos.max(position.saturating_sub(context)), ids.len().min(position + context + 1));
        let place = (example.doc, example.window, &ids[..to]);
        Excerpt::cut(place, (from, position), self.len, |at| value(at).unwrap_or(0.0))
    }

    fn of_pool(&self, window: usize, position: usize, latent: u32) -> Excerpt {
        let coded = &self.pool.windows[window];
        let place = (coded.doc, coded.window, coded.ids.as_slice());
        Excerpt::cut(place, (self.n_bos, position), self.len, |at| coded.value(at, latent))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_excerpt_stays_within_what_is_known_and_holds_its_middle() {
        let ids: Vec<u32> = (0..40).collect();
        let value = |at: usize| if at == 12 { 2.0 } else { 0.0 };
        let cut = |from: usize, to: usize, position: usize, len: usize| {
            Excerpt::cut((DocId(1), 0, &ids[..to]), (from, position), len, value)
        };
        let whole = cut(1, 40, 12, 8);
        assert_eq!((whole.ids[whole.middle], whole.ids.len(), whole.peak()), (12, 8, 2.0));
        let short = cut(9, 15, 12, 32);
        assert_eq!((short.ids.clone(), short.middle), ((9..15).collect(), 3));
        assert_eq!(cut(1, 40, 39, 8).ids, (32..40).collect::<Vec<u32>>());
        assert_eq!(cut(1, 40, 1, 8).middle, 0);
        assert_eq!(cut(1, 40, 20, 8).level, None, "silent in the middle");
    }

    #[test]
    fn documents_are_for_one_use_about_half_each() {
        let n = (0..2000).filter(|i| Use::of(DocId(*i)) == Use::Score).count();
        assert!((900..1100).contains(&n), "{n}");
    }
}
