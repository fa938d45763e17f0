//! The latents of a run, and the questions that pages ask of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use exegete_base::LatentId;
use exegete_base::levels::{lower_edge, upper_edge};
use exegete_store::{
    Example, ExampleKind, ExampleReader, LatentRow, Notes, Run, TokenReader, read_latents, read_vocab,
};
use serde_json::Value;

use crate::Result;
use crate::vocabulary::Vocabulary;
use crate::wire::{
    ExampleText, ExampleToken, ExplanationText, LatentDetail, LatentLine, LevelDetail, MethodResult, Neighbour,
    TokenWeight,
};

/// The part without which a run has no latents.
pub(crate) const LATENTS: &str = "latents.parquet";
const NOTES: &str = "run.sqlite";

/// The latents of a run, with the texts that they fire on and what is said about them.
pub(crate) struct Harvest {
    run: Run,
    latents: Vec<LatentRow>,
    vocabulary: Vocabulary,
    tokens: TokenReader,
    examples: ExampleReader,
    /// Absent until something has been explained.
    notes: Option<Mutex<Notes>>,
}

impl Harvest {
    /// Opens what a run has; `None` until it has latents.
    ///
    /// # Errors
    /// What is wrong with a file.
    pub(crate) fn open(run: Run) -> Result<Option<Harvest>> {
        if !run.part_done(LATENTS) {
            return Ok(None);
        }
        let latents = read_latents(&run.path(LATENTS))?;
        let vocab_path = run.path("tokens/vocab.parquet");
        let vocab = if vocab_path.exists() { read_vocab(&vocab_path)? } else { Vec::new() };
        let notes_path = run.path(NOTES);
        let notes = if notes_path.exists() { Some(Mutex::new(Notes::open_read_only(&notes_path)?)) } else { None };
        Ok(Some(Harvest {
            tokens: TokenReader::open(&run.parts_under("tokens/part-"))?,
            examples: ExampleReader::open(&run.parts_under("examples/part-"))?,
            vocabulary: Vocabulary::new(&vocab),
            run,
            latents,
            notes,
        }))
    }

    /// Whether it is what a run has, as the run stands now.
    pub(crate) fn is_of(&self, run: &Run) -> bool {
        self.run.manifest() == run.manifest() && self.notes.is_some() == run.path(NOTES).exists()
    }

    /// Number of latents.
    pub(crate) fn n_latents(&self) -> usize {
        self.latents.len()
    }

    /// The run.
    pub(crate) fn run(&self) -> &Run {
        &self.run
    }

    pub(crate) fn rows(&self) -> &[LatentRow] {
        &self.latents
    }

    pub(crate) fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// A value of a stage's summary.
    pub(crate) fn stage(&self, stage: &str, key: &str) -> Option<&Value> {
        self.run.stage(stage)?.get(key)
    }

    /// A value of the settings.
    pub(crate) fn setting(&self, key: &str) -> Option<&Value> {
        self.run.manifest().settings.get(key)
    }

    /// The best text of each explained latent, as of now.
    pub(crate) fn first_texts(&self) -> Result<BTreeMap<LatentId, String>> {
        self.with_notes(Notes::first_texts)
    }

    /// Latents whose explanations hold the words of `text`.
    pub(crate) fn explained_with(&self, text: &str) -> Result<Vec<LatentId>> {
        let found = self.with_notes(|notes| notes.search(text))?;
        Ok(found.into_iter().map(|(latent, _)| latent).collect())
    }

    /// A latent's line in the list.
    pub(crate) fn line(&self, row: &LatentRow, texts: &BTreeMap<LatentId, String>) -> LatentLine {
        LatentLine {
            latent: row.latent.0,
            explanation: texts.get(&row.latent).cloned(),
            count: row.stats.count,
            firing_rate: row.firing_rate,
            max: row.stats.max,
            top_tokens: self.weights(&row.top_tokens),
        }
    }

