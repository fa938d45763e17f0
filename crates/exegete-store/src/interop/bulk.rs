//! Neuronpedia's bulk exports: rows of its database, a line each, in `features/`, `activations/` and `explanations/`, as
//! `batch-N.jsonl` or the same with `.gz`.
//!
//! Features name no texts; those of `activations/` belong to the feature of the same index, in the order of the files.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::cursor::{At, Fault};
use super::saedashboard::{self, MOST_INDEX, MOST_TOKENS};
use super::{Bin, Dfa, Feature, Origin, Said, Sequence};
use crate::error::{Result, StoreError};

/// Longest line; a row with a vector has some hundred thousand bytes.
const MOST_LINE: u64 = 32 << 20;
/// Tokens of all texts that are held while they wait for their features: some two GiB.
const MOST_HELD: usize = 32 << 20;

/// A bulk export.
#[derive(Debug, Clone)]
pub struct Bulk {
    features: Vec<PathBuf>,
    activations: Vec<PathBuf>,
    explanations: Vec<PathBuf>,
}

impl Bulk {
    /// The files of a bulk export; `None` where the directory is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn find(dir: &Path) -> Result<Option<Bulk>> {
        if !dir.join("features").is_dir() {
            return Ok(None);
        }
        let files = |name: &str| batches(&dir.join(name));
        let bulk = Bulk {
            features: files("features")?,
            activations: files("activations")?,
            explanations: files("explanations")?,
        };
        Ok((!bulk.features.is_empty()).then_some(bulk))
    }

    /// All files.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.features.iter().chain(&self.activations).chain(&self.explanations)
    }

    /// Gives every feature that is wanted, with its texts and explanations, to `take`, and says where they are from.
    ///
    /// # Memory
    /// All texts and explanations that are wanted.
    ///
    /// # Errors
    /// The first thing that is wrong, with file, line and key; more texts than can be held; those of `take`.
    pub fn read(&self, wanted: Option<&BTreeSet<u32>>, mut take: impl FnMut(Feature) -> Result<()>) -> Result<Origin> {
        let is_wanted = |index: u32| wanted.is_none_or(|wanted| wanted.contains(&index));
        let mut said: BTreeMap<u32, Vec<Said>> = BTreeMap::new();
        for path in &self.explanations {
            rows(path, |at| {
                let index = index_of(at)?;
                if is_wanted(index) {
                    said.entry(index).or_default().extend(explanation(at)?);
                }
                Ok(())
            })?;
        }
        let (mut texts, mut held): (BTreeMap<u32, Vec<Sequence>>, usize) = (BTreeMap::new(), 0);
        for path in &self.activations {
            rows(path, |at| {
                let index = index_of(at)?;
                if is_wanted(index) {
                    let sequence = sequence(at)?;
                    held += sequence.tokens.len();
                    texts.entry(index).or_default().push(sequence);
                }
                match held > MOST_HELD {
                    true => {
                        Err(at
                            .fault(format!("is past {MOST_HELD} tokens of texts; choose some features with --latents")))
                    }
                    false => Ok(()),
                }
            })?;
        }
        let (mut origin, mut seen) = (None, HashSet::new());
        let mut failed = Ok(());
        for path in &self.features {
            rows(path, |at| {
                let index = index_of(at)?;
                let from = Origin::of_source(at.get("modelId")?.text()?, at.get("layer")?.text()?);
                if *origin.get_or_insert_with(|| from.clone()) != from {
                    return Err(at.get("layer")?.fault(format!("is of another model or source ({})", from.source())));
                }
                if !seen.insert(index) {
                    return Err(at.get("index")?.fault(format!("is {index}, which another feature has")));
                }
                if is_wanted(index) && failed.is_ok() {
                    let mut feature = saedashboard::numbers_of(at)?;
                    feature.index = index;
                    feature.sequences = texts.remove(&index).unwrap_or_default();
                    feature.explanations = said.remove(&index).unwrap_or_default();
                    failed = take(feature);
                }
                Ok(())
            })?;
        }
        failed?;
        origin.ok_or_else(|| StoreError::damaged(&self.features[0], "it has no features"))
    }
}

