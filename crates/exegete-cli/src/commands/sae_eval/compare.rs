//! Dictionaries against each other: over seeds of a recipe, and recipe against recipe.

use anyhow::Result;
use exegete_base::stats::{Estimate, difference_of_means, difference_of_ratios, mean_of};
use exegete_sae::Dictionary;
use exegete_sae::kinds::Rule;
use exegete_sae::metrics::agreement::{Agreement, FOUND_AGAIN, agreement, random_rows};
use serde::Serialize;

use super::{Evaluated, Headline};
use crate::commands::measured::span;
use crate::printer::Printer;

/// Everything that takes more than one dictionary.
#[derive(Serialize)]
pub(super) struct Comparison {
    /// Means over seeds, of the recipe and of the one that it is compared with.
    over_seeds: Vec<OverSeeds>,
    differences: Vec<Difference>,
    notes: Vec<String>,
}

#[derive(Serialize)]
struct OverSeeds {
    dictionaries: Vec<String>,
    /// Means with intervals over seeds.
    means: Vec<Headline>,
    /// Means over all pairs of dictionaries.
    agreement: Vec<AgreementMean>,
}

#[derive(Serialize)]
struct AgreementMean {
    name: &'static str,
    /// Mean over ordered pairs; pairs share dictionaries, so it has no interval.
    between_seeds: f64,
    least: f64,
    most: f64,
    /// Of each dictionary with random directions, as many as it has latents: the mean.
    random: f64,
}

#[derive(Serialize)]
struct Difference {
    of: String,
    less: String,
    name: String,
    #[serde(flatten)]
    estimate: Estimate,
    /// What the interval is over.
    over: &'static str,
    is_distinguishable: bool,
}

pub(super) fn compare(own: &[Evaluated], other: &[Evaluated], seed: u64) -> Result<Comparison> {
    let mut comparison = Comparison { over_seeds: Vec::new(), differences: Vec::new(), notes: Vec::new() };
    for group in [own, other].into_iter().filter(|group| group.len() > 1) {
        match is_one_recipe(group) {
            true => comparison.over_seeds.push(over_seeds(group, seed)?),
            false => comparison.notes.push(format!(
                "{} differ in kind, size, site or settings, so they are no seeds of one recipe",
                names(group).join(", ")
            )),
        }
    }
    // Differences between more than two seeds are what the mean's interval is made of.
    let is_told = other.is_empty() && own.len() > 2 && is_one_recipe(own);
    // An error, a loss or a share of variance is one of what is reconstructed.
    let is_alike = |e: &&Evaluated| e.sites.written() == own[0].sites.written();
    let unlike: Vec<&str> = own.iter().chain(other).filter(|e| !is_alike(e)).map(|e| e.name.as_str()).collect();
    if own.len() > 1 && other.len() > 1 {
        if unlike.is_empty() {
            comparison.differences.extend(by_seeds(own, other));
        }
    } else if !is_told {
        // On the same documents, so that what a hard one does to both is no part of the difference.
        let others = if other.is_empty() { &own[1..] } else { other };
        others.iter().filter(is_alike).for_each(|b| comparison.differences.extend(by_documents(&own[0], b)));
    }
    if !unlike.is_empty() {
        let detail = format!("of other sites than {}: {}", own[0].name, unlike.join(", "));
        comparison.notes.push(format!("numbers are set against each other of the same sites alone; {detail}"));
    }
    if comparison.differences.iter().any(|d| d.over != SEEDS) {
        let detail =
            "these intervals know nothing of the noise of training, which is often the larger: give seeds of both";
        comparison.notes.push(format!("{detail} recipes, SAE SAE ... --against SAE SAE ..."));
    }
    Ok(comparison)
}

/// What an interval over seeds is called.
const SEEDS: &str = "seeds";

/// A number of a pair of dictionaries, where it has one.
type OfPair = fn(&Agreement) -> Option<f64>;

fn names(group: &[Evaluated]) -> Vec<String> {
    group.iter().map(|e| e.name.clone()).collect()
}

/// Whether dictionaries may be seeds of one recipe: they have one kind, size and site, and one k where the kind has one; and
/// where their files hold settings of our training, these are the same.
fn is_one_recipe(group: &[Evaluated]) -> bool {
    let recipe = |e: &Evaluated| {
        let sae = &e.saved.dictionary;
        let k = match &sae.encoders()[0].rule {
            Rule::TopK(rule) => Some(rule.k),
            Rule::BatchTopK(rule) => Some(rule.k),
            _ => None,
        };
        let settings = e.saved.metadata.get("exegete_training").cloned();
        (sae.kind(), [sae.d_in(), sae.d_out(), sae.n_latents()], k, settings)
    };
    let alike = |pair: &[Evaluated]| recipe(&pair[0]) == recipe(&pair[1]) && pair[0].sites == pair[1].sites;
    group.windows(2).all(alike)
}

