//! The latents of a dictionary, opened, and what is read of them once and kept.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use exegete_base::LatentId;
use exegete_store::attributions::TABLE as ATTRIBUTION;
use exegete_store::harvested::{self, LATENTS};
use exegete_store::{
    AttributionReader, ExampleReader, LatentRow, Notes, Part, Run, TokenReader, read_latents, read_vocab,
};
use serde_json::Value;

use crate::dashboard::lock;
use crate::dictionaries::Named;
use crate::pages::percent_encoded;
use crate::vocabulary::Vocabulary;
use crate::wire::{LatentLine, TokenWeight};
use crate::{Result, WebError};

/// The database of what is said.
pub(crate) const NOTES: &str = "run.sqlite";
/// Answers of the list that are kept.
const LISTS_KEPT: usize = 24;

/// The latents of a dictionary, with the texts that they fire on and what is said about them.
pub(crate) struct Harvest {
    run: Arc<Run>,
    named: Named,
    /// Names of all dictionaries of the run, this one's among them.
    all: Vec<Named>,
    tables: Arc<Tables>,
    /// Absent until something has been said.
    notes: Option<Mutex<Notes>>,
    said: Mutex<Option<Arc<Said>>>,
    lists: Mutex<VecDeque<(String, Arc<Vec<u32>>)>>,
}

/// What does not change while the parts do not.
struct Tables {
    /// The parts that they were read from.
    of: Vec<(String, Part)>,
    latents: Vec<LatentRow>,
    vocabulary: Vocabulary,
    tokens: TokenReader,
    examples: ExampleReader,
    /// Where strongest firings come from; of dictionaries of attention alone.
    attributions: Option<AttributionReader>,
    /// What is wrong with parts that are therefore left out.
    problems: Vec<String>,
    n_firings: u64,
    has_map: bool,
}

/// What is said about latents, as of one state of the database.
#[derive(Default)]
pub(crate) struct Said {
    version: i64,
    /// What each latent is called.
    pub(crate) texts: BTreeMap<LatentId, String>,
    pub(crate) bookmarks: BTreeSet<LatentId>,
    pub(crate) noted: BTreeSet<LatentId>,
}

