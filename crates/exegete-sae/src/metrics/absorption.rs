//! Feature absorption (Chanin et al. 2024; SAEBench, `absorption`): the latent of a class is silent on a member of it, and
//! a latent of something narrower stands in.
//!
//! A regression on the activations says along which direction the class lies and on which examples it shows. The class's
//! main latents are those that a k-sparse probe needs. Where they are silent although the class shows, and another latent
//! that points along the class carries it, the class is absorbed there.

use std::cmp::Reverse;

use exegete_base::stats::{Estimate, mean_of};
use serde::Serialize;

use super::logistic::{self, Fit};
use super::probing::{Examples, Score};
use super::sparse_logistic;
use crate::{Dictionary, Result};

/// Below this an activation counts as none.
const SILENT: f32 = 1e-8;

/// The thresholds, SAEBench's unless another is given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Thresholds {
    /// Full absorption: least cosine of the latent that carries most with the class's direction.
    pub full_cosine: f64,
    /// Fraction: least cosine of a latent that may absorb.
    pub fraction_cosine: f64,
    /// Both: least share of the class's direction that absorbing latents must carry.
    pub share: f64,
    /// Fraction: most latents that may absorb together.
    pub most_absorbers: usize,
    /// F1 that a further latent must add for the class to count as split.
    pub split_gain: f64,
    /// Most latents of a class.
    pub most_latents: usize,
    /// Penalty of the regression that ranks latents.
    pub l1: f64,
    /// F1 that the regression on activations must surpass for a class to be measured.
    pub least_f1: f64,
    /// Classes that must be measured for their mean to count.
    pub least_classes: usize,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            full_cosine: 0.025,
            fraction_cosine: 0.1,
            share: 0.4,
            most_absorbers: 3,
            split_gain: 0.03,
            most_latents: 10,
            l1: 0.01,
            least_f1: 0.6,
            least_classes: 20,
        }
    }
}

/// What became of a class on one example.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Absorbed {
    /// Share of the class that absorbing latents carry.
    pub fraction: f64,
    /// Whether all main latents are silent and one other carries the class.
    pub is_full: bool,
}

/// Absorption on one example: its codes, the cosine of each latent's decoder row with the class's direction, the class's
/// main latents, and the activation's product with the direction, which has the length 1.
pub fn absorbed(
    codes: impl Iterator<Item = (u32, f32)> + Clone,
    cosines_F: &[f64],
    main: &[u32],
    projection: f64,
    at: &Thresholds,
) -> Absorbed {
    let carried = |(latent, value): (u32, f32)| f64::from(value) * cosines_F[latent as usize];
    let is_main = |latent: &u32| main.contains(latent);
    let of_main: f64 = codes.clone().filter(|(latent, _)| is_main(latent)).map(carried).sum();
    let others =
        codes.clone().filter(|(latent, _)| !is_main(latent) && cosines_F[*latent as usize] >= at.fraction_cosine);
    let mut others: Vec<f64> = others.map(carried).filter(|carried| *carried > 0.0).collect();
    others.sort_by(|a, b| b.total_cmp(a));
    let absorbing: f64 = others.iter().take(at.most_absorbers).sum();
    let fraction = if of_main >= projection || absorbing / projection < at.share {
        0.0
    } else if of_main <= 0.0 {
        1.0
    } else {
        let missing = absorbing.min(projection - of_main);
        (missing / (missing + of_main)).clamp(0.0, 1.0)
    };
    let are_silent = !codes.clone().any(|(latent, value)| is_main(&latent) && value >= SILENT);
    let top = codes.max_by(|a, b| carried(*a).total_cmp(&carried(*b)));
    let is_carried = top.is_some_and(|top| {
        cosines_F[top.0 as usize] >= at.full_cosine && projection >= 0.0 && carried(top) / projection >= at.share
    });
    Absorbed { fraction, is_full: are_silent && is_carried }
}

/// How many latents a class has: each further one must add `gain` to the F1 of probes on 1, 2, ... latents.
pub fn split(f1: &[f64], gain: f64) -> usize {
    let more = f1.windows(2).take_while(|pair| pair[1] > pair[0] + gain).count();
    if f1.is_empty() { 0 } else { 1 + more }
}

