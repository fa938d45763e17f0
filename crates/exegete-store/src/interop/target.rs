//! A run made of features.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs;

use exegete_base::levels::{level_of, lower_edge};
use exegete_base::{DocId, LatentId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::kept::{Kept, KeptSequence, write_kept};
use super::{Feature, Related, Said, Sequence};
use crate::accumulate::LatentStats;
use crate::error::{Result, StoreError};
use crate::examples::{Example, ExampleKind, write_examples};
use crate::latents::{LatentRow, write_latents};
use crate::notes::{Curves, Explanation, Notes};
use crate::profile::N_LOGITS;
use crate::run::{Run, part_name};
use crate::tokens::{Window, write_vocab, write_windows};

/// The stage's name in the manifest.
pub const IMPORT: &str = "import";
/// The part that holds what tables have no column for.
pub(super) const KEPT: &str = "imported.parquet";
/// The method of a text whose file names none.
pub(super) const UNNAMED: &str = "imported";
const NOTES: &str = "run.sqlite";
/// Tokens, and values around examples, of a part.
const PART_NUMBERS: usize = 1 << 22;
/// Units in 1.0 of the fixed-point sums, those of the accumulators.
const UNITS: f64 = 4_294_967_296.0;

/// Where features are from: the names that stand at the head of their files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The model.
    pub model: String,
    /// The layer: a number, or a text in some files.
    pub layer: Value,
    /// The set of dictionaries.
    pub set: String,
    /// What tells dictionaries of a set apart.
    pub suffix: Option<String>,
}

impl Origin {
    /// From the name of a model and a source of Neuronpedia, `LAYER-SET`; a source without a layer is a set.
    pub fn of_source(model: &str, source: &str) -> Origin {
        let parts = source.split_once('-').and_then(|(layer, set)| {
            // A number that would be written otherwise is part of the name.
            let number = layer.parse::<u32>().ok().filter(|n| n.to_string() == layer && !set.is_empty())?;
            Some((Value::from(number), set))
        });
        let (layer, set) = parts.unwrap_or((Value::Null, source));
        Origin { model: model.into(), layer, set: set.into(), suffix: None }
    }

    /// The source as Neuronpedia names it.
    pub fn source(&self) -> String {
        match &self.layer {
            Value::Null => self.set.clone(),
            Value::String(layer) => format!("{layer}-{}", self.set),
            layer => format!("{layer}-{}", self.set),
        }
    }
}

/// Makes a run of features, one after the other.
pub struct RunBuilder {
    run: Run,
    vocab: HashMap<String, u32>,
    texts: Vec<String>,
    /// Windows by the hash of their tokens: texts come again in other groups and other features.
    known_windows: HashMap<[u8; 32], u64>,
    windows: Vec<Window>,
    n_windows: u64,
    n_tokens: u64,
    examples: Vec<Example>,
    rows: Vec<LatentRow>,
    seen: HashSet<u32>,
    kept: BTreeMap<u32, String>,
    said: Vec<(u32, Vec<Said>)>,
    /// Finished parts of tokens and of examples, and numbers in the unfinished ones.
    n_parts: [usize; 2],
    n_pending: [usize; 2],
    n_sequences: u64,
    outside: u64,
}

impl RunBuilder {
    /// A builder of a run that was just made.
    pub fn new(run: Run) -> RunBuilder {
        RunBuilder {
            run,
            vocab: HashMap::new(),
            texts: Vec::new(),
            known_windows: HashMap::new(),
            windows: Vec::new(),
            n_windows: 0,
            n_tokens: 0,
            examples: Vec::new(),
            rows: Vec::new(),
            seen: HashSet::new(),
            kept: BTreeMap::new(),
            said: Vec::new(),
            n_parts: [0; 2],
            n_pending: [0; 2],
            n_sequences: 0,
            outside: 0,
        }
    }

    /// Number of features so far.
    pub fn n_features(&self) -> usize {
        self.rows.len()
    }

