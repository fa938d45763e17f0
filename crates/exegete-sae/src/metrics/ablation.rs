//! Targeted probe perturbation and spurious correlation removal (Karvonen et al. 2024; SAEBench, `scr_and_tpp`).
//!
//! Both set to zero the latents that matter most to a probe and see what becomes of probes' accuracies. Both are found
//! unreliable (arXiv 2605.18229): TPP falls with more training, SCR turns against the truth at large n. They are here for
//! comparison with published tables.

use exegete_base::stats::{Estimate, mean_of};
use serde::Serialize;

use super::logistic::{self, Fit, Linear};
use super::probing::{Binary, Examples, mean_differences};
use crate::{Codes, Dictionary, Result, SaeError};

/// Said beside every TPP and SCR.
pub const UNRELIABLE: &str = "TPP and SCR are unreliable (arXiv 2605.18229): TPP can fall with more training, SCR can turn \
                              against the truth at large n";
/// Numbers of latents that are ablated, as SAEBench does.
pub const LATENTS: [usize; 7] = [2, 5, 10, 20, 50, 100, 500];
/// Below this there is nothing for SCR to win back.
const NOTHING_LOST: f64 = 0.001;

/// What each latent does to a probe, `[F]`: the difference of its means between the classes times its decoder row's product
/// with the probe. TPP takes only what the positive class has more of; SCR takes sizes without signs.
pub fn effects(differences_F: &[f64], probe: &Linear, dictionary: &dyn Dictionary, is_scr: bool) -> Vec<f64> {
    let effect = |(latent, difference): (usize, &f64)| {
        let along: f64 = dictionary.decoder_row(latent).iter().zip(&probe.w_D).map(|(x, w)| f64::from(*x) * w).sum();
        if is_scr { (difference * along).abs() } else { difference.max(0.0) * along }
    };
    differences_F.iter().enumerate().map(effect).collect()
}

/// The n latents of the largest effects above 0, or as many as there are; equal ones in order. Where there are fewer than n,
/// SAEBench goes on with latents of no effect, in an order that nothing fixes.
pub fn strongest(effects: &[f64], n: usize) -> Vec<u32> {
    let mut order: Vec<u32> = (0..effects.len() as u32).filter(|f| effects[*f as usize] > 0.0).collect();
    order.sort_by(|a, b| effects[*b as usize].total_cmp(&effects[*a as usize]).then(a.cmp(b)));
    order.truncate(n);
    order
}

/// TPP of each class: what its own probe loses when its latents are ablated, less what the others lose on average.
///
/// `clean[j]` is the accuracy of probe j, `ablated[i][j]` that with the latents of class i set to zero.
pub fn tpp(clean: &[f64], ablated: &[Vec<f64>]) -> Vec<f64> {
    let of = |(i, row): (usize, &Vec<f64>)| {
        let lost = |j: usize| clean[j] - row[j];
        let others: f64 = (0..clean.len()).filter(|j| *j != i).map(lost).sum();
        lost(i) - others / (clean.len() - 1) as f64
    };
    ablated.iter().enumerate().map(of).collect()
}

/// SCR: the share of the accuracy that a biased probe lacks which ablation gives it; 0 where it lacks none.
pub fn scr(clean: f64, biased: f64, ablated: f64) -> f64 {
    if clean - biased < NOTHING_LOST { 0.0 } else { (ablated - biased) / (clean - biased) }
}

/// TPP or SCR at some number of ablated latents.
#[derive(Debug, Clone, Serialize)]
pub struct AtN {
    /// Latents that were ablated.
    pub n: usize,
    /// The mean over classes (TPP), or the score (SCR). TPP's interval is over classes; SCR has none.
    pub score: Estimate,
}