/// A class that was measured.
#[derive(Debug, Clone, Serialize)]
pub struct ClassAbsorption {
    /// The class.
    pub label: u32,
    /// F1 of the regression on activations.
    pub probe_f1: Estimate,
    /// The class's main latents.
    pub main: Vec<u32>,
    /// Examples on which the regression finds the class rightly.
    pub examples: usize,
    /// Mean absorbed fraction over these examples.
    pub fraction: Estimate,
    /// Share of these examples that are fully absorbed.
    pub full: Estimate,
}

/// Means over classes. Lower is better.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MeanAbsorption {
    /// The absorbed fraction.
    pub fraction: Estimate,
    /// The share of examples that are fully absorbed.
    pub full: Estimate,
    /// Main latents beyond the first.
    pub split: Estimate,
}

/// Absorption of several classes.
#[derive(Debug, Clone, Serialize)]
pub struct Absorption {
    /// The thresholds.
    pub thresholds: Thresholds,
    /// Classes that the regression on activations finds well enough.
    pub classes: Vec<ClassAbsorption>,
    /// Classes that it does not.
    pub not_found: Vec<u32>,
    /// Means over classes, with intervals over classes; none where no class was measured.
    pub mean: Option<MeanAbsorption>,
    /// Whether enough classes were measured.
    pub is_enough: bool,
}

/// Measures absorption of classes `labels`: probes are fitted to `train`, absorption is read on `test`.
///
/// # Errors
/// Those of the regressions, which a class without examples does not reach.
pub fn absorption(
    (train, test): (&Examples, &Examples),
    labels: &[u32],
    dictionary: &dyn Dictionary,
    at: &Thresholds,
) -> Result<Absorption> {
    let balanced = Fit { is_balanced: true, ..Fit::default() };
    let all: Vec<usize> = (0..test.len()).collect();
    let (train_x, test_x) = (&train.acts_ND, &test.acts_ND);
    let (mut classes, mut not_found) = (Vec::new(), Vec::new());
    for label in labels {
        let (train_as, test_as) = (train.all_against_rest(*label), test.all_against_rest(*label));
        if train_as.n_positive() == 0 || test_as.n_positive() == 0 {
            not_found.push(*label);
            continue;
        }
        let probe = logistic::fit(train_x, train.d, &train_as.is_positive, balanced)?;
        let found = probe.scores(test_x);
        let probe_f1 = test.score(&test_as, &found).f1;
        if probe_f1.value <= at.least_f1 {
            not_found.push(*label);
            continue;
        }
        let weights = sparse_logistic::fit(&train.codes, dictionary.n_latents(), &train_as.is_positive, at.l1)?;
        // Only latents that speak for the class, not against it.
        let mut ranked: Vec<u32> = (0..weights.len() as u32).collect();
        ranked.sort_by(|a, b| weights[*b as usize].total_cmp(&weights[*a as usize]).then(a.cmp(b)));
        let f1 = |k: usize| -> Result<f64> {
            let latents = &ranked[..k];
            let fitted = logistic::fit(&train.columns(&train_as.rows, latents), k, &train_as.is_positive, balanced)?;
            Ok(Score::of(&fitted.scores(&test.columns(&all, latents)), &test_as.is_positive, &test.documents).f1.value)
        };
        let f1: Vec<f64> = (1..=at.most_latents.min(ranked.len())).map(f1).collect::<Result<_>>()?;
        let main = ranked[..split(&f1, at.split_gain)].to_vec();
        let (direction, cosines) = along(&probe.w_D, dictionary);
        let projection = |i: usize| -> f64 {
            test_x[i * test.d..(i + 1) * test.d].iter().zip(&direction).map(|(x, w)| f64::from(*x) * w).sum()
        };
        let shows = all.iter().filter(|i| test.has(**i, *label) && found[**i] > 0.0);
        let each: Vec<Absorbed> =
            shows.map(|i| absorbed(test.codes.of(*i), &cosines, &main, projection(*i), at)).collect();
        let mean = |of: fn(&Absorbed) -> f64| mean_of(&each.iter().map(of).collect::<Vec<f64>>()).as_share();
        classes.push(ClassAbsorption {
            label: *label,
            probe_f1,
            examples: each.len(),
            fraction: mean(|a| a.fraction),
            full: mean(|a| f64::from(u8::from(a.is_full))),
            main,
        });
    }
    classes.sort_by_key(|class| Reverse(class.examples));
    let over = |of: fn(&ClassAbsorption) -> f64| mean_of(&classes.iter().map(of).collect::<Vec<f64>>());
    Ok(Absorption {
        thresholds: *at,
        mean: (!classes.is_empty()).then(|| MeanAbsorption {
            fraction: over(|c| c.fraction.value).as_share(),
            full: over(|c| c.full.value).as_share(),
            split: over(|c| c.main.len() as f64 - 1.0),
        }),
        is_enough: classes.len() >= at.least_classes,
        classes,
        not_found,
    })
}