    /// Number of texts so far.
    pub fn n_sequences(&self) -> u64 {
        self.n_sequences
    }

    /// Texts so far whose activation does not lie in the interval that they stand in.
    pub fn n_outside(&self) -> u64 {
        self.outside
    }

    /// Takes back what was made, where a file turned out to be bad.
    ///
    /// # Errors
    /// The disk's.
    pub fn discard(self) -> Result<()> {
        self.run.discard()
    }

    /// Whether a feature is there already.
    pub fn has(&self, index: u32) -> bool {
        self.seen.contains(&index)
    }

    /// Takes in a feature whose index is new.
    ///
    /// # Errors
    /// The disk's.
    pub fn add(&mut self, feature: Feature) -> Result<()> {
        self.seen.insert(feature.index);
        let stats = stats_of(&feature);
        let n_tokens = tokens_of(&feature, &stats);
        let mut row = LatentRow::new(LatentId(feature.index), stats, n_tokens);
        row.top_tokens = feature.top_logits.iter().map(|(token, logit)| (self.token(token), *logit)).collect();
        row.bottom_tokens = feature.bottom_logits.iter().map(|(token, logit)| (self.token(token), *logit)).collect();
        let pairs = |r: &Related| r.indices.iter().copied().zip(r.values.iter().copied()).collect();
        row.profile.aligned_neurons = pairs(&feature.aligned_neurons);
        row.profile.correlated_neurons = pairs(&feature.correlated_neurons);
        row.profile.correlated_latents = pairs(&feature.correlated_latents);
        fill_logits(&mut row, &feature);
        self.rows.push(row);
        let mut sequences = Vec::with_capacity(feature.sequences.len());
        for (place, sequence) in feature.sequences.into_iter().enumerate() {
            sequences.push(KeptSequence { at: sequence.at, bin: sequence.bin, dfa: sequence.dfa.clone() });
            self.add_sequence(feature.index, place as u64, &sequence)?;
        }
        let l1 = [feature.aligned_neurons.l1, feature.correlated_neurons.l1, feature.correlated_latents.l1];
        let kept = Kept {
            density: feature.density,
            firings: feature.firings,
            logits: feature.logits,
            l1,
            decoder_norms: feature.decoder_norms,
            vector: feature.vector,
            ground: feature.ground,
            sequences,
        };
        let text = serde_json::to_string(&kept).map_err(|e| StoreError::damaged(&self.run.path(KEPT), e))?;
        self.kept.insert(feature.index, text);
        if !feature.explanations.is_empty() {
            self.said.push((feature.index, feature.explanations));
        }
        Ok(())
    }

    fn add_sequence(&mut self, latent: u32, place: u64, sequence: &Sequence) -> Result<()> {
        let Some(own) = sequence.own() else { return Ok(()) };
        self.n_sequences += 1;
        let (len, value) = (sequence.values.len(), sequence.values[own]);
        self.outside += u64::from(!sequence.bin.holds(value));
        let record = self.window(&sequence.tokens)?;
        // Values on both sides, as far as the longer one reaches.
        let context = own.max(len - 1 - own);
        let mut values = vec![0f32; 2 * context + 1];
        values[context - own..context - own + len].copy_from_slice(&sequence.values);
        self.n_pending[1] += values.len();
        self.examples.push(Example {
            latent: LatentId(latent),
            level: if value > 0.0 { level_of(value) as u8 } else { 0 },
            kind: if sequence.bin.is_top() { ExampleKind::Top } else { ExampleKind::Sample },
            doc: DocId::new(0, record),
            window: 0,
            position: own as u32,
            value,
            values,
            // No hash drew it; its place keeps the order of the file.
            hash: place,
        });
        if self.n_pending[1] >= PART_NUMBERS { self.flush_examples() } else { Ok(()) }
    }

