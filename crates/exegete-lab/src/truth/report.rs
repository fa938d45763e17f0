//! Scores on the second half, with intervals; splitting, absorption, and what is missing.

use exegete_base::stats::Estimate;
use rayon::prelude::*;
use serde::Serialize;

use super::matching::Matched;
use super::tokens::{Half, LabelledTokens};
use super::{RECOVERED, TruthSettings};
use crate::language::{Concepts, Draw};

/// F1 that a further latent must add for a concept to count as split (SAEBench's rule).
const SPLIT_GAIN: f64 = 0.03;
/// Share of tokens on which a latent must be silent, or fire, for absorption.
const MOSTLY: f64 = 0.5;

/// One concept.
#[derive(Debug, Clone, Serialize)]
pub struct ConceptReport {
    /// Its name.
    pub concept: String,
    /// Tokens with it, in the half for scoring.
    pub tokens: u64,
    /// The feature that was chosen for it; none if none ever fires on it.
    pub latent: Option<usize>,
    /// From which value it counts as firing.
    pub level: f32,
    /// F1 on the half for scoring, with an interval over documents.
    pub f1: Estimate,
    /// Share of firings that are on the concept.
    pub precision: f64,
    /// Share of the concept's tokens on which it fires.
    pub recall: f64,
    /// Area under the curve of the feature's value.
    pub auroc: f64,
    /// Latents that together are its sign: one more for each that adds 0.03 to F1 where they are chosen.
    pub split: usize,
}

/// How many concepts are recovered, and by how much more than by a control.
#[derive(Debug, Clone, Serialize)]
pub struct Count {
    /// What it is.
    pub name: String,
    /// Features that it has.
    pub features: usize,
    /// Concepts with F1 of 0.8 or more.
    pub recovered: u64,
    /// The dictionary's number less this one's, with an interval over documents; none for the dictionary itself.
    pub difference: Option<Estimate>,
}

/// A concept whose parent's latent is silent where it is present.
#[derive(Debug, Clone, Serialize)]
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

/// A concept that has no latent, and why.
#[derive(Debug, Clone, Serialize)]
pub struct Missing {
    /// The concept.
    pub concept: String,
    /// Best F1.
    pub f1: f64,
    /// Why, as far as it can be seen.
    pub why: String,
}

/// Everything.
#[derive(Debug, Clone, Serialize)]
pub struct Truth {
    /// Concepts that have enough tokens to be measured.
    pub concepts: u64,
    /// Concepts that have too few.
    pub not_measured: Vec<String>,
    /// Tokens for choosing and for scoring.
    pub tokens: (u64, u64),
    /// The dictionary first, then each control.
    pub counts: Vec<Count>,
    /// Concepts by more than one latent.
    pub split: u64,
    /// Absorbed concepts.
    pub absorbed: Vec<Absorbed>,
    /// Every concept that was measured, in order.
    pub by_concept: Vec<ConceptReport>,
    /// Those that are not recovered, the nearest first.
    pub missing: Vec<Missing>,
}

/// Hits, firings and tokens of a concept in each document where any is not 0.
type ByDocument = Vec<(u32, [f64; 3])>;

fn f1_of([hits, fired, present]: [f64; 3]) -> f64 {
    if fired + present > 0.0 { 2.0 * hits / (fired + present) } else { 0.0 }
}

fn by_document(tokens: &LabelledTokens, fires_on: &[u32], present: &[u32]) -> ByDocument {
    let half = tokens.half(Half::Score);
    let mut all: Vec<(u32, [f64; 3])> = Vec::new();
    let scored = |list: &[u32]| list[list.partition_point(|t| (*t as usize) < half.start)..].to_vec();
    let (fired, present) = (scored(fires_on), scored(present));
    let (mut i, mut j) = (0, 0);
    while i < fired.len() || j < present.len() {
        let (a, b) = (fired.get(i).copied().unwrap_or(u32::MAX), present.get(j).copied().unwrap_or(u32::MAX));
        let token = a.min(b);
        let doc = tokens.document(token as usize) as u32;
        if all.last().is_none_or(|(last, _)| *last != doc) {
            all.push((doc, [0.0; 3]));
        }
        let Some((_, sums)) = all.last_mut() else { break };
        sums[0] += f64::from(u8::from(a == b));
        sums[1] += f64::from(u8::from(a == token));
        sums[2] += f64::from(u8::from(b == token));
        i += usize::from(a == token);
        j += usize::from(b == token);
    }
    all
}

