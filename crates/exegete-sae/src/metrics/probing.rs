//! k-sparse probing (Gurnee et al. 2023; SAEBench, `sparse_probing`): how well few latents tell a class.
//!
//! Latents are ranked by the difference of their means between the classes, and a logistic regression is fitted to the
//! first k. Beside it stand a regression on the activations themselves, and one whose labels were shuffled.

use std::collections::BTreeMap;

use exegete_base::sampling::pair_hash;
use exegete_base::stats::{Estimate, auc, ratio_of_sums};
use serde::Serialize;

use super::logistic::{self, Fit, Linear};
use crate::{Codes, Result};

/// Examples with labels, for training or for testing: a token, or a document with means over its tokens.
#[derive(Debug, Clone, Default)]
pub struct Examples {
    /// Codes of each.
    pub codes: Codes,
    /// The same in the site's own units, where the dictionary's input is normalised.
    pub written: Option<Codes>,
    /// Activations at the site, `[N, D]`.
    pub acts_ND: Vec<f32>,
    /// Width of an activation.
    pub d: usize,
    /// Labels of each, ascending.
    pub labels: Vec<Vec<u32>>,
    /// The document of each.
    pub documents: Vec<u32>,
    /// A second property of each, where there is one.
    pub groups: Vec<Option<u32>>,
}

impl Examples {
    /// Number of examples.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Whether an example has a label.
    pub fn has(&self, example: usize, label: u32) -> bool {
        self.labels[example].binary_search(&label).is_ok()
    }

    /// All examples with a label, and as many of the others, drawn by hash; or all others and as many with it.
    pub fn one_against_rest(&self, label: u32, seed: u64) -> Binary {
        self.balanced(|i| Some(self.has(i, label)), seed ^ u64::from(label) << 32)
    }

    /// As many examples of both classes as there are of the smaller, drawn by hash; `class` says which, or neither.
    pub fn balanced(&self, class: impl Fn(usize) -> Option<bool>, seed: u64) -> Binary {
        let of = |wanted: bool| {
            let mut rows: Vec<usize> = (0..self.len()).filter(|i| class(*i) == Some(wanted)).collect();
            rows.sort_by_key(|i| pair_hash(seed, *i as u64, 0x7072));
            rows
        };
        let (positive, negative) = (of(true), of(false));
        let n = positive.len().min(negative.len());
        let mut all: Vec<(usize, bool)> = positive.into_iter().take(n).map(|i| (i, true)).collect();
        all.extend(negative.into_iter().take(n).map(|i| (i, false)));
        all.sort_unstable();
        Binary { rows: all.iter().map(|(i, _)| *i).collect(), is_positive: all.iter().map(|(_, p)| *p).collect() }
    }

    /// Every example, positive where it has the label.
    pub fn all_against_rest(&self, label: u32) -> Binary {
        let rows: Vec<usize> = (0..self.len()).collect();
        Binary { is_positive: rows.iter().map(|i| self.has(*i, label)).collect(), rows }
    }

    /// Activations of some latents, `[rows, latents]`.
    pub fn columns(&self, rows: &[usize], latents: &[u32]) -> Vec<f32> {
        let mut out = vec![0f32; rows.len() * latents.len()];
        for (out, row) in out.chunks_exact_mut(latents.len().max(1)).zip(rows) {
            for (latent, value) in self.codes.of(*row) {
                if let Some(at) = latents.iter().position(|l| *l == latent) {
                    out[at] = value;
                }
            }
        }
        out
    }

    /// Activations at the site, `[rows, D]`.
    pub fn activations(&self, rows: &[usize]) -> Vec<f32> {
        rows.iter().flat_map(|row| &self.acts_ND[row * self.d..(row + 1) * self.d]).copied().collect()
    }

    /// Scores as those of a classifier, with the document as the unit of sampling.
    pub fn score(&self, binary: &Binary, scores: &[f64]) -> Score {
        let documents: Vec<u32> = binary.rows.iter().map(|row| self.documents[*row]).collect();
        Score::of(scores, &binary.is_positive, &documents)
    }
}