impl Harvest {
    /// Opens what a run has of a dictionary. What was read before is used again where its parts are the same.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub(crate) fn open(run: Arc<Run>, named: &Named, all: &[Named], before: Option<&Harvest>) -> Result<Harvest> {
        let of = parts_of(&run, named);
        let tables = match before.filter(|before| before.tables.of == of) {
            Some(before) => before.tables.clone(),
            None => Arc::new(Tables::read(&run, named, of)?),
        };
        let path = run.path(&named.of.part(NOTES));
        let notes = if path.exists() { Some(Mutex::new(Notes::open_read_only(&path)?)) } else { None };
        let (said, lists) = (Mutex::default(), Mutex::default());
        Ok(Harvest { run, named: named.clone(), all: all.to_vec(), tables, notes, said, lists })
    }

    /// Whether it is what a run has, as the run stands now.
    pub(crate) fn is_of(&self, run: &Arc<Run>) -> bool {
        let is_same = Arc::ptr_eq(&self.run, run) || self.run.manifest() == run.manifest();
        // What is said may be there since a moment ago.
        is_same && (self.notes.is_some() || !run.path(&self.named.of.part(NOTES)).exists())
    }

    pub(crate) fn named(&self) -> &Named {
        &self.named
    }

    pub(crate) fn dictionaries(&self) -> &[Named] {
        &self.all
    }

    /// Number of latents.
    pub(crate) fn n_latents(&self) -> usize {
        self.rows().len()
    }

    /// Firings of all latents.
    pub(crate) fn n_firings(&self) -> u64 {
        self.tables.n_firings
    }

    /// Tokens that were read.
    pub(crate) fn n_tokens(&self) -> u64 {
        self.rows().first().map_or(0, |row| row.firing_rate.n)
    }

    /// The run.
    pub(crate) fn run(&self) -> &Run {
        &self.run
    }

    pub(crate) fn rows(&self) -> &[LatentRow] {
        &self.tables.latents
    }

    /// A latent's row. Rows lie in the order of their latents, mostly without gaps.
    pub(crate) fn row(&self, latent: LatentId) -> Option<&LatentRow> {
        let rows = self.rows();
        let there = rows.get(latent.0 as usize).filter(|row| row.latent == latent);
        there.or_else(|| rows.binary_search_by_key(&latent, |row| row.latent).ok().map(|at| &rows[at]))
    }

    /// The row of a latent that is named in an address.
    ///
    /// # Errors
    /// [`WebError::Absent`] if there is none such.
    pub(crate) fn named_row(&self, id: &str) -> Result<&LatentRow> {
        // A run that was imported has the latents of its files, which need not begin at 0.
        let ends = self.rows().first().zip(self.rows().last()).map(|(a, b)| (a.latent.0, b.latent.0));
        let there = ends.map_or("none".into(), |(a, b)| format!("{} latents, {a} to {b}", self.n_latents()));
        let absent = || WebError::Absent(format!("There is no latent {id:?}; this dictionary has {there}."));
        id.parse().ok().and_then(|id| self.row(LatentId(id))).ok_or_else(absent)
    }

    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        &self.tables.vocabulary
    }

    pub(crate) fn tokens(&self) -> &TokenReader {
        &self.tables.tokens
    }

    pub(crate) fn examples(&self) -> &ExampleReader {
        &self.tables.examples
    }

    /// What is wrong with parts of the run that are therefore not shown.
    pub(crate) fn problems(&self) -> &[String] {
        &self.tables.problems
    }

    /// The latents before and after one, in the order of their numbers.
    pub(crate) fn around(&self, latent: LatentId) -> [Option<LatentId>; 2] {
        let at = self.rows().partition_point(|row| row.latent < latent);
        let id = |at: usize| self.rows().get(at).map(|row| row.latent);
        [at.checked_sub(1).and_then(id), id(at + 1)]
    }

    pub(crate) fn attributions(&self) -> Option<&AttributionReader> {
        self.tables.attributions.as_ref()
    }

    /// Whether the decoder's directions have places on a map.
    pub(crate) fn has_map(&self) -> bool {
        self.tables.has_map
    }

    /// Which share of the variance of directions each axis of the map holds, where the run tells.
    pub(crate) fn map_variance(&self) -> Option<[f64; 2]> {
        harvested::map_variance(&self.run, &self.named.of)
    }

    /// A value of a stage's summary.
    pub(crate) fn stage(&self, stage: &str, key: &str) -> Option<&Value> {
        self.run.stage(stage)?.get(key)
    }

    /// A value of the settings.
    pub(crate) fn setting(&self, key: &str) -> Option<&Value> {
        self.run.manifest().settings.get(key)
    }

    /// An address within this dictionary. Only what is not empty is said.
    pub(crate) fn address(&self, path: &str, pairs: &[(&str, &str)]) -> String {
        let is_first = self.all.first().is_none_or(|first| *first == self.named);
        let dictionary = [("dictionary", if is_first { "" } else { self.named.name.as_str() })];
        let said = pairs.iter().chain(&dictionary).filter(|(_, value)| !value.is_empty());
        let said: Vec<String> = said.map(|(key, value)| format!("{key}={}", percent_encoded(value))).collect();
        if said.is_empty() { path.into() } else { format!("{path}?{}", said.join("&")) }
    }

    /// What is said, as of now.
    pub(crate) fn said(&self) -> Result<Arc<Said>> {
        let Some(notes) = &self.notes else { return Ok(Arc::default()) };
        let notes = lock(notes);
        let version = notes.data_version()?;
        let mut kept = lock(&self.said);
        if let Some(said) = kept.as_ref().filter(|said| said.version == version) {
            return Ok(said.clone());
        }
        let mut texts = notes.first_texts()?;
        texts.extend(notes.labels()?);
        let (bookmarks, noted) = (notes.bookmarks()?, notes.noted_latents()?);
        let (bookmarks, noted) = (bookmarks.into_iter().collect(), noted.into_iter().collect());
        let said = Arc::new(Said { version, texts, bookmarks, noted });
        *kept = Some(said.clone());
        Ok(said)
    }

    /// What one latent is called. Unlike [`Harvest::said`], this reads no more than it tells.
    pub(crate) fn text_of(&self, latent: LatentId) -> Result<Option<String>> {
        self.with_notes(|notes| match notes.label_of(latent)? {
            Some(label) => Ok(Some(label.text)),
            None => notes.first_text(latent),
        })
    }

    /// Latents with an explanation that holds the words of `text`, or a label or note that holds it whole.
    pub(crate) fn said_with(&self, text: &str) -> Result<Vec<LatentId>> {
        let found = self.with_notes(|notes| notes.search(text))?;
        let noted = self.with_notes(|notes| notes.noted_with(text))?;
        let needle = text.to_lowercase();
        let labels = self.with_notes(Notes::labels)?;
        let labelled = labels.into_iter().filter(|(_, label)| label.to_lowercase().contains(&needle));
        Ok(found.into_iter().chain(labelled).map(|(latent, _)| latent).chain(noted).collect())
    }

    /// Latents in an order that was asked for, made anew where nobody asked for it lately.
    pub(crate) fn listed(&self, key: String, make: impl FnOnce() -> Result<Vec<u32>>) -> Result<Arc<Vec<u32>>> {
        if let Some((_, rows)) = lock(&self.lists).iter().find(|(of, _)| *of == key) {
            return Ok(rows.clone());
        }
        let rows = Arc::new(make()?);
        let mut lists = lock(&self.lists);
        if lists.len() == LISTS_KEPT {
            lists.pop_front();
        }
        lists.push_back((key, rows.clone()));
        Ok(rows)
    }

    /// A latent's line in the list.
    pub(crate) fn line(&self, row: &LatentRow, explanation: Option<String>, is_bookmarked: bool) -> LatentLine {
        LatentLine {
            latent: row.latent.0,
            explanation,
            is_bookmarked,
            value: None,
            count: row.stats.count,
            firing_rate: row.firing_rate,
            max: row.stats.max,
            top_tokens: self.weights(&row.top_tokens),
        }
    }

    /// Tokens with their text.
    pub(crate) fn weights(&self, pairs: &[(u32, f32)]) -> Vec<TokenWeight> {
        pairs.iter().map(|&(id, logit)| TokenWeight { id, text: self.vocabulary().text(id), logit }).collect()
    }

    /// Asks the database, if there is one.
    pub(crate) fn with_notes<T: Default>(&self, ask: impl FnOnce(&Notes) -> exegete_store::Result<T>) -> Result<T> {
        let Some(notes) = &self.notes else { return Ok(T::default()) };
        Ok(ask(&lock(notes))?)
    }
}

