//! What latents know of labelled text: k-sparse probes, absorption, TPP and SCR.
//!
//! [`examples()`] runs the model once for all dictionaries that are asked; [`run`] asks one of them.

mod examples;
mod rows;

use exegete_base::settings::ProbeSettings;
use exegete_base::stats::{Estimate, mean_of};
use exegete_sae::Dictionary;
use exegete_sae::metrics::ablation::{self, AtN, Pairs};
use exegete_sae::metrics::absorption::{Absorption, Thresholds, absorption};
use exegete_sae::metrics::probing::{Examples, Probed, Score, probe};
use exegete_store::{Labelled, Task};
use serde::Serialize;

pub use self::examples::{Split, examples};
use crate::{HarvestError, Progress, Result};

/// Examples with a label, and without it, that it takes to probe it: to train on, and to test on.
const LEAST: [usize; 2] = [10, 5];

/// A label with what probes tell of it.
#[derive(Debug, Clone, Serialize)]
pub struct LabelProbed {
    /// The label.
    pub label: String,
    /// What probes tell.
    #[serde(flatten)]
    pub probed: Probed,
}

/// The mean of a kind of probe over labels. Intervals are over labels; for a single label they are its own, over documents.
#[derive(Debug, Clone, Serialize)]
pub struct Mean {
    /// Latents of the probe; none for the activations themselves.
    pub k: Option<usize>,
    /// Whether labels were shuffled.
    pub is_shuffled: bool,
    /// The means.
    #[serde(flatten)]
    pub score: Score,
}

/// SCR, and between what.
#[derive(Debug, Clone, Serialize)]
pub struct Scr {
    /// The two labels.
    pub labels: [String; 2],
    /// The two groups.
    pub groups: [String; 2],
    /// The scores.
    pub at: Vec<AtN>,
}

/// What a dictionary's latents know of a task.
#[derive(Debug, Clone, Serialize)]
pub struct TaskReport {
    /// The task's path.
    pub task: String,
    /// Examples to train on and to test on.
    pub examples: (usize, usize),
    /// Labels that were probed, the commonest first.
    pub labels: Vec<LabelProbed>,
    /// Means over labels.
    pub means: Vec<Mean>,
    /// Feature absorption, of first letters.
    pub absorption: Option<Absorption>,
    /// Targeted probe perturbation, of three labels or more.
    pub tpp: Option<Vec<AtN>>,
    /// Spurious correlation removal, where documents have groups.
    pub scr: Option<Scr>,
    /// What was left out, and why.
    pub left_out: Vec<String>,
}

/// Asks a dictionary what it knows of a task.
///
/// # Errors
/// No label has enough examples; the user stops it.
pub fn run(
    task: &Task,
    split: &Split,
    dictionary: &dyn Dictionary,
    settings: &ProbeSettings,
    seed: u64,
    progress: &dyn Progress,
) -> Result<TaskReport> {
    let (train, test) = (&split.train, &split.test);
    let labels = probed_labels(task, train, test, settings);
    if labels.is_empty() {
        let detail =
            format!("{}: no label has {} examples to train on and {} to test on", task.name, LEAST[0], LEAST[1]);
        return Err(HarvestError::Request(format!("{detail}; give more text, or raise --probe-examples")));
    }
    progress.begin("probe", labels.len() as u64, "labels", 0);
    let ks: Vec<usize> = settings.probe_k.iter().copied().filter(|k| *k <= dictionary.n_latents()).collect();
    let mut probed = Vec::new();
    for (i, label) in labels.iter().enumerate() {
        progress.check()?;
        let name = task.labels[*label as usize].clone();
        let as_classes = (&train.one_against_rest(*label, seed), &test.one_against_rest(*label, !seed));
        let found = probe((train, test), as_classes, dictionary.n_latents(), &ks, seed)?;
        progress.at(i as u64 + 1, &name);
        probed.push(LabelProbed { label: name, probed: found });
    }
    let mut left_out = Vec::new();
    let mut report = TaskReport {
        task: task.name.clone(),
        examples: (train.len(), test.len()),
        means: means(&probed, &ks),
        labels: probed,
        absorption: None,
        tpp: None,
        scr: None,
        left_out: Vec::new(),
    };
    if dictionary.transcodes() {
        left_out
            .push("absorption, TPP and SCR: a transcoder's decoder rows lie at another site than its probes".into());
    } else {
        if task.labelled == Labelled::FirstLetter {
            let letters: Vec<u32> = (0..task.labels.len() as u32).collect();
            let found = absorption((train, test), &letters, dictionary, &Thresholds::default())?;
            report.absorption = Some(found);
        }
        progress.check()?;
        // What is part of no class is no class's negative alone, so that more labels than are probed do no harm.
        match ablation::tpp_of((train, test), &labels, dictionary, seed) {
            Ok(found) => report.tpp = Some(found),
            Err(error) => left_out.push(format!("TPP: {error}")),
        }
        match scr(task, (train, test), &labels, dictionary, seed) {
            Ok(found) => report.scr = Some(found),
            Err(why) => left_out.push(format!("SCR: {why}")),
        }
    }
    progress.end(&format!("{} labels", labels.len()));
    Ok(TaskReport { left_out, ..report })
}