/// Area under the ROC curve; tokens on which the feature is silent are tied at 0.
fn auroc(values: &[(u32, f32)], is_present: impl Fn(u32) -> bool, present: usize, all: usize) -> f64 {
    let mut ranked: Vec<(f32, bool)> = values.iter().map(|(t, v)| (*v, is_present(*t))).collect();
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    let (positives, negatives) = (present as f64, (all - present) as f64);
    let (mut above, mut area, mut false_above) = (0f64, 0f64, 0f64);
    for tied in ranked.chunk_by(|a, b| a.0 == b.0) {
        let hits = tied.iter().filter(|t| t.1).count() as f64;
        let misses = tied.len() as f64 - hits;
        area += misses * (above + hits / 2.0);
        above += hits;
        false_above += misses;
    }
    let (hits, misses) = (positives - above, negatives - false_above);
    area += misses * (above + hits / 2.0);
    area / (positives * negatives)
}

fn quantiles(mut values: Vec<f64>) -> (f64, f64) {
    values.sort_by(f64::total_cmp);
    let at = |q: f64| values[((values.len() - 1) as f64 * q).round() as usize];
    (at(0.025), at(0.975))
}

/// Compares a dictionary (the first of `all`) and controls, all matched with the same concepts.
pub fn report(
    all: &[(&str, usize, Vec<Matched>)],
    tokens: &LabelledTokens,
    concepts: &Concepts,
    settings: &TruthSettings,
    seed: u64,
) -> Truth {
    let n = concepts.all().len();
    let present = tokens_with(tokens, n);
    let (choose, score) = (tokens.counts(Half::Choose, n), tokens.counts(Half::Score, n));
    let measured: Vec<usize> = (0..n).filter(|c| choose[*c].min(score[*c]) as usize >= settings.least_tokens).collect();
    let sums = |matched: &[Matched]| -> Vec<ByDocument> {
        let of = |c: &usize| {
            let fires: &[u32] = matched[*c].fires_on.first().map_or(&[], Vec::as_slice);
            by_document(tokens, fires, &present[*c])
        };
        measured.par_iter().map(of).collect()
    };
    let by_source: Vec<Vec<ByDocument>> = all.iter().map(|(_, _, matched)| sums(matched)).collect();
    let plain = |by: &ByDocument| by.iter().fold([0.0; 3], |s, (_, d)| std::array::from_fn(|i| s[i] + d[i]));

    // One set of weights of documents for each resampling, shared by all concepts and sources.
    let n_docs = tokens.rows.len();
    let weights: Vec<Vec<f64>> = (0..settings.resamplings as u64)
        .map(|r| {
            let mut draw = Draw::new(exegete_base::sampling::pair_hash(seed, r, 7));
            let first = tokens.document(tokens.half(Half::Score).start);
            let mut weights = vec![0f64; n_docs];
            (first..n_docs).for_each(|_| weights[first + draw.below(n_docs - first)] += 1.0);
            weights
        })
        .collect();
    let resampled = |by: &ByDocument, w: &[f64]| {
        f1_of(by.iter().fold([0.0; 3], |s, (doc, d)| std::array::from_fn(|i| s[i] + w[*doc as usize] * d[i])))
    };
    // [source][concept][resampling]
    let f1s: Vec<Vec<Vec<f64>>> = by_source
        .iter()
        .map(|source| source.par_iter().map(|by| weights.iter().map(|w| resampled(by, w)).collect()).collect())
        .collect();

    let (_, _, own) = &all[0];
    let by_concept: Vec<ConceptReport> = measured
        .par_iter()
        .enumerate()
        .map(|(i, c)| {
            let [hits, fired, there] = plain(&by_source[0][i]);
            let (low, high) = quantiles(f1s[0][i].clone());
            let best = own[*c].best.first();
            let is_present = |t: u32| tokens.of(t as usize).binary_search(&(*c as u32)).is_ok();
            ConceptReport {
                concept: concepts.all()[*c].name.clone(),
                tokens: there as u64,
                latent: best.map(|m| m.feature),
                level: best.map_or(0.0, |m| m.level),
                f1: Estimate { value: f1_of([hits, fired, there]), low, high, n: there as u64 },
                precision: if fired > 0.0 { hits / fired } else { 0.0 },
                recall: hits / there,
                auroc: auroc(&own[*c].values, is_present, there as usize, tokens.half(Half::Score).len()),
                split: split(&own[*c], &present[*c], tokens.half(Half::Choose).end as u32),
            }
        })
        .collect();
    let recovered = |source: &Vec<ByDocument>| source.iter().filter(|by| f1_of(plain(by)) >= RECOVERED).count() as u64;
    let own_recovered = recovered(&by_source[0]);
    let counts = all.iter().enumerate().map(|(s, (name, features, _))| {
        let mine = recovered(&by_source[s]);
        let difference = (s > 0).then(|| {
            let over = |s: usize, r: usize| f1s[s].iter().filter(|f1| f1[r] >= RECOVERED).count() as f64;
            let (low, high) = quantiles((0..weights.len()).map(|r| over(0, r) - over(s, r)).collect());
            Estimate { value: own_recovered as f64 - mine as f64, low, high, n: measured.len() as u64 }
        });
        Count { name: (*name).to_owned(), features: *features, recovered: mine, difference }
    });
    let counts: Vec<Count> = counts.collect();
    Truth {
        concepts: measured.len() as u64,
        not_measured: (0..n).filter(|c| !measured.contains(c)).map(|c| concepts.all()[c].name.clone()).collect(),
        tokens: (tokens.half(Half::Choose).len() as u64, tokens.half(Half::Score).len() as u64),
        counts,
        split: by_concept.iter().filter(|c| c.split > 1).count() as u64,
        absorbed: absorbed(own, tokens, concepts, &present, &measured),
        missing: missing(&by_concept),
        by_concept,
    }
}

