//! Features of a run.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use exegete_base::LatentId;
use exegete_base::levels::{lower_edge, upper_edge};
use serde_json::Value;

use super::kept::{Kept, read_kept};
use super::target::{IMPORT, KEPT, UNNAMED};
use super::{Bars, Bin, Dfa, Feature, Ground, Origin, Related, Said, Sequence};
use crate::attributions::{Attribution, AttributionReader, TABLE};
use crate::error::{Result, StoreError};
use crate::examples::{Example, ExampleReader};
use crate::groups::{intervals, strongest};
use crate::harvested::{self, Harvested, LATENTS};
use crate::latents::{LatentRow, read_latents};
use crate::notes::{BEST_OF_SCALES, Explanation, Notes, RANDOM};
use crate::profile::LatentProfile;
use crate::run::Run;
use crate::tokens::{TokenReader, Window, read_vocab};

/// How many examples stand for a latent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grouping {
    /// The strongest.
    pub n_top: usize,
    /// Intervals of equal length from 0 to the largest activation.
    pub n_intervals: usize,
    /// Examples of each, drawn at random.
    pub per_interval: usize,
}

impl Default for Grouping {
    fn default() -> Self {
        Self { n_top: 20, n_intervals: 5, per_interval: 5 }
    }
}

/// The latents of a run's dictionary, ready to be told as features.
pub struct RunSource {
    run: Run,
    prefix: String,
    site: Option<String>,
    latents: Vec<LatentRow>,
    vocab: Vec<String>,
    tokens: TokenReader,
    examples: ExampleReader,
    notes: Option<Notes>,
    attributions: Option<AttributionReader>,
    kept: BTreeMap<u32, String>,
}