    /// Number of the window with these tokens.
    fn window(&mut self, tokens: &[String]) -> Result<u64> {
        let token_ids: Vec<u32> = tokens.iter().map(|token| self.token(token)).collect();
        let mut hash = Sha256::new();
        token_ids.iter().for_each(|id| hash.update(id.to_le_bytes()));
        let next = self.known_windows.len() as u64;
        let record = *self.known_windows.entry(hash.finalize().into()).or_insert(next);
        if record == next {
            self.n_windows += 1;
            self.n_tokens += token_ids.len() as u64;
            self.n_pending[0] += token_ids.len();
            self.windows.push(Window { doc: DocId::new(0, record), window: 0, start: 0, token_ids });
            if self.n_pending[0] >= PART_NUMBERS {
                self.flush_windows()?;
            }
        }
        Ok(record)
    }

    fn token(&mut self, text: &str) -> u32 {
        if let Some(id) = self.vocab.get(text) {
            return *id;
        }
        let id = self.texts.len() as u32;
        self.texts.push(text.to_owned());
        self.vocab.insert(text.to_owned(), id);
        id
    }

    fn flush_windows(&mut self) -> Result<()> {
        let windows = std::mem::take(&mut self.windows);
        let name = part_name("tokens", self.n_parts[0]);
        self.run.commit_part(&name, windows.len() as u64, |w| write_windows(w, &windows))?;
        (self.n_parts[0], self.n_pending[0]) = (self.n_parts[0] + 1, 0);
        Ok(())
    }

    fn flush_examples(&mut self) -> Result<()> {
        let examples = std::mem::take(&mut self.examples);
        let name = part_name("examples", self.n_parts[1]);
        self.run.commit_part(&name, examples.len() as u64, |w| write_examples(w, &examples))?;
        (self.n_parts[1], self.n_pending[1]) = (self.n_parts[1] + 1, 0);
        Ok(())
    }

    /// Writes what is left, and the summary of the import with what `more` says.
    ///
    /// # Errors
    /// The disk's.
    pub fn finish(mut self, origin: &Origin, more: Value) -> Result<Run> {
        self.flush_windows()?;
        self.flush_examples()?;
        self.rows.sort_by_key(|row| row.latent);
        let bytes: Vec<Vec<u8>> = self.texts.iter().map(|text| text.as_bytes().to_vec()).collect();
        self.run.commit_part("tokens/vocab.parquet", bytes.len() as u64, |w| write_vocab(w, &bytes))?;
        self.run.commit_part(KEPT, self.kept.len() as u64, |w| write_kept(w, &self.kept))?;
        self.run.commit_part("latents.parquet", self.rows.len() as u64, |w| write_latents(w, &self.rows))?;
        self.write_notes()?;
        let tokens = json!({
            "documents": self.n_windows, "windows": self.n_windows, "tokens": self.n_tokens, "imported": true,
        });
        self.run.finish_stage("tokens", tokens)?;
        let mut summary = json!({
            "origin": origin, "features": self.rows.len(), "sequences": self.n_sequences, "outside_bins": self.outside,
            "counts": "of the export: its histograms and rates, or else the texts that it shows; no harvest counted them",
        });
        if let (Some(summary), Value::Object(more)) = (summary.as_object_mut(), more) {
            summary.extend(more);
        }
        self.run.finish_stage(IMPORT, summary)?;
        Ok(self.run)
    }

    fn write_notes(&self) -> Result<()> {
        if self.said.is_empty() {
            return Ok(());
        }
        let path = self.run.path(NOTES);
        // What an import that was killed left there is of this same import.
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(self.run.path(&format!("{NOTES}{end}")));
        }
        let mut notes = Notes::open(&path)?;
        for (latent, said) in &self.said {
            let mut by_method: BTreeMap<&str, Vec<Explanation>> = BTreeMap::new();
            for (place, said) in said.iter().enumerate() {
                let method = said.method.as_deref().unwrap_or(UNNAMED);
                let texts = by_method.entry(method).or_default();
                texts.push(Explanation {
                    method: method.into(),
                    rank: texts.len() as u32,
                    text: said.text.clone(),
                    scale: f64::NAN,
                    score: f64::NAN,
                    abstained: false,
                    settings: json!({ "place": place, "model": said.model }),
                });
            }
            for (method, texts) in by_method {
                notes.put_explanations(LatentId(*latent), method, &texts, &Curves::default())?;
            }
        }
        Ok(())
    }
}

