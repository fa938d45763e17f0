//! All that is known of a latent, gathered from the tables, the examples and what is said.

use std::collections::BTreeMap;

use exegete_base::levels::{N_LEVELS, lower_edge, upper_edge};
use exegete_base::{DocId, LatentId};
use exegete_store::groups::{Slice, intervals, quantiles, strongest};
use exegete_store::{Attribution, Example, ExampleKind, LatentRow, RANDOM, is_control};
use serde::Deserialize;

use crate::harvest::Harvest;
use crate::wire::{
    ExampleText, ExampleToken, ExplanationText, Group, Groups, LatentDetail, LevelDetail, LogitHistogram, MethodResult,
    Neuron, Profile, Related, SourceToken, TextScore, TokenShare, WholeContext,
};
use crate::{Result, WebError, columns};

/// Groups of a view.
const N_GROUPS: usize = 5;
/// Examples of a group of a view.
const EXAMPLES_A_GROUP: usize = 6;

/// Tokens that are told as the sources of a firing.
const SOURCES: usize = 5;

/// How random firings are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum View {
    Levels,
    Intervals,
    Quantiles,
}

impl View {
    pub(crate) const ALL: [(View, &'static str); 3] =
        [(View::Levels, "levels"), (View::Intervals, "intervals"), (View::Quantiles, "quantiles")];

    /// Name in the address.
    pub(crate) fn name(self) -> &'static str {
        View::ALL[self as usize].1
    }

    pub(crate) fn of(name: &str) -> View {
        View::ALL.iter().find(|(_, of)| *of == name).map_or(View::Levels, |(view, _)| *view)
    }
}

/// What is asked of a latent, as it stands in the address.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct LatentQuery {
    /// The dictionary; empty for the first.
    pub(crate) dictionary: String,
    /// How random firings are shown; anything unknown is by levels.
    pub(crate) view: String,
}

impl LatentQuery {
    pub(crate) fn view(&self) -> View {
        View::of(&self.view)
    }
}

/// Which firing's whole window is asked for.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct ContextQuery {
    pub(crate) dictionary: String,
    pub(crate) latent: String,
    pub(crate) source: String,
    pub(crate) record: String,
    pub(crate) window: String,
    pub(crate) position: String,
}

/// All that is known of a latent.
pub(crate) fn detail(harvest: &Harvest, row: &LatentRow, view: View) -> Result<LatentDetail> {
    let latent = row.latent;
    let examples = harvest.examples().latent(latent)?;
    let is_bookmarked = harvest.with_notes(|notes| notes.is_bookmarked(latent))?;
    Ok(LatentDetail {
        line: harvest.line(row, harvest.text_of(latent)?, is_bookmarked),
        dictionary: harvest.named().name.clone(),
        mean: row.stats.mean(),
        std: row.stats.std(),
        bottom_tokens: harvest.weights(&row.bottom_tokens),
        neighbours: related(harvest, &row.neighbours)?,
        profile: profile(harvest, row)?,
        problems: harvest.problems().to_vec(),
        methods: methods(harvest, latent)?,
        scores: scores(harvest, latent)?,
        label: harvest.with_notes(|notes| notes.label_of(latent))?,
        notes: harvest.with_notes(|notes| notes.notes_of(latent))?,
        top_examples: top_examples(harvest, latent, &examples)?,
        levels: levels(harvest, row, &examples, view == View::Levels)?,
        groups: groups(harvest, row, &examples, view)?,
    })
}

/// A firing with all tokens of its window.
///
/// # Errors
/// [`WebError::Absent`] if it is no example of the latent.
pub(crate) fn context(harvest: &Harvest, query: &ContextQuery) -> Result<WholeContext> {
    let absent = || WebError::Absent("There is no such example of this latent.".into());
    let number = |text: &str| text.parse::<u64>().ok();
    let small = |text: &str| text.parse::<u32>().ok();
    let (Some(latent), Some(source), Some(record), Some(window), Some(position)) = (
        small(&query.latent),
        small(&query.source),
        number(&query.record),
        small(&query.window),
        small(&query.position),
    ) else {
        return Err(absent());
    };
    let row = harvest.row(LatentId(latent)).ok_or_else(absent)?;
    let is_it = |e: &&Example| {
        (e.doc.source_idx(), e.doc.record_idx(), e.window, e.position) == (source, record, window, position)
    };
    let examples = harvest.examples().latent(LatentId(latent))?;
    let example = examples.iter().find(is_it).ok_or_else(absent)?;
    let example = example_text(harvest, example, true)?;
    Ok(WholeContext { latent, max: row.stats.max, example })
}