impl RunSource {
    /// Opens a run that has latents; of several dictionaries, the one that is named.
    ///
    /// # Errors
    /// What is wrong with a file; [`StoreError::Choice`] where the name is missing or unknown.
    pub fn open(dir: &Path, dictionary: Option<&str>) -> Result<RunSource> {
        let run = Run::open(dir)?;
        let Harvested { prefix, site, .. } = harvested::dictionary(&run, dictionary)?;
        let part = |name: &str| format!("{prefix}{name}");
        // What goes to others is whole, or nothing goes.
        let is_read = |rel: &str| {
            let tables = [part(LATENTS), part(TABLE), part(KEPT)];
            tables.iter().any(|table| table == rel) || rel.starts_with(&part("examples/")) || rel.starts_with("tokens/")
        };
        run.manifest().parts.keys().filter(|rel| is_read(rel)).try_for_each(|rel| run.verify_part(rel))?;
        let vocab_path = run.path("tokens/vocab.parquet");
        let vocab = if vocab_path.exists() { read_vocab(&vocab_path)? } else { Vec::new() };
        let (notes, kept) = (run.path(&part("run.sqlite")), part(KEPT));
        let attributions = Some(part(TABLE)).filter(|name| run.part_done(name));
        Ok(RunSource {
            latents: read_latents(&run.path(&part(LATENTS)))?,
            vocab: vocab.iter().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).collect(),
            tokens: TokenReader::open(&run.parts_under("tokens/part-"))?,
            examples: ExampleReader::open(&run.parts_under(&part("examples/part-")))?,
            notes: if notes.exists() { Some(Notes::open_read_only(&notes)?) } else { None },
            attributions: attributions.map(|name| AttributionReader::open(&run.path(&name))).transpose()?,
            kept: if run.part_done(&kept) { read_kept(&run.path(&kept))? } else { BTreeMap::new() },
            prefix,
            site,
            run,
        })
    }

    /// The run.
    pub fn run(&self) -> &Run {
        &self.run
    }

    /// All latents.
    pub fn latents(&self) -> &[LatentRow] {
        &self.latents
    }

    /// The windows of the run.
    pub fn tokens(&self) -> &TokenReader {
        &self.tokens
    }

    /// Parts of the dictionary whose names begin with `name`.
    pub fn parts(&self, name: &str) -> Vec<PathBuf> {
        self.run.parts_under(&format!("{}{name}", self.prefix))
    }

    /// The site that the dictionary reads, as far as the run says.
    pub fn site(&self) -> Option<String> {
        let said = || self.run.stage("cache").and_then(|stage| stage.get("site"));
        let said = said().or_else(|| self.run.manifest().settings.get("site")).and_then(Value::as_str);
        self.site.clone().or(said.map(str::to_owned))
    }

    /// The model that the run is of.
    pub fn model(&self) -> Option<String> {
        let cached = || self.run.stage("cache").and_then(|stage| stage.get("model"));
        let said = self.run.manifest().settings.get("model").or_else(cached).and_then(Value::as_str);
        said.map(str::to_owned)
    }

    /// Where the run is from, if it was made of a file: names that an export goes on with.
    pub fn origin(&self) -> Option<Origin> {
        serde_json::from_value(self.run.stage(IMPORT)?.get("origin")?.clone()).ok()
    }

    /// What the latents were counted over.
    pub fn ground(&self) -> Ground {
        let number = |key: &str| self.run.stage("tokens").and_then(|stage| stage.get(key)).and_then(Value::as_u64);
        let texts = self.run.manifest().settings.get("text").and_then(Value::as_array);
        let names = |texts: &Vec<Value>| texts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        Ground {
            n_prompts: Some(self.tokens.len() as u64),
            tokens_in_prompt: number("window_len"),
            dataset: texts.map(names).filter(|names| !names.is_empty()),
        }
    }

    /// A latent as a feature.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub fn feature(&self, row: &LatentRow, how: &Grouping) -> Result<Feature> {
        let mut examples = self.examples.latent(row.latent)?;
        let mut feature = Feature {
            index: row.latent.0,
            top_logits: self.logits(&row.top_tokens),
            bottom_logits: self.logits(&row.bottom_tokens),
            explanations: self.explanations(row.latent)?,
            ..Feature::default()
        };
        match self.kept.get(&row.latent.0) {
            Some(text) => {
                let path = self.run.path(&format!("{}{KEPT}", self.prefix));
                examples.sort_by_key(|e| e.hash);
                self.fill_from_kept(&mut feature, row, &examples, Kept::of(&path, row.latent.0, text)?)?;
            }
            None => self.fill_from_counts(&mut feature, row, &examples, how)?,
        }
        Ok(feature)
    }

    fn fill_from_counts(
        &self,
        feature: &mut Feature,
        row: &LatentRow,
        examples: &[Example],
        how: &Grouping,
    ) -> Result<()> {
        let profile = &row.profile;
        feature.density = Some(row.firing_rate.value).filter(|rate| rate.is_finite());
        feature.firings = level_bars(row);
        feature.logits = logit_bars(profile);
        feature.aligned_neurons = related(&profile.aligned_neurons);
        if profile.decoder_l1 > 0.0 {
            let share = |v: &f32| f64::from(v.abs() / profile.decoder_l1);
            feature.aligned_neurons.l1 = feature.aligned_neurons.values.iter().map(share).collect();
        }
        feature.correlated_neurons = related(&profile.correlated_neurons);
        feature.correlated_latents = related(&profile.correlated_latents);
        feature.ground = self.ground();
        let attributions = self.attributions.as_ref().map_or(Ok(Vec::new()), |reader| reader.latent(row.latent))?;
        for (example, bin) in chosen(row, examples, how) {
            let Some(sequence) = self.sequence(example, bin)? else { continue };
            let of = attributions.iter().find(|a| a.is_of(example));
            let dfa = of.map(|of| dfa(of, example, sequence.tokens.len()));
            feature.sequences.push(Sequence { dfa, ..sequence });
        }
        Ok(())
    }

    fn fill_from_kept(&self, feature: &mut Feature, row: &LatentRow, examples: &[Example], kept: Kept) -> Result<()> {
        if examples.len() != kept.sequences.len() {
            let told =
                format!("latent {} has {} examples and kept {}", row.latent.0, examples.len(), kept.sequences.len());
            return Err(StoreError::damaged(&self.run.path(&format!("{}{KEPT}", self.prefix)), told));
        }
        let [aligned, neurons, latents] = kept.l1;
        let with = |pairs: &[(u32, f32)], l1: Vec<f64>| Related { l1, ..related(pairs) };
        feature.aligned_neurons = with(&row.profile.aligned_neurons, aligned);
        feature.correlated_neurons = with(&row.profile.correlated_neurons, neurons);
        feature.correlated_latents = with(&row.profile.correlated_latents, latents);
        (feature.density, feature.firings, feature.logits) = (kept.density, kept.firings, kept.logits);
        (feature.decoder_norms, feature.vector, feature.ground) = (kept.decoder_norms, kept.vector, kept.ground);
        for (example, kept) in examples.iter().zip(kept.sequences) {
            if let Some(sequence) = self.sequence(example, kept.bin)? {
                feature.sequences.push(Sequence { at: kept.at, dfa: kept.dfa, ..sequence });
            }
        }
        Ok(())
    }

    /// An example in its text, as far as the values around it reach; `None` where its window is not in the run.
    fn sequence(&self, example: &Example, bin: Bin) -> Result<Option<Sequence>> {
        let Some(Window { token_ids, .. }) = self.tokens.window_of(example.doc, example.window)? else {
            return Ok(None);
        };
        let (own, context) = (example.position as usize, example.values.len() / 2);
        let mut sequence = Sequence { bin, ..Sequence::default() };
        for (i, &value) in example.values.iter().enumerate() {
            let Some(&id) = (own + i).checked_sub(context).and_then(|at| token_ids.get(at)) else { continue };
            if i == context {
                sequence.at = Some(sequence.tokens.len() as u32);
            }
            sequence.tokens.push(self.token(id));
            sequence.values.push(value);
        }
        Ok((!sequence.tokens.is_empty()).then_some(sequence))
    }

    fn token(&self, id: u32) -> String {
        self.vocab.get(id as usize).cloned().unwrap_or_else(|| format!("<{id}>"))
    }

    /// Tokens as text, with their logits.
    pub fn logits(&self, pairs: &[(u32, f32)]) -> Vec<(String, f32)> {
        pairs.iter().map(|&(id, logit)| (self.token(id), logit)).collect()
    }

    /// What is said about a latent, abstentions left out.
    ///
    /// # Errors
    /// Those of the notes.
    pub fn explanations(&self, latent: LatentId) -> Result<Vec<Said>> {
        let Some(notes) = &self.notes else { return Ok(Vec::new()) };
        let mut all = notes.explanations_of(latent)?;
        // Of what is said at many scales the best; what is said of random directions is nobody's.
        let is_kept = |e: &Explanation| e.method != RANDOM && (!e.scale.is_finite() || e.rank < BEST_OF_SCALES);
        all.retain(|e| !e.abstained && !e.text.trim().is_empty() && is_kept(e));
        // What a person picked comes first; those of a file stood in an order of their own.
        let label = notes.label_of(latent)?;
        let is_label = |e: &Explanation| label.as_ref().is_some_and(|l| l.method == e.method && l.text == e.text);
        all.sort_by_key(|e| (!is_label(e), e.settings.get("place").and_then(Value::as_u64).unwrap_or(u64::MAX)));
        let said = |e: Explanation| Said {
            model: e.settings.get("model").and_then(Value::as_str).map(str::to_owned),
            method: Some(e.method).filter(|method| method != UNNAMED),
            text: e.text,
        };
        Ok(all.into_iter().map(said).collect())
    }
}