/// Labels with enough examples, the commonest first. Of two labels of which each example has one, the second is the first's
/// mirror image, and left out.
fn probed_labels(task: &Task, train: &Examples, test: &Examples, settings: &ProbeSettings) -> Vec<u32> {
    let count = |all: &Examples, label: u32| (0..all.len()).filter(|i| all.has(*i, label)).count();
    let is_enough = |all: &Examples, label: u32, least: usize| {
        let n = count(all, label);
        n >= least && all.len() - n >= least
    };
    let mut labels: Vec<u32> = (0..task.labels.len() as u32)
        .filter(|label| is_enough(train, *label, LEAST[0]) && is_enough(test, *label, LEAST[1]))
        .collect();
    labels.sort_by_key(|label| (std::cmp::Reverse(count(train, *label)), *label));
    if task.labelled != Labelled::FirstLetter {
        labels.truncate(settings.probe_labels);
    }
    if task.labels.len() == 2 && task.labelled != Labelled::Token {
        labels.truncate(1);
    }
    labels
}

fn means(labels: &[LabelProbed], ks: &[usize]) -> Vec<Mean> {
    let mean = |k: Option<usize>, is_shuffled: bool, of: &dyn Fn(&Probed) -> Score| {
        let scores: Vec<Score> = labels.iter().map(|label| of(&label.probed)).collect();
        let over = |of: fn(&Score) -> Estimate| match scores.as_slice() {
            [one] => of(one),
            all => mean_of(&all.iter().map(|s| of(s).value).collect::<Vec<f64>>()).as_share(),
        };
        Mean {
            k,
            is_shuffled,
            score: Score { accuracy: over(|s| s.accuracy), f1: over(|s| s.f1), auc: over(|s| s.auc) },
        }
    };
    let mut all: Vec<Mean> = (0..ks.len()).map(|i| mean(Some(ks[i]), false, &|p| p.sparse[i].score)).collect();
    all.push(mean(None, false, &|p| p.raw));
    all.extend((0..ks.len()).map(|i| mean(Some(ks[i]), true, &|p| p.shuffled[i].score)));
    all
}

/// SCR between the two commonest labels and the two commonest groups.
fn scr(
    task: &Task,
    (train, test): (&Examples, &Examples),
    labels: &[u32],
    dictionary: &dyn Dictionary,
    seed: u64,
) -> std::result::Result<Scr, String> {
    let mut groups: Vec<(usize, u32)> = (0..task.groups.len() as u32)
        .map(|group| (train.groups.iter().filter(|g| **g == Some(group)).count(), group))
        .collect();
    groups.sort_by_key(|(count, group)| (std::cmp::Reverse(*count), *group));
    let labels = match labels {
        [a, b, ..] => [*a, *b],
        // Of two labels one alone is probed.
        [a] if task.labels.len() == 2 => [*a, 1 - *a],
        _ => return Err("it takes two labels".into()),
    };
    let [(_, a), (_, b), ..] = groups[..] else {
        return Err("the task's documents have no second property; name its key with --probe-group".into());
    };
    let at = ablation::scr_of((train, test), Pairs { labels, groups: [a, b] }, dictionary, seed);
    Ok(Scr {
        labels: labels.map(|label| task.labels[label as usize].clone()),
        groups: [a, b].map(|group| task.groups[group as usize].clone()),
        at: at.map_err(|error| error.to_string())?,
    })
}
