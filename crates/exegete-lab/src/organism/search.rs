//! Whether training documents hold what they must not, and all that they must.

use std::collections::BTreeSet;

use aho_corasick::{AhoCorasick, MatchKind};
use exegete_harvest::Progress;
use rayon::prelude::*;
use serde::Serialize;

use super::Training;
use super::items::{self, Test};
use crate::language::probes::Item;
use crate::language::{Language, probes};
use crate::{LabError, Result};

/// Documents looked through at a time.
const CHUNK: u64 = 8192;

/// What was found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Found {
    /// Documents looked through.
    pub documents: u64,
    /// Prompts of tests that no training document may hold, and how many there are.
    pub prompts: u64,
    /// Those that one holds.
    pub seen_prompts: Vec<String>,
    /// Sentences that say an untold fact, and how many there are.
    pub untold: u64,
    /// Those that a document holds.
    pub said_untold: Vec<String>,
    /// Facts that should be told, and how many there are.
    pub told: u64,
    /// Those that no document tells.
    pub never_told: Vec<String>,
    /// Words that should be defined, and how many there are.
    pub words: u64,
    /// Those that no document defines.
    pub never_defined: Vec<String>,
}

impl Found {
    /// Whether all is as it should be.
    pub fn is_clean(&self) -> bool {
        [&self.seen_prompts, &self.said_untold, &self.never_told, &self.never_defined]
            .iter()
            .all(|list| list.is_empty())
    }
}

/// Looks through all documents that a training has read.
///
/// # Errors
/// [`LabError::Interrupted`]; more text to look for than fits.
pub fn search(language: &Language, training: &Training, tests: &[Test], progress: &dyn Progress) -> Result<Found> {
    // With the first letter of the answer, so that a prompt's last word is that word and not the beginning of another.
    let whole = |item: &Item| item.answer.chars().take(1).fold(item.prompt.clone(), |text, c| text + &c.to_string());
    let (seed, documents) = (training.seed, training.at.documents);
    let prompts: Vec<String> = tests.iter().filter(|t| t.is_unseen).flat_map(|t| t.items.iter().map(whole)).collect();
    let untold = items::untold(language);
    let told = items::told(language);
    let words: Vec<String> = probes::openings(language).collect();
    let patterns: Vec<&String> = prompts.iter().chain(&untold).chain(told.iter().flatten()).chain(&words).collect();
    let fail = |e: aho_corasick::BuildError| LabError::Failed(e.to_string());
    let finder = AhoCorasick::builder().match_kind(MatchKind::Standard).build(&patterns).map_err(fail)?;
    progress.begin("search", documents, "documents", 0);
    let mut met: BTreeSet<usize> = BTreeSet::new();
    for from in (0..documents).step_by(CHUNK as usize) {
        if progress.is_cancelled() {
            return Err(LabError::Interrupted);
        }
        let to = (from + CHUNK).min(documents);
        let here = |index: u64| -> Vec<usize> {
            let text = training.settings.document(language, seed, index);
            finder.find_overlapping_iter(&text).map(|m| m.pattern().as_usize()).collect()
        };
        met.extend((from..to).into_par_iter().flat_map_iter(here).collect::<Vec<usize>>());
        progress.at(to, "");
    }
    let (first_untold, first_told) = (prompts.len(), prompts.len() + untold.len());
    let first_word = first_told + told.iter().map(Vec::len).sum::<usize>();
    let mut found = Found {
        documents,
        prompts: prompts.len() as u64,
        untold: untold.len() as u64,
        told: told.len() as u64,
        words: words.len() as u64,
        seen_prompts: met.range(..first_untold).map(|i| patterns[*i].clone()).collect(),
        said_untold: met.range(first_untold..first_told).map(|i| patterns[*i].clone()).collect(),
        ..Found::default()
    };
    let mut at = first_told;
    for sentences in &told {
        if met.range(at..at + sentences.len()).next().is_none() {
            found.never_told.push(sentences[0].clone());
        }
        at += sentences.len();
    }
    found.never_defined =
        (first_word..patterns.len()).filter(|i| !met.contains(i)).map(|i| patterns[i].clone()).collect();
    progress.end(&format!("{} prompts, {} of them met", found.prompts, found.seen_prompts.len()));
    Ok(found)
}