fn related(pairs: &[(u32, f32)]) -> Related {
    let (indices, values) = pairs.iter().copied().unzip();
    Related { indices, values, l1: Vec::new() }
}

/// Bars for the levels from the lowest to the highest that it fired at: these are what was counted.
fn level_bars(row: &LatentRow) -> Bars {
    let histogram = &row.stats.histogram;
    let fired = |level: &usize| histogram[*level] > 0;
    let Some(first) = (0..histogram.len()).find(fired) else { return Bars::default() };
    let last = (0..histogram.len()).rev().find(fired).unwrap_or(first);
    let middle = |level: usize| f64::from(lower_edge(level) + upper_edge(level)) / 2.0;
    Bars {
        values: (first..=last).map(middle).collect(),
        heights: histogram[first..=last].iter().map(|n| *n as f64).collect(),
    }
}

fn logit_bars(profile: &LatentProfile) -> Bars {
    let [low, high] = profile.logit_ends.map(f64::from);
    let n = profile.logit_histogram.len();
    let middle = |i: usize| low + (high - low) * (i as f64 + 0.5) / n as f64;
    Bars {
        values: (0..n).map(middle).collect(),
        heights: profile.logit_histogram.iter().map(|n| f64::from(*n)).collect(),
    }
}

/// What each of the `n` tokens of an example's text adds; those behind its own token add nothing.
fn dfa(of: &Attribution, example: &Example, n: usize) -> Dfa {
    let (own, context) = (example.position as usize, example.values.len() / 2);
    let mut values: Vec<f64> = of.values[own.saturating_sub(context)..].iter().map(|v| f64::from(*v)).collect();
    let (max, target) = (values.iter().copied().reduce(f64::max), Some(values.len() as i64 - 1));
    values.resize(n, 0.0);
    Dfa { values, max, target }
}

/// The examples that stand for a latent, each with its bin: the strongest first, then the intervals from the highest down.
fn chosen<'a>(row: &LatentRow, examples: &'a [Example], how: &Grouping) -> Vec<(&'a Example, Bin)> {
    let top_bin = Bin { min: Some(-1.0), max: Some(row.stats.max.into()), share: Some(-1.0) };
    let mut chosen: Vec<_> = strongest(examples).into_iter().take(how.n_top).map(|e| (e, top_bin)).collect();
    for slice in intervals(row, examples, how.n_intervals, how.per_interval) {
        let bin = Bin { min: Some(slice.low), max: Some(slice.high), share: Some(slice.share) };
        chosen.extend(slice.examples.into_iter().map(|e| (e, bin)));
    }
    chosen
}