fn over_seeds(group: &[Evaluated], seed: u64) -> Result<OverSeeds> {
    let all: Vec<Vec<Headline>> = group.iter().map(Evaluated::headlines).collect();
    let mean = |(i, first): (usize, &Headline)| {
        let values: Vec<f64> = all.iter().filter_map(|one| one.get(i)).map(|h| h.estimate.value).collect();
        Headline { name: first.name.clone(), estimate: mean_of(&values), pairs: Vec::new() }
    };
    let means = all[0].iter().enumerate().map(mean).collect();
    let (mut pairs, mut random) = (Vec::new(), Vec::new());
    for (i, a) in group.iter().enumerate() {
        // A cross-layer transcoder is compared layer by layer.
        let own = a.saved.dictionary.encoders();
        for b in group.iter().enumerate().filter(|(j, _)| *j != i).map(|(_, b)| b) {
            for (sae, other) in own.iter().zip(b.saved.dictionary.encoders()) {
                pairs.push(agreement(&sae.w_dec_FD, &other.w_dec_FD, sae.d_out)?);
            }
        }
        for sae in own {
            random.push(agreement(
                &sae.w_dec_FD,
                &random_rows(sae.n_latents(), sae.d_out, seed ^ i as u64),
                sae.d_out,
            )?);
        }
    }
    let kinds: [(&'static str, OfPair); 4] = [
        ("mean maximal cosine", |a| Some(a.mean_max_cosine)),
        ("share found again", |a| Some(a.share_found)),
        ("mean cosine, matched one to one", |a| a.matched_cosine),
        ("share found again, matched one to one", |a| a.matched_found),
    ];
    let row = |(name, of): (&'static str, OfPair)| {
        let values: Vec<f64> = pairs.iter().filter_map(of).collect();
        let null: Vec<f64> = random.iter().filter_map(of).collect();
        (!values.is_empty() && !null.is_empty()).then(|| AgreementMean {
            name,
            between_seeds: mean_of(&values).value,
            least: values.iter().copied().fold(f64::INFINITY, f64::min),
            most: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            random: mean_of(&null).value,
        })
    };
    Ok(OverSeeds { dictionaries: names(group), means, agreement: kinds.into_iter().filter_map(row).collect() })
}

fn by_documents(a: &Evaluated, b: &Evaluated) -> Vec<Difference> {
    let difference = |(x, y): (Headline, Headline)| {
        let is_paired = !x.pairs.is_empty() && x.pairs.len() == y.pairs.len();
        let estimate = match is_paired {
            true => difference_of_ratios(&x.pairs, &y.pairs),
            false => apart(x.estimate, y.estimate),
        };
        Difference {
            of: a.name.clone(),
            less: b.name.clone(),
            name: x.name,
            estimate,
            over: if is_paired { "documents, the same for both" } else { "as the numbers' own, taken for independent" },
            is_distinguishable: is_distinguishable(&estimate),
        }
    };
    paired(a.headlines(), b.headlines()).map(difference).collect()
}

/// Numbers of the same name.
fn paired(a: Vec<Headline>, b: Vec<Headline>) -> impl Iterator<Item = (Headline, Headline)> {
    let partner = move |x: Headline| b.iter().find(|y| y.name == x.name).cloned().map(|y| (x, y));
    a.into_iter().filter_map(partner)
}

fn by_seeds(own: &[Evaluated], other: &[Evaluated]) -> Vec<Difference> {
    let all = |group: &[Evaluated]| group.iter().map(Evaluated::headlines).collect::<Vec<Vec<Headline>>>();
    let (own_all, other_all) = (all(own), all(other));
    let values = |all: &[Vec<Headline>], name: &str| -> Vec<f64> {
        all.iter().flatten().filter(|h| h.name == name).map(|h| h.estimate.value).collect()
    };
    let difference = |headline: &Headline| {
        let estimate = difference_of_means(&values(&own_all, &headline.name), &values(&other_all, &headline.name));
        Difference {
            of: names(own).join(", "),
            less: names(other).join(", "),
            name: headline.name.clone(),
            estimate,
            over: SEEDS,
            is_distinguishable: is_distinguishable(&estimate),
        }
    };
    own_all[0].iter().filter(|h| other_all[0].iter().any(|o| o.name == h.name)).map(difference).collect()
}

/// The difference of two numbers as if they were independent, which makes the interval too wide where they are not.
fn apart(a: Estimate, b: Estimate) -> Estimate {
    let value = a.value - b.value;
    let (below, above) = ((a.value - a.low).hypot(b.high - b.value), (a.high - a.value).hypot(b.value - b.low));
    Estimate { value, low: value - below, high: value + above, n: a.n.min(b.n) }
}

/// Whether the interval lies on one side of 0. One that is not known tells nothing apart.
fn is_distinguishable(difference: &Estimate) -> bool {
    difference.low > 0.0 || difference.high < 0.0
}

impl Comparison {
    pub(super) fn tell(&self, printer: &Printer) {
        for group in &self.over_seeds {
            let dictionaries = group.dictionaries.join(", ");
            printer.line(format!(
                "seeds     mean over {} dictionaries, intervals over seeds: {dictionaries}",
                group.dictionaries.len()
            ));
            for mean in &group.means {
                printer.line(format!("          {} {}", mean.name, span(&mean.estimate)));
            }
            printer.line(format!(
                "agreement of decoder rows between seeds, and with random directions; found again is a cosine above {FOUND_AGAIN}"
            ));
            for row in &group.agreement {
                let AgreementMean { name, between_seeds, least, most, random } = row;
                printer.line(format!(
                    "          {name} {between_seeds:.4} (pairs from {least:.4} to {most:.4}), random {random:.4}"
                ));
            }
        }
        let mut before = None;
        for difference in &self.differences {
            let heads = Some((&difference.of, &difference.less));
            if before != heads {
                printer.line(format!("compared  {} less {}", difference.of, difference.less));
                before = heads;
            }
            let verdict = if difference.is_distinguishable { "" } else { "  not distinguishable" };
            printer.line(format!("          {} {}{verdict}", difference.name, span(&difference.estimate)));
        }
        self.notes.iter().for_each(|note| printer.line(format!("note      {note}")));
    }
}