impl Said {
    /// Which state of the database this is.
    pub(crate) fn version(&self) -> i64 {
        self.version
    }
}

impl Tables {
    fn read(run: &Run, named: &Named, of: Vec<(String, Part)>) -> Result<Tables> {
        // A bit that has flipped would be shown as a number; what is intact is shown without the rest.
        let (mut intact, mut problems) = (BTreeSet::new(), Vec::new());
        for (rel, _) in &of {
            match run.verify_part(rel) {
                Ok(()) => _ = intact.insert(rel.clone()),
                Err(error) if *rel == named.of.part(LATENTS) => return Err(error.into()),
                Err(error) => problems.push(error.to_string()),
            }
        }
        let latents = read_latents(&run.path(&named.of.part(LATENTS)))?;
        let is_there = |name: String| intact.contains(&name).then(|| run.path(&name));
        let vocab = is_there("tokens/vocab.parquet".into()).map_or(Ok(Vec::new()), |path| read_vocab(&path))?;
        let under = |prefix: &str| -> Vec<PathBuf> {
            intact.iter().filter(|rel| rel.starts_with(prefix)).map(|rel| run.path(rel)).collect()
        };
        Ok(Tables {
            problems,
            n_firings: latents.iter().map(|row| row.stats.count).fold(0, u64::saturating_add),
            has_map: latents.iter().any(|row| row.profile.map != [0.0; 2]),
            latents,
            vocabulary: Vocabulary::new(&vocab),
            tokens: TokenReader::open(&under("tokens/part-"))?,
            examples: ExampleReader::open(&under(&named.of.part("examples/part-")))?,
            attributions: is_there(named.of.part(ATTRIBUTION))
                .map(|path| AttributionReader::open(&path))
                .transpose()?,
            of,
        })
    }
}

/// The parts that the tables are read from.
fn parts_of(run: &Run, named: &Named) -> Vec<(String, Part)> {
    let (latents, examples) = (named.of.part(LATENTS), named.of.part("examples/part-"));
    let attribution = named.of.part(ATTRIBUTION);
    let parts = run.manifest().parts.iter();
    let is_read =
        |rel: &str| rel == latents || rel == attribution || rel.starts_with(&examples) || rel.starts_with("tokens/");
    parts.filter(|(rel, _)| is_read(rel)).map(|(rel, part)| (rel.clone(), part.clone())).collect()
}