/// The batches of a directory in the order of their numbers; none where there is no such directory.
fn batches(dir: &Path) -> Result<Vec<PathBuf>> {
    if !dir.is_dir() {
        return Ok(Vec::new());
    }
    let mut numbered = Vec::new();
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let path = entry.map_err(StoreError::io("list", dir))?.path();
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let stem = name.strip_suffix(".gz").unwrap_or(&name).strip_suffix(".jsonl");
        if let Some(number) = stem.and_then(|stem| stem.strip_prefix("batch-")?.parse::<u64>().ok()) {
            numbered.push((number, path));
        }
    }
    numbered.sort();
    Ok(numbered.into_iter().map(|(_, path)| path).collect())
}

/// Gives each line of a file, as JSON, to `read`.
fn rows(path: &Path, mut read: impl FnMut(&At) -> Result<(), Fault>) -> Result<()> {
    let file = File::open(path).map_err(StoreError::io("open", path))?;
    let is_packed = path.extension().is_some_and(|end| end == "gz");
    let plain: Box<dyn Read> = if is_packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) };
    let mut lines = BufReader::with_capacity(1 << 16, plain);
    let mut line = Vec::new();
    for number in 1u64.. {
        line.clear();
        let told = |problem: String| StoreError::damaged(path, format!("line {number}: {problem}"));
        // A packed file may unpack to anything: no line is read further than the longest allowed.
        let n = (&mut lines).take(MOST_LINE + 1).read_until(b'\n', &mut line).map_err(|e| told(e.to_string()))?;
        if n == 0 {
            return Ok(());
        }
        if n as u64 > MOST_LINE {
            return Err(told(format!("it is longer than {MOST_LINE} bytes")));
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let row: Value = serde_json::from_slice(&line).map_err(|e| told(e.to_string()))?;
        read(&At::root(&row)).map_err(|fault| told(fault.to_string()))?;
    }
    Ok(())
}

/// The index, which the database keeps as a text.
fn index_of(at: &At) -> Result<u32, Fault> {
    let place = at.get("index")?;
    let number = place.text().ok().and_then(|text| text.parse::<u64>().ok()).filter(|n| *n <= MOST_INDEX);
    number.map_or_else(|| place.whole(MOST_INDEX), Ok).map(|n| n as u32)
}

/// What a row says, unless it says nothing.
fn explanation(at: &At) -> Result<Option<Said>, Fault> {
    let text = |key: &str| at.find(key)?.map(|at| at.text().map(str::to_owned)).transpose();
    let described = text("description")?.filter(|text| !text.trim().is_empty());
    let (method, model) = (text("typeName")?, text("explanationModelName")?);
    Ok(described.map(|text| Said { text, method, model: model.filter(|model| !model.is_empty()) }))
}

fn sequence(at: &At) -> Result<Sequence, Fault> {
    let (tokens, values) = (at.get("tokens")?, at.get("values")?);
    let (texts, numbers) = (tokens.texts()?, values.floats()?);
    if texts.is_empty() || texts.len() > MOST_TOKENS {
        return Err(tokens.fault(format!("has {} tokens; a text has 1 to {MOST_TOKENS}", texts.len())));
    }
    if numbers.len() != texts.len() {
        return Err(values.fault(format!("has {} numbers for {} tokens", numbers.len(), texts.len())));
    }
    let number = |key: &str| at.find(key)?.map(|at| at.number()).transpose();
    let own = at.find("qualifyingTokenIndex")?.map(|at| at.signed()).transpose()?;
    let dfa = at.find("dfaValues")?.map(|at| at.numbers()).transpose()?.filter(|values| !values.is_empty());
    let (max, target) = (number("dfaMaxValue")?, at.find("dfaTargetIndex")?.map(|at| at.signed()).transpose()?);
    Ok(Sequence {
        // A place outside the text stands for none, as -1 does.
        at: own.and_then(|i| u32::try_from(i).ok()).filter(|i| (*i as usize) < texts.len()),
        tokens: texts,
        values: numbers,
        bin: Bin { min: number("binMin")?, max: number("binMax")?, share: number("binContains")? },
        dfa: dfa.map(|values| Dfa { values, max, target }),
    })
}