/// Ablates the latents of each of some classes, and measures all classes' probes, which tell a class from the rest.
///
/// # Errors
/// Fewer than three classes: with two, what one loses is what the other does.
pub fn tpp_of(
    (train, test): (&Examples, &Examples),
    labels: &[u32],
    dictionary: &dyn Dictionary,
    seed: u64,
) -> Result<Vec<AtN>> {
    if labels.len() < 3 {
        return Err(SaeError::Shape(format!("TPP needs three classes or more, not {}", labels.len())));
    }
    let mut classes = Vec::new();
    for label in labels {
        let (train_as, test_as) = (train.one_against_rest(*label, seed), test.one_against_rest(*label, !seed));
        let probe = fit(train, &train_as)?;
        let differences = mean_differences(written(train), &train_as, dictionary.n_latents());
        let effects = effects(&differences, &probe, dictionary, false);
        classes.push((probe, test_as, effects));
    }
    let accuracy = |(probe, test_as, _): &(Linear, Binary, Vec<f64>), ablated: &[u32]| {
        accuracy(test, test_as, probe, ablated, dictionary)
    };
    let clean: Vec<f64> = classes.iter().map(|class| accuracy(class, &[])).collect();
    let at = |n: usize| {
        let ablated: Vec<Vec<f64>> = classes
            .iter()
            .map(|(_, _, effects)| {
                let latents = strongest(effects, n);
                classes.iter().map(|class| accuracy(class, &latents)).collect()
            })
            .collect();
        AtN { n, score: mean_of(&tpp(&clean, &ablated)) }
    };
    Ok(sizes(dictionary).map(at).collect())
}

/// Labels and groups between which SCR removes a spurious correlation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pairs {
    /// Two labels.
    pub labels: [u32; 2],
    /// Two groups.
    pub groups: [u32; 2],
}

/// Trains a probe where label and group are the same thing, and sees whether ablating the latents of one makes it a probe of
/// the other. Of the two directions the one counts in which the biased probe is worse, as in SAEBench.
///
/// # Errors
/// A pair of label and group without examples.
pub fn scr_of(
    (train, test): (&Examples, &Examples),
    pairs: Pairs,
    dictionary: &dyn Dictionary,
    seed: u64,
) -> Result<Vec<AtN>> {
    let label = |all: &Examples, i: usize| match pairs.labels.map(|l| all.has(i, l)) {
        [true, false] => Some(true),
        [false, true] => Some(false),
        _ => None,
    };
    let group = |all: &Examples, i: usize| {
        all.groups[i].and_then(|g| pairs.groups.iter().position(|p| *p == g)).map(|at| at == 0)
    };
    let both = |all: &Examples, i: usize| label(all, i).filter(|l| group(all, i) == Some(*l));
    // Only examples with one of both labels and one of both groups.
    let known =
        |all: &Examples, i: usize, of: Option<bool>| of.filter(|_| label(all, i).is_some() && group(all, i).is_some());
    let by_label = |all: &Examples, seed| all.balanced(|i| known(all, i, label(all, i)), seed);
    let by_group = |all: &Examples, seed| all.balanced(|i| known(all, i, group(all, i)), seed);
    let biased = fit(train, &train.balanced(|i| both(train, i), seed))?;
    let cases = [(by_label(train, seed), by_label(test, !seed)), (by_group(train, seed), by_group(test, !seed))];
    if cases.iter().any(|(_, test_as)| test_as.rows.is_empty()) {
        return Err(SaeError::Shape("SCR needs test examples of both labels and of both groups".into()));
    }
    let mut probes = Vec::new();
    for (train_as, test_as) in &cases {
        let probe = fit(train, train_as)?;
        let differences = mean_differences(written(train), train_as, dictionary.n_latents());
        let effects = effects(&differences, &probe, dictionary, true);
        let clean = accuracy(test, test_as, &probe, &[], dictionary);
        probes.push((effects, clean, accuracy(test, test_as, &biased, &[], dictionary)));
    }
    // What is ablated is the other thing than what is measured.
    let measured = if probes[0].2 <= probes[1].2 { 0 } else { 1 };
    let (_, clean, before) = probes[measured];
    let at = |n: usize| {
        let latents = strongest(&probes[1 - measured].0, n);
        let after = accuracy(test, &cases[measured].1, &biased, &latents, dictionary);
        AtN { n, score: mean_of(&[scr(clean, before, after)]) }
    };
    Ok(sizes(dictionary).map(at).collect())
}

/// Numbers of latents that the dictionary has.
fn sizes(dictionary: &dyn Dictionary) -> impl Iterator<Item = usize> {
    let most = dictionary.n_latents();
    LATENTS.into_iter().filter(move |n| *n <= most)
}

fn written(examples: &Examples) -> &Codes {
    examples.written.as_ref().unwrap_or(&examples.codes)
}

fn fit(examples: &Examples, binary: &Binary) -> Result<Linear> {
    logistic::fit(&examples.activations(&binary.rows), examples.d, &binary.is_positive, Fit::default())
}