/// Two classes among examples.
#[derive(Debug, Clone, PartialEq)]
pub struct Binary {
    /// The examples.
    pub rows: Vec<usize>,
    /// The class of each.
    pub is_positive: Vec<bool>,
}

impl Binary {
    /// Examples of the positive class.
    pub fn n_positive(&self) -> usize {
        self.is_positive.iter().filter(|p| **p).count()
    }

    /// The same examples with their classes shuffled.
    pub fn shuffled(&self, seed: u64) -> Self {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        order.sort_by_key(|i| pair_hash(seed, *i as u64, 0x7368));
        Self { rows: self.rows.clone(), is_positive: order.iter().map(|i| self.is_positive[*i]).collect() }
    }
}

/// How good a classifier is on examples that it was not fitted to.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Share of examples that are put in their class.
    pub accuracy: Estimate,
    /// Harmonic mean of precision and recall of the positive class.
    pub f1: Estimate,
    /// Area under the curve of true against false positive rates.
    pub auc: Estimate,
}

impl Score {
    /// Of scores whose positive ones say "positive". Intervals take the document as the unit.
    pub fn of(scores: &[f64], is_positive: &[bool], documents: &[u32]) -> Self {
        // Right, examples, true positives, predicted and real positives together.
        let mut by_document: BTreeMap<u32, [f64; 4]> = BTreeMap::new();
        for ((score, is_positive), document) in scores.iter().zip(is_positive).zip(documents) {
            let (said, is) = (*score > 0.0, *is_positive);
            let sums = by_document.entry(*document).or_default();
            let one = |holds: bool| f64::from(u8::from(holds));
            for (sum, more) in sums.iter_mut().zip([one(said == is), 1.0, one(said && is), one(said) + one(is)]) {
                *sum += more;
            }
        }
        let ratio = |top: usize, by: f64, bottom: usize| {
            // Documents that have no say are no units: where one alone has, nothing is known of the noise.
            let pairs: Vec<(f64, f64)> =
                by_document.values().filter(|s| s[bottom] > 0.0).map(|s| (by * s[top], s[bottom])).collect();
            let estimate = ratio_of_sums(&pairs).as_share();
            // Nothing is positive and nothing is said to be: scikit-learn counts that as 0.
            if estimate.value.is_nan() { Estimate { value: 0.0, low: 0.0, high: 1.0, ..estimate } } else { estimate }
        };
        Self { accuracy: ratio(0, 1.0, 1), f1: ratio(2, 2.0, 3), auc: auc(scores, is_positive, documents) }
    }
}

/// The mean activation of each latent on positives less that on negatives, `[F]`.
pub fn mean_differences(codes: &Codes, binary: &Binary, n_latents: usize) -> Vec<f64> {
    let n_pos = binary.n_positive() as f64;
    let n_neg = binary.rows.len() as f64 - n_pos;
    let mut difference = vec![0f64; n_latents];
    for (row, is_positive) in binary.rows.iter().zip(&binary.is_positive) {
        let by = if *is_positive { 1.0 / n_pos } else { -1.0 / n_neg };
        codes.of(*row).for_each(|(latent, value)| difference[latent as usize] += by * f64::from(value));
    }
    difference
}

/// The k latents of the largest differences, whatever their signs; equal ones in order.
pub fn largest(differences: &[f64], k: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..differences.len() as u32).collect();
    let size = |latent: &u32| differences[*latent as usize].abs();
    order.sort_by(|a, b| size(b).total_cmp(&size(a)).then(a.cmp(b)));
    order.truncate(k);
    order
}

/// A probe on few latents.
#[derive(Debug, Clone, Serialize)]
pub struct SparseProbe {
    /// How many.
    pub k: usize,
    /// Which.
    pub latents: Vec<u32>,
    /// How good it is.
    pub score: Score,
}