/// Counts of the file's histogram, each bar at the level of its middle; where there is none, those of the texts shown.
fn stats_of(feature: &Feature) -> LatentStats {
    let mut stats = LatentStats::default();
    let mut count = |value: f64, n: u64| {
        let (value, n_wide) = (value.clamp(0.0, f64::from(f32::MAX)), i128::from(n));
        stats.count = stats.count.saturating_add(n);
        stats.sum_fixed = stats.sum_fixed.saturating_add(((value * UNITS) as i128).saturating_mul(n_wide));
        stats.sumsq_fixed = stats.sumsq_fixed.saturating_add(((value * value * UNITS) as i128).saturating_mul(n_wide));
        let level = level_of(value as f32);
        stats.histogram[level] = stats.histogram[level].saturating_add(n);
    };
    let bars = &feature.firings;
    // Negative bars or such above all counts would be no histogram of activations.
    let is_count = |h: &f64| h.fract() == 0.0 && (0.0..1e12).contains(h);
    if !bars.heights.is_empty() && bars.heights.iter().all(is_count) {
        bars.values.iter().zip(&bars.heights).filter(|(_, h)| **h > 0.0).for_each(|(v, h)| count(*v, *h as u64));
    } else {
        let mut shown = HashSet::new();
        for sequence in &feature.sequences {
            if shown.insert(&sequence.tokens) {
                sequence.values.iter().filter(|v| **v > 0.0).for_each(|v| count(f64::from(*v), 1));
            }
        }
    }
    // Decimals of the table hold 38 digits.
    let most = 10i128.pow(38) - 1;
    (stats.sum_fixed, stats.sumsq_fixed) = (stats.sum_fixed.min(most), stats.sumsq_fixed.min(most));
    stats.max = feature.sequences.iter().flat_map(|s| &s.values).fold(0f32, |m, v| m.max(*v));
    if stats.max == 0.0 && stats.count > 0 {
        let highest = stats.histogram.iter().rposition(|n| *n > 0);
        stats.max = highest.map_or(0.0, lower_edge);
    }
    stats
}

/// Tokens that the counts are of: as many as make the count the share that the file says, which leaves out what was not counted,
/// where that share is not rounded to a digit or two; else those that the file says, else those shown.
fn tokens_of(feature: &Feature, stats: &LatentStats) -> u64 {
    let shown: usize = feature.sequences.iter().map(|s| s.tokens.len()).sum();
    let by_density = || {
        let density = feature.density.filter(|d| *d > 0.0)?;
        Some((stats.count as f64 / density).round().min(9e15) as u64)
    };
    let digits =
        |share: f64| format!("{share:e}").bytes().take_while(|b| *b != b'e').filter(u8::is_ascii_digit).count();
    let exact = || by_density().filter(|_| feature.density.is_some_and(|share| digits(share) >= 3));
    let n = exact().or_else(|| feature.ground.n_tokens()).or_else(by_density).unwrap_or(shown as u64);
    n.max(stats.count)
}

/// The histogram of logits, where it is one of ours: as many bars of equal width.
fn fill_logits(row: &mut LatentRow, feature: &Feature) {
    let bars = &feature.logits;
    let is_count = |h: &f64| h.fract() == 0.0 && (0.0..f64::from(u32::MAX)).contains(h);
    if bars.values.len() == N_LOGITS && bars.heights.iter().all(is_count) {
        let half = (bars.values[N_LOGITS - 1] - bars.values[0]) / (N_LOGITS - 1) as f64 / 2.0;
        row.profile.logit_histogram = bars.heights.iter().map(|h| *h as u32).collect();
        row.profile.logit_ends = [(bars.values[0] - half) as f32, (bars.values[N_LOGITS - 1] + half) as f32];
    }
}