fn related(harvest: &Harvest, pairs: &[(u32, f32)]) -> Result<Vec<Related>> {
    let of =
        |&(latent, value): &(u32, f32)| Ok(Related { latent, value, explanation: harvest.text_of(LatentId(latent))? });
    pairs.iter().map(of).collect()
}

fn profile(harvest: &Harvest, row: &LatentRow) -> Result<Profile> {
    let of = &row.profile;
    let neurons = |pairs: &[(u32, f32)]| pairs.iter().map(|&(neuron, value)| Neuron { neuron, value }).collect();
    let token = |&(id, share): &(u32, f32)| TokenShare { id, text: harvest.vocabulary().text(id), share };
    let [low, high] = of.logit_ends;
    Ok(Profile {
        cofiring: related(harvest, &of.cofiring)?,
        correlated_latents: related(harvest, &of.correlated_latents)?,
        correlated_neurons: neurons(&of.correlated_neurons),
        aligned_neurons: neurons(&of.aligned_neurons),
        decoder_l1: of.decoder_l1,
        decoder_norm: of.decoder_norm,
        fired_tokens: of.fired_tokens.iter().map(token).collect(),
        n_sampled: of.n_sampled,
        distinct_tokens: of.distinct_tokens,
        positions: row.stats.positions.to_vec(),
        position_information: of.position_information,
        position_share: columns::position_share(row),
        is_positional: columns::is_positional(row),
        logits: (!of.logit_histogram.is_empty() && low < high).then(|| LogitHistogram {
            low,
            high,
            counts: of.logit_histogram.clone(),
        }),
    })
}

fn methods(harvest: &Harvest, latent: LatentId) -> Result<Vec<MethodResult>> {
    let explanations = harvest.with_notes(|notes| notes.explanations_of(latent))?;
    let curves = harvest.with_notes(|notes| notes.curves_of(latent))?;
    let mut methods: BTreeMap<String, MethodResult> = BTreeMap::new();
    let named = |method: &str| MethodResult {
        method: method.into(),
        explanations: Vec::new(),
        scales: Vec::new(),
        curves: BTreeMap::new(),
    };
    for (method, curves) in curves.into_iter().filter(|(method, _)| method != RANDOM) {
        let result = MethodResult { scales: curves.scales, curves: curves.curves, ..named(&method) };
        methods.insert(method, result);
    }
    // What is said of random directions is a control of scores, and nobody's explanation.
    for e in explanations.into_iter().filter(|e| e.method != RANDOM) {
        let result = methods.entry(e.method.clone()).or_insert_with(|| named(&e.method));
        let (rank, scale, score) = (e.rank, e.scale, e.score);
        result.explanations.push(ExplanationText { rank, text: e.text, scale, score, abstained: e.abstained });
    }
    Ok(methods.into_values().collect())
}

/// Scores by text, the text first that stands highest among all by its scorers, controls last.
fn scores(harvest: &Harvest, latent: LatentId) -> Result<Vec<TextScore>> {
    let scores = harvest.with_notes(|notes| notes.scores_of(latent))?;
    // Scorers have values of different kinds, so places count and not values: the share of the texts that a text is better than.
    let mut columns: BTreeMap<[&str; 3], Vec<(&str, f64)>> = BTreeMap::new();
    for s in scores.iter().filter(|s| !is_control(&s.against) && s.value.value.is_finite()) {
        columns.entry([&s.scorer, &s.against, &s.judge]).or_default().push((&s.text, s.value.value));
    }
    let mut places: BTreeMap<String, (f64, u32)> = BTreeMap::new();
    for column in columns.values() {
        for (text, value) in column {
            let below = column.iter().filter(|(_, other)| other < value).count() as f64;
            let same = column.iter().filter(|(_, other)| other == value).count() as f64;
            let place = places.entry((*text).to_owned()).or_default();
            *place = (place.0 + (below + 0.5 * same) / column.len() as f64, place.1 + 1);
        }
    }
    let mean = |text: &str| places.get(text).map_or(f64::NEG_INFINITY, |(sum, n)| sum / f64::from(*n));
    let mut told: Vec<TextScore> = scores
        .into_iter()
        .map(|s| TextScore {
            text: s.text,
            scorer: s.scorer,
            against: s.against,
            judge: s.judge,
            value: s.value.value,
            low: s.value.low,
            high: s.value.high,
            n: s.value.n,
            failed: s.failed,
            chance: s.chance,
        })
        .collect();
    told.sort_by(|a, b| {
        let is_its = |score: &TextScore| is_control(&score.against);
        let by_text = mean(&b.text).total_cmp(&mean(&a.text)).then_with(|| a.text.cmp(&b.text));
        is_its(a).cmp(&is_its(b)).then(by_text).then_with(|| (&a.scorer, &a.against).cmp(&(&b.scorer, &b.against)))
    });
    Ok(told)
}