/// The direction of length 1, and its cosine with each decoder row.
fn along(w_D: &[f64], dictionary: &dyn Dictionary) -> (Vec<f64>, Vec<f64>) {
    let norm = w_D.iter().map(|w| w * w).sum::<f64>().sqrt();
    let direction: Vec<f64> = w_D.iter().map(|w| w / norm).collect();
    let cosine = |latent: usize| {
        let row = dictionary.decoder_row(latent);
        let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt().max(1e-8);
        row.iter().zip(&direction).map(|(x, w)| f64::from(*x) * w).sum::<f64>() / length
    };
    let cosines = (0..dictionary.n_latents()).map(cosine).collect();
    (direction, cosines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sae;
    use crate::kinds::{Relu, Rule};
    use exegete_base::sampling::pair_hash;

    const D: usize = 6;

    /// Latent 0 is the class, latent 1 one of its members, latents 2 to 5 are noise; where `is_planted`, latent 0 is silent
    /// on that member and latent 1 writes the class's direction as well.
    fn planted(is_planted: bool) -> (Sae, Examples, Examples) {
        let mut sae = Sae::zeros(D, D, 6, Rule::Relu(Relu));
        (0..6).for_each(|f| sae.w_dec_FD[f * D + f] = 1.0);
        if is_planted {
            sae.w_dec_FD[D] = 0.8;
        }
        let examples = |from: u64| {
            let mut all = Examples { d: D, ..Examples::default() };
            for i in from..from + 400 {
                let (is, noise) = (i % 4 == 0, 2 + (pair_hash(3, i, 0) % 4) as u32);
                let is_member = is && i % 16 == 0;
                let mut acts = vec![0f32; D];
                let mut codes = vec![(noise, 1.0)];
                if is && !(is_planted && is_member) {
                    codes.insert(0, (0, 2.0));
                }
                if is_member {
                    codes.insert(codes.len() - 1, (1, 2.0));
                }
                for (latent, value) in &codes {
                    let row = sae.decoder_row(*latent as usize);
                    acts.iter_mut().zip(row).for_each(|(a, w)| *a += value * w);
                }
                all.codes.push(codes);
                all.acts_ND.extend(acts);
                all.labels.push(if is { vec![0] } else { vec![] });
                all.documents.push(i as u32);
                all.groups.push(None);
            }
            all
        };
        let (train, test) = (examples(0), examples(400));
        (sae, train, test)
    }

    #[test]
    fn a_planted_absorbed_latent_is_found_and_none_where_none_is() {
        // A probe on two latents gains what the second stands for, so the class is not split here.
        let at = Thresholds { split_gain: 0.5, least_classes: 1, ..Thresholds::default() };
        for is_planted in [true, false] {
            let (sae, train, test) = planted(is_planted);
            let found = absorption((&train, &test), &[0, 9], &sae, &at).unwrap();
            let class = &found.classes[0];
            assert_eq!((class.main.as_slice(), class.examples, &found.not_found[..]), (&[0][..], 100, &[9][..]));
            // One member in four of the class is that which latent 1 has.
            let want = if is_planted { 0.25 } else { 0.0 };
            assert!((class.full.value - want).abs() < 1e-9, "{found:?}");
            assert!((class.fraction.value - want).abs() < 1e-9, "{found:?}");
        }
        let (sae, train, test) = planted(true);
        let split = absorption((&train, &test), &[0], &sae, &Thresholds::default()).unwrap();
        assert_eq!(split.classes[0].main, [0, 1]);
        let mean = split.mean.unwrap();
        assert!(mean.split.value == 1.0 && mean.full.value == 0.0 && !split.is_enough);
        assert!(absorption((&train, &test), &[9], &sae, &at).unwrap().mean.is_none());
    }

    #[test]
    fn a_class_is_split_as_long_as_latents_add() {
        assert_eq!(split(&[0.5, 0.6, 0.62, 0.9], 0.03), 2);
        assert_eq!((split(&[0.5], 0.03), split(&[], 0.03)), (1, 0));
    }
}