/// Scores of a probe on activations from which what some latents write is taken off.
///
/// # Shapes
/// `acts_ND, codes of N examples -> [N]`
pub fn ablated_scores(
    probe: &Linear,
    acts_ND: &[f32],
    codes: &Codes,
    ablated: &[u32],
    dictionary: &dyn Dictionary,
) -> Vec<f64> {
    let mut along = vec![0f64; dictionary.n_latents()];
    for latent in ablated {
        let row = dictionary.decoder_row(*latent as usize);
        along[*latent as usize] = row.iter().zip(&probe.w_D).map(|(x, w)| f64::from(*x) * w).sum();
    }
    let off = |i: usize| codes.of(i).map(|(latent, value)| f64::from(value) * along[latent as usize]).sum::<f64>();
    probe.scores(acts_ND).into_iter().enumerate().map(|(i, score)| score - off(i)).collect()
}

/// Share of examples that a probe puts in their class, with some latents ablated.
fn accuracy(examples: &Examples, binary: &Binary, probe: &Linear, ablated: &[u32], dictionary: &dyn Dictionary) -> f64 {
    let mut codes = Codes::default();
    binary.rows.iter().for_each(|row| codes.push(written(examples).of(*row)));
    let scores = ablated_scores(probe, &examples.activations(&binary.rows), &codes, ablated, dictionary);
    let right = scores.iter().zip(&binary.is_positive).filter(|(score, is_positive)| (**score > 0.0) == **is_positive);
    right.count() as f64 / scores.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sae;
    use crate::kinds::{Relu, Rule};
    use exegete_base::sampling::pair_hash;

    /// Three classes and two groups, a latent and a direction for each; the group is stronger than the class.
    fn examples(from: u64, is_biased: bool) -> Examples {
        let mut all = Examples { d: 5, ..Examples::default() };
        for i in from..from + 600 {
            let label = (pair_hash(7, i, 0) % 3) as u32;
            let group = if is_biased && label < 2 { label } else { (pair_hash(7, i, 1) % 2) as u32 };
            let noise = |k: u64| (pair_hash(9, i, k) % 1000) as f32 / 1000.0;
            let mut acts = vec![0f32; 5];
            let codes = [(label, 1.0 + noise(0)), (3 + group, 3.0 + noise(1))];
            codes.iter().for_each(|(latent, value)| acts[*latent as usize] += value);
            (0..5).for_each(|k| acts[k] += 0.3 * noise(2 + k as u64));
            all.codes.push(codes);
            all.acts_ND.extend(acts);
            all.labels.push(vec![label]);
            all.documents.push(i as u32);
            all.groups.push(Some(group));
        }
        all
    }

    fn dictionary() -> Sae {
        let mut sae = Sae::zeros(5, 5, 5, Rule::Relu(Relu));
        (0..5).for_each(|f| sae.w_dec_FD[f * 5 + f] = 1.0);
        sae
    }

    #[test]
    fn a_latent_of_its_own_class_alone_is_targeted() {
        let (train, test, sae) = (examples(0, false), examples(600, false), dictionary());
        let found = tpp_of((&train, &test), &[0, 1, 2], &sae, 1).unwrap();
        assert_eq!(found.iter().map(|at| at.n).collect::<Vec<usize>>(), [2, 5]);
        assert!(found[0].score.value > 0.2, "{found:?}");
        assert!(tpp_of((&train, &test), &[0, 1], &sae, 1).unwrap_err().to_string().contains("three classes"));
    }

    #[test]
    fn ablating_the_groups_latents_frees_the_label() {
        let (train, test, sae) = (examples(0, false), examples(600, false), dictionary());
        let pairs = Pairs { labels: [0, 1], groups: [0, 1] };
        let found = scr_of((&train, &test), pairs, &sae, 1).unwrap();
        assert!(found[0].n == 2 && found[0].score.value > 0.5, "{found:?}");
        let none = examples(0, true);
        assert!(scr_of((&train, &none), Pairs { groups: [0, 9], ..pairs }, &sae, 1).is_err());
    }

    #[test]
    fn formulas() {
        assert_eq!(tpp(&[1.0, 1.0, 1.0], &[vec![0.5, 0.9, 0.9], vec![1.0; 3], vec![0.8; 3]])[..2], [0.4, 0.0]);
        assert_eq!((scr(1.0, 0.5, 0.75), scr(0.5, 0.9, 0.1)), (0.5, 0.0));
        assert_eq!(strongest(&[0.0, -1.0, 2.0, 3.0], 3), [3, 2]);
    }
}
