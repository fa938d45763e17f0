//! Scores on the second half, with intervals; splitting, absorption, and what is missing.

use std::collections::HashSet;

use exegete_base::stats::Estimate;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::curve::auroc;
use super::matching::Matched;
use super::splitting::{Absorbed, absorbed, split};
use super::tokens::{Half, LabelledTokens};
use super::{RECOVERED, TruthSettings};
use crate::language::{Concepts, Draw};

/// One concept.
#[derive(Debug, Clone, Serialize, Deserialize)]
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
    /// Area under the curve of the feature's value, with an interval over documents.
    pub auroc: Estimate,
    /// Latents that together are its sign: one more for each that adds 0.03 to F1 where they are chosen.
    pub split: usize,
}

/// How many concepts are recovered, and by how much more than by a control.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Count {
    /// What it is.
    pub name: String,
    /// Features that it has.
    pub features: usize,
    /// Concepts with F1 of 0.8 or more.
    pub recovered: u64,
    /// Different features that they have: one may be the best of several concepts.
    pub by: u64,
    /// The dictionary's number less this one's, with an interval over documents; none for the dictionary itself.
    pub difference: Option<Estimate>,
    /// Concepts that several features share.
    pub split: u64,
    /// Concepts that the feature of what is above them leaves out.
    pub absorbed: u64,
}

/// A concept that has no latent, and why.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Missing {
    /// The concept.
    pub concept: String,
    /// Best F1.
    pub f1: f64,
    /// Why, as far as it can be seen.
    pub why: String,
}

/// Everything.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Truth {
    /// Concepts that have enough tokens to be measured.
    pub concepts: u64,
    /// Concepts that have too few.
    pub not_measured: Vec<String>,
    /// Tokens for choosing and for scoring.
    pub tokens: (u64, u64),
    /// The dictionary first, then each control.
    pub counts: Vec<Count>,
    /// Absorbed concepts of the dictionary.
    pub absorbed: Vec<Absorbed>,
    /// Every concept that was measured, in order.
    pub by_concept: Vec<ConceptReport>,
    /// Those that are not recovered, the nearest first.
    pub missing: Vec<Missing>,
}

impl Truth {
    /// The controls that the dictionary does not surpass: the interval of what it recovers more holds 0, or less.
    pub fn not_surpassed(&self) -> Vec<&Count> {
        self.counts.iter().filter(|count| count.difference.is_some_and(|more| more.low <= 0.0)).collect()
    }
}

/// Hits, firings and tokens of a concept in each document where any is not 0.
type ByDocument = Vec<(u32, [f64; 3])>;

pub(super) fn f1_of([hits, fired, present]: [f64; 3]) -> f64 {
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
    let end = tokens.half(Half::Choose).end as u32;
    let split_of = |matched: &[Matched]| -> Vec<usize> {
        measured.par_iter().map(|c| split(&matched[*c], &present[*c], end)).collect()
    };
    let splits: Vec<Vec<usize>> = all.iter().map(|(_, _, matched)| split_of(matched)).collect();
    let absorbed_of = |s: usize| {
        let mut f1 = vec![0.0; n];
        measured.iter().zip(&by_source[s]).for_each(|(c, by)| f1[*c] = f1_of(plain(by)));
        absorbed(&all[s].2, &f1, tokens, concepts, &present, &measured)
    };
    let all_absorbed: Vec<Vec<Absorbed>> = (0..all.len()).map(absorbed_of).collect();
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
                f1: Estimate { value: f1_of([hits, fired, there]), low, high, n: by_source[0][i].len() as u64 },
                precision: if fired > 0.0 { hits / fired } else { 0.0 },
                recall: hits / there,
                auroc: auroc(&own[*c].values, is_present, &present[*c], tokens),
                split: splits[0][i],
            }
        })
        .collect();
    let recovered = |s: usize| {
        let concepts = measured.iter().zip(&by_source[s]);
        concepts.filter(|(_, by)| f1_of(plain(by)) >= RECOVERED).map(|(c, _)| *c).collect::<Vec<usize>>()
    };
    let own_recovered = recovered(0).len() as u64;
    let counts = all.iter().enumerate().map(|(s, (name, features, matched))| {
        let concepts = recovered(s);
        let mine = concepts.len() as u64;
        let by: HashSet<usize> = concepts.iter().filter_map(|c| matched[*c].best.first()).map(|m| m.feature).collect();
        let difference = (s > 0).then(|| {
            let over = |s: usize, r: usize| f1s[s].iter().filter(|f1| f1[r] >= RECOVERED).count() as f64;
            let (low, high) = quantiles((0..weights.len()).map(|r| over(0, r) - over(s, r)).collect());
            Estimate { value: own_recovered as f64 - mine as f64, low, high, n: measured.len() as u64 }
        });
        Count {
            name: (*name).to_owned(),
            features: *features,
            recovered: mine,
            by: by.len() as u64,
            difference,
            split: splits[s].iter().filter(|n| **n > 1).count() as u64,
            absorbed: all_absorbed[s].len() as u64,
        }
    });
    let counts: Vec<Count> = counts.collect();
    Truth {
        concepts: measured.len() as u64,
        not_measured: (0..n).filter(|c| !measured.contains(c)).map(|c| concepts.all()[c].name.clone()).collect(),
        tokens: (tokens.half(Half::Choose).len() as u64, tokens.half(Half::Score).len() as u64),
        counts,
        absorbed: all_absorbed.into_iter().next().unwrap_or_default(),
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
            None if c.auroc.value >= 0.95 => {
                format!("{shares}, but ranks its tokens high (AUROC {:.3})", c.auroc.value)
            }
            None => shares,
        }
    };
    all.into_iter().map(|c| Missing { concept: c.concept.clone(), f1: c.f1.value, why: why(c) }).collect()
}