/// What probes tell of a class.
#[derive(Debug, Clone, Serialize)]
pub struct Probed {
    /// Examples of each class: to train on, and to test on.
    pub examples: (usize, usize),
    /// Probes on k latents.
    pub sparse: Vec<SparseProbe>,
    /// A probe on the activations themselves.
    pub raw: Score,
    /// Probes on k latents where all labels were shuffled: what chance gives.
    pub shuffled: Vec<SparseProbe>,
}

/// Probes one class against the rest, at several k.
///
/// # Errors
/// A class without examples, or with all of them.
pub fn probe(
    (train, test): (&Examples, &Examples),
    (train_as, test_as): (&Binary, &Binary),
    n_latents: usize,
    ks: &[usize],
    seed: u64,
) -> Result<Probed> {
    let sparse = |labels: &Binary, test_as: &Binary| -> Result<Vec<SparseProbe>> {
        let differences = mean_differences(&train.codes, labels, n_latents);
        let one = |k: &usize| {
            let latents = largest(&differences, *k);
            let probe = fit(&train.columns(&labels.rows, &latents), latents.len(), labels)?;
            let scores = probe.scores(&test.columns(&test_as.rows, &latents));
            Ok(SparseProbe { k: *k, latents, score: test.score(test_as, &scores) })
        };
        ks.iter().map(one).collect()
    };
    let raw = fit(&train.activations(&train_as.rows), train.d, train_as)?;
    Ok(Probed {
        examples: (train_as.n_positive(), test_as.n_positive()),
        sparse: sparse(train_as, test_as)?,
        raw: test.score(test_as, &raw.scores(&test.activations(&test_as.rows))),
        shuffled: sparse(&train_as.shuffled(seed), &test_as.shuffled(!seed))?,
    })
}

fn fit(x: &[f32], d: usize, binary: &Binary) -> Result<Linear> {
    logistic::fit(x, d, &binary.is_positive, Fit::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latent 3 is the label; latent 1 is noise; one token in three has the label.
    fn examples(from: u64) -> Examples {
        let mut all = Examples { d: 2, ..Examples::default() };
        for i in from..from + 300 {
            let is = pair_hash(1, i, 0).is_multiple_of(3);
            let noise = (pair_hash(2, i, 0) % 100) as f32 / 100.0;
            let own = is.then_some((3, 2.0 + noise));
            all.codes.push([Some((1, 1.0 + noise)), own].into_iter().flatten());
            all.acts_ND.extend([noise, if is { 1.0 } else { -1.0 } + noise]);
            all.labels.push(if is { vec![7] } else { vec![] });
            all.documents.push((i / 10) as u32);
            all.groups.push(None);
        }
        all
    }

    #[test]
    fn a_latent_that_is_the_label_is_found_and_shuffled_labels_give_chance() {
        let (train, test) = (examples(0), examples(300));
        let (a, b) = (train.one_against_rest(7, 1), test.one_against_rest(7, 2));
        assert_eq!(a.n_positive() * 2, a.rows.len());
        let found = probe((&train, &test), (&a, &b), 5, &[1, 2], 3).unwrap();
        let first = &found.sparse[0];
        assert_eq!((first.latents.as_slice(), first.score.f1.value, first.score.accuracy.value), (&[3][..], 1.0, 1.0));
        assert!(first.score.auc.value == 1.0 && found.raw.accuracy.value > 0.95, "{found:?}");
        assert_eq!(first.score.accuracy.n, 30);
        for chance in &found.shuffled {
            assert!((chance.score.auc.value - 0.5).abs() < 0.15, "{chance:?}");
            assert!((chance.score.accuracy.value - 0.5).abs() < 0.15, "{chance:?}");
        }
    }

    #[test]
    fn f1_and_accuracy_are_those_of_the_counts() {
        // 1 true positive, 1 false positive, 1 false negative, 1 true negative.
        let score = Score::of(&[1.0, 1.0, -1.0, -1.0], &[true, false, true, false], &[0, 1, 2, 3]);
        assert!((score.f1.value - 0.5).abs() < 1e-12 && (score.accuracy.value - 0.5).abs() < 1e-12);
        assert_eq!(largest(&[0.1, -3.0, 0.0, 3.0, 2.0], 3), [1, 3, 4]);
    }
}