fn top_examples(harvest: &Harvest, latent: LatentId, examples: &[Example]) -> Result<Vec<ExampleText>> {
    let attributions = harvest.attributions().map_or(Ok(Vec::new()), |reader| reader.latent(latent))?;
    let text = |e: &Example| {
        let of = attributions.iter().find(|of| of.is_of(e));
        let sources = of.map_or(Ok(Vec::new()), |of| sources(harvest, of))?;
        Ok(ExampleText { sources, ..example_text(harvest, e, false)? })
    };
    strongest(examples).into_iter().map(text).collect()
}

/// The tokens that add or take most.
fn sources(harvest: &Harvest, of: &Attribution) -> Result<Vec<SourceToken>> {
    let window = harvest.tokens().window_of(of.doc, of.window)?;
    let token_ids = window.map(|w| w.token_ids).unwrap_or_default();
    let all = of.values.iter().zip(&token_ids).enumerate();
    let source = |(position, (value, id)): (usize, (&f32, &u32))| SourceToken {
        position: position as u32,
        text: harvest.vocabulary().text(*id),
        value: *value,
    };
    let mut sources: Vec<SourceToken> = all.map(source).collect();
    sources.sort_by(|a, b| b.value.abs().total_cmp(&a.value.abs()).then(a.position.cmp(&b.position)));
    sources.truncate(SOURCES);
    Ok(sources)
}

/// The random firings, in the order of their hashes within a level.
fn sampled(examples: &[Example]) -> Vec<&Example> {
    examples.iter().filter(|e| e.kind == ExampleKind::Sample && usize::from(e.level) < N_LEVELS).collect()
}

fn levels(harvest: &Harvest, row: &LatentRow, examples: &[Example], with_examples: bool) -> Result<Vec<LevelDetail>> {
    let sampled = sampled(examples);
    let fired = row.stats.histogram.iter().enumerate().rev().filter(|(_, count)| **count > 0);
    fired
        .map(|(level, &count)| {
            let of_level = sampled.iter().filter(|e| with_examples && usize::from(e.level) == level);
            Ok(LevelDetail {
                level,
                // What is weaker than all levels is in the lowest, and what is stronger in the highest.
                low: if level == 0 { 0.0 } else { lower_edge(level) },
                high: if level + 1 == N_LEVELS { row.stats.max.max(lower_edge(level)) } else { upper_edge(level) },
                count,
                share: count as f64 / row.stats.count.max(1) as f64,
                examples: of_level.map(|e| example_text(harvest, e, false)).collect::<Result<_>>()?,
            })
        })
        .collect()
}

fn groups(harvest: &Harvest, row: &LatentRow, examples: &[Example], view: View) -> Result<Option<Groups>> {
    let slices = match view {
        View::Levels => return Ok(None),
        View::Intervals => intervals(row, examples, N_GROUPS, EXAMPLES_A_GROUP),
        View::Quantiles => quantiles(row, examples, N_GROUPS, EXAMPLES_A_GROUP),
    };
    let group = |slice: Slice| {
        let shown = slice.examples.iter().map(|e| example_text(harvest, e, false));
        let (low, high) = (slice.low as f32, slice.high as f32);
        Ok(Group { low, high, share: slice.share, examples: shown.collect::<Result<_>>()? })
    };
    let groups = slices.into_iter().map(group).collect::<Result<_>>()?;
    Ok(Some(Groups { kind: view.name().into(), n_sampled: examples.len(), groups }))
}

/// A firing with the tokens around it, or with all tokens of its window. Values further away than what was kept are not known.
pub(crate) fn example_text(harvest: &Harvest, example: &Example, is_whole: bool) -> Result<ExampleText> {
    let window = harvest.tokens().window_of(example.doc, example.window)?;
    let token_ids = window.map(|w| w.token_ids).unwrap_or_default();
    let (own, reach) = (example.position as usize, example.values.len() / 2);
    let (from, to) = match is_whole {
        true => (0, token_ids.len()),
        false => (own.saturating_sub(reach), (own + example.values.len() - reach).min(token_ids.len())),
    };
    let token = |at: usize| {
        let value = (at + reach).checked_sub(own).and_then(|i| example.values.get(i)).copied();
        ExampleToken { text: harvest.vocabulary().text(token_ids[at]), value, is_own: at == own }
    };
    let doc: DocId = example.doc;
    Ok(ExampleText {
        source: doc.source_idx(),
        record: doc.record_idx(),
        window: example.window,
        position: example.position,
        value: example.value,
        tokens: (from..to).map(token).collect(),
        sources: Vec::new(),
    })
}