    /// All that is known of a latent; `None` if there is none such.
    pub(crate) fn detail(&self, latent: LatentId) -> Result<Option<LatentDetail>> {
        let Some(row) = self.latents.iter().find(|row| row.latent == latent) else { return Ok(None) };
        let texts = self.first_texts()?;
        let neighbours = row.neighbours.iter().map(|&(latent, cosine)| Neighbour {
            latent,
            cosine,
            explanation: texts.get(&LatentId(latent)).cloned(),
        });
        let examples = self.examples.latent(latent)?;
        Ok(Some(LatentDetail {
            line: self.line(row, &texts),
            mean: row.stats.mean(),
            std: row.stats.std(),
            bottom_tokens: self.weights(&row.bottom_tokens),
            neighbours: neighbours.collect(),
            methods: self.methods(latent)?,
            top_examples: self.top_examples(&examples)?,
            levels: self.levels(row, &examples)?,
        }))
    }

    fn methods(&self, latent: LatentId) -> Result<Vec<MethodResult>> {
        let explanations = self.with_notes(|notes| notes.explanations_of(latent))?;
        let curves = self.with_notes(|notes| notes.curves_of(latent))?;
        let mut methods: BTreeMap<String, MethodResult> = BTreeMap::new();
        for (method, curves) in curves {
            let result = MethodResult {
                method: method.clone(),
                explanations: Vec::new(),
                scales: curves.scales,
                curves: curves.curves,
            };
            methods.insert(method, result);
        }
        for e in explanations {
            let result = methods.entry(e.method.clone()).or_insert_with(|| MethodResult {
                method: e.method,
                explanations: Vec::new(),
                scales: Vec::new(),
                curves: BTreeMap::new(),
            });
            let text = ExplanationText { text: e.text, scale: e.scale, score: e.score, abstained: e.abstained };
            result.explanations.push(text);
        }
        Ok(methods.into_values().collect())
    }

    fn top_examples(&self, examples: &[Example]) -> Result<Vec<ExampleText>> {
        let mut top: Vec<&Example> = examples.iter().filter(|e| e.kind == ExampleKind::Top).collect();
        top.sort_by(|a, b| b.value.total_cmp(&a.value).then(a.hash.cmp(&b.hash)));
        top.into_iter().map(|e| self.example_text(e)).collect()
    }

    fn levels(&self, row: &LatentRow, examples: &[Example]) -> Result<Vec<LevelDetail>> {
        let fired = row.stats.histogram.iter().enumerate().rev().filter(|(_, count)| **count > 0);
        fired
            .map(|(level, &count)| {
                let sampled =
                    examples.iter().filter(|e| e.kind == ExampleKind::Sample && usize::from(e.level) == level);
                Ok(LevelDetail {
                    level,
                    low: lower_edge(level),
                    high: upper_edge(level),
                    count,
                    share: count as f64 / row.stats.count.max(1) as f64,
                    examples: sampled.map(|e| self.example_text(e)).collect::<Result<_>>()?,
                })
            })
            .collect()
    }

    fn example_text(&self, example: &Example) -> Result<ExampleText> {
        let window = self.tokens.window_of(example.doc, example.window)?;
        let token_ids = window.map(|w| w.token_ids).unwrap_or_default();
        let (own, context) = (example.position as usize, example.values.len() / 2);
        let mut tokens = Vec::with_capacity(example.values.len());
        for (i, &value) in example.values.iter().enumerate() {
            // The values reach past the window's ends, the tokens do not.
            let at = (own + i).checked_sub(context);
            if let Some(&id) = at.and_then(|at| token_ids.get(at)) {
                tokens.push(ExampleToken { text: self.vocabulary.text(id), value, is_own: i == context });
            }
        }
        Ok(ExampleText {
            source: example.doc.source_idx(),
            record: example.doc.record_idx(),
            window: example.window,
            position: example.position,
            value: example.value,
            tokens,
        })
    }

    fn weights(&self, pairs: &[(u32, f32)]) -> Vec<TokenWeight> {
        pairs.iter().map(|&(id, logit)| TokenWeight { id, text: self.vocabulary.text(id), logit }).collect()
    }

    fn with_notes<T: Default>(&self, ask: impl FnOnce(&Notes) -> exegete_store::Result<T>) -> Result<T> {
        let Some(notes) = &self.notes else { return Ok(T::default()) };
        // Reading leaves nothing half done, so a thread that panicked here did no harm.
        let notes = notes.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(ask(&notes)?)
    }
}