/// For each concept its tokens, ascending.
fn tokens_with(tokens: &LabelledTokens, n_concepts: usize) -> Vec<Vec<u32>> {
    let mut all = vec![Vec::new(); n_concepts];
    for token in 0..tokens.n_tokens() {
        tokens.of(token).iter().for_each(|c| all[*c as usize].push(token as u32));
    }
    all
}

/// How many latents together are a concept's sign, where they are chosen.
fn split(matched: &Matched, present: &[u32], end: u32) -> usize {
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

fn absorbed(
    own: &[Matched],
    tokens: &LabelledTokens,
    concepts: &Concepts,
    present: &[Vec<u32>],
    measured: &[usize],
) -> Vec<Absorbed> {
    let half = tokens.half(Half::Score);
    let mut all = Vec::new();
    for c in measured {
        let Some(parent) = concepts.all()[*c].parent.map(|p| p as usize).filter(|p| measured.contains(p)) else {
            continue;
        };
        let (Some(fires), Some(child)) = (own[parent].fires_on.first(), own[*c].best.first()) else { continue };
        // The concept must have a latent of its own for its parent's to be replaced by it.
        if child.chosen_f1 < MOSTLY || own[parent].best.first().map(|m| m.feature) == Some(child.feature) {
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

fn missing(by_concept: &[ConceptReport]) -> Vec<Missing> {
    let mut all: Vec<&ConceptReport> = by_concept.iter().filter(|c| c.f1.value < RECOVERED).collect();
    all.sort_by(|a, b| b.f1.value.total_cmp(&a.f1.value));
    let why = |c: &ConceptReport| {
        if c.latent.is_none() {
            return "no latent ever fires on it".to_owned();
        }
        let better = by_concept.iter().filter(|o| o.latent == c.latent && o.f1.value > c.f1.value);
        let better = better.max_by(|a, b| a.f1.value.total_cmp(&b.f1.value));
        let shares = format!("its latent has precision {:.2} and recall {:.2}", c.precision, c.recall);
        match better {
            Some(other) => format!("{shares}; it is rather that of {} (F1 {:.2})", other.concept, other.f1.value),
            None if c.split > 1 => format!("{shares}; {} latents share it", c.split),
            None if c.auroc >= 0.95 => format!("{shares}, but ranks its tokens high (AUROC {:.3})", c.auroc),
            None => shares,
        }
    };
    all.into_iter().map(|c| Missing { concept: c.concept.clone(), f1: c.f1.value, why: why(c) }).collect()
}
