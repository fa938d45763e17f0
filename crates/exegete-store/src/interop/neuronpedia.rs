//! Neuronpedia's upload request (`POST /api/feature/upload-batch`) with its limits.

use std::collections::{BTreeSet, HashSet};

use serde_json::{Map, Value, json};

use super::cursor::{At, Fault};
use super::{Bin, Feature, Origin, Said, Sequence};

/// Features of a request, at most.
pub const MOST_FEATURES: usize = 128;
/// Tokens of a list of logits, at most.
pub const MOST_LOGITS: usize = 20;
/// Tokens of a text, at most.
pub const MOST_TOKENS: usize = 1024;
/// Characters of an explanation, at most, counted as JavaScript does.
pub const MOST_CHARACTERS: usize = 512;
/// Largest index of a feature.
pub const MOST_INDEX: u64 = 10_000_000;

/// What of features was given up to keep the limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GivenUp {
    /// Features without a text that they are active on.
    pub features: u64,
    /// Texts that are too long.
    pub sequences: u64,
    /// Explanations that were cut.
    pub cut_explanations: u64,
    /// Tokens of lists of logits.
    pub logits: u64,
}

/// A feature brought within the limits; `None`, and counted, where nothing is left.
pub fn fitted(mut feature: Feature, given_up: &mut GivenUp) -> Option<Feature> {
    let n_sequences = feature.sequences.len();
    feature.sequences.retain(|s| (1..=MOST_TOKENS).contains(&s.tokens.len()));
    given_up.sequences += (n_sequences - feature.sequences.len()) as u64;
    for logits in [&mut feature.top_logits, &mut feature.bottom_logits] {
        given_up.logits += logits.len().saturating_sub(MOST_LOGITS) as u64;
        logits.truncate(MOST_LOGITS);
    }
    feature.explanations.retain(|said| !said.text.is_empty());
    for said in &mut feature.explanations {
        if said.text.encode_utf16().count() > MOST_CHARACTERS {
            said.text = cut(&said.text);
            given_up.cut_explanations += 1;
        }
    }
    if feature.sequences.is_empty() || u64::from(feature.index) > MOST_INDEX {
        given_up.features += 1;
        return None;
    }
    Some(feature)
}

/// The beginning of a text, with a sign that it goes on.
fn cut(text: &str) -> String {
    let mut units = 1;
    let fits = |c: &char| {
        units += c.len_utf16();
        units <= MOST_CHARACTERS
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// A request as a document. Features are expected to be within the limits.
pub fn write(origin: &Origin, features: &[Feature]) -> Value {
    json!({
        "modelId": origin.model,
        "source": origin.source(),
        "features": features.iter().map(feature_document).collect::<Vec<_>>(),
    })
}

fn feature_document(feature: &Feature) -> Value {
    let mut out = Map::new();
    out.insert("index".into(), json!(feature.index));
    if let Some(density) = feature.density {
        out.insert("density".into(), json!(decimal(density)));
    }
    for (name, logits) in [("topLogits", &feature.top_logits), ("bottomLogits", &feature.bottom_logits)] {
        if !logits.is_empty() {
            let list = logits.iter().map(|(token, value)| json!({ "token": token, "value": value }));
            out.insert(name.into(), list.collect());
        }
    }
    if !feature.explanations.is_empty() {
        out.insert("explanations".into(), feature.explanations.iter().map(said_document).collect());
    }
    out.insert("activations".into(), feature.sequences.iter().map(sequence_document).collect());
    Value::Object(out)
}

/// A number with 12 digits, which every reader of JSON takes for the same.
fn decimal(x: f64) -> f64 {
    format!("{x:.11e}").parse().unwrap_or(x)
}

fn said_document(said: &Said) -> Value {
    let mut out = Map::new();
    out.insert("text".into(), json!(said.text));
    let names = [("methodName", &said.method), ("modelName", &said.model)];
    out.extend(names.into_iter().filter_map(|(key, name)| Some((key.into(), json!(name.as_ref()?)))));
    Value::Object(out)
}

fn sequence_document(sequence: &Sequence) -> Value {
    let mut out = Map::new();
    out.insert("tokens".into(), json!(sequence.tokens));
    out.insert("values".into(), json!(sequence.values));
    let bin = sequence.bin;
    // The strongest are in no interval: an edge of -1 says so in other formats, and would be an edge here.
    let stands_for_top = bin.is_top() && bin.share == Some(-1.0);
    for (key, number) in [("quantileMin", bin.min), ("quantileMax", bin.max), ("quantileFraction", bin.share)] {
        if let Some(number) = number.filter(|_| !stands_for_top) {
            out.insert(key.into(), json!(decimal(number)));
        }
    }
    Value::Object(out)
}

/// Checks a document against the schema of the request.
///
/// # Errors
/// The first violation, with its place.
pub fn validate(document: &Value) -> Result<(), Fault> {
    read(document).map(drop)
}

/// Reads a request: where it is from, its features, and the keys that were passed over.
///
/// # Errors
/// The first violation, with its place.
pub fn read(document: &Value) -> Result<(Origin, Vec<Feature>, BTreeSet<String>), Fault> {
    let root = At::root(document);
    let (model, source) = (name(&root.get("modelId")?)?, name(&root.get("source")?)?);
    let list = root.get("features")?;
    let places = list.list()?;
    bounded(&list, places.len(), 1, MOST_FEATURES, "features")?;
    let (mut seen, mut features) = (HashSet::new(), Vec::new());
    let mut passed_over = BTreeSet::new();
    pass_over(&root, &["modelId", "source", "features"], "", &mut passed_over)?;
    for at in places {
        let feature = feature(&at, &mut passed_over)?;
        if !seen.insert(feature.index) {
            return Err(at.get("index")?.fault(format!("is {}, which another feature has", feature.index)));
        }
        features.push(feature);
    }
    Ok((Origin::of_source(&model, &source), features, passed_over))
}

fn pass_over(at: &At, known: &[&str], place: &str, passed_over: &mut BTreeSet<String>) -> Result<(), Fault> {
    passed_over.extend(at.keys()?.filter(|key| !known.contains(key)).map(|key| format!("{place}{key}")));
    Ok(())
}

fn name(at: &At) -> Result<String, Fault> {
    let text = at.text()?;
    if text.is_empty() || text.chars().any(|c| c.is_uppercase() || c.is_whitespace() || c.is_control()) {
        return Err(at.fault(format!("is {text:?}; it must be in lower case, without spaces, and not empty")));
    }
    Ok(text.into())
}

fn bounded(at: &At, n: usize, least: usize, most: usize, what: &str) -> Result<(), Fault> {
    if (least..=most).contains(&n) {
        Ok(())
    } else {
        Err(at.fault(format!("has {n} {what}; {least} to {most} are allowed")))
    }
}

fn share(at: &At) -> Result<f64, Fault> {
    let share = at.number()?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(at.fault(format!("is {share}; it must be from 0 to 1"))) }
}

fn feature(at: &At, passed_over: &mut BTreeSet<String>) -> Result<Feature, Fault> {
    let known = ["index", "density", "topLogits", "bottomLogits", "explanations", "activations"];
    pass_over(at, &known, "features[].", passed_over)?;
    let index = at.get("index")?.whole(MOST_INDEX)? as u32;
    let mut explanations = Vec::new();
    for at in at.find("explanations")?.map_or(Ok(Vec::new()), |at| at.list())? {
        pass_over(&at, &["text", "methodName", "modelName"], "features[].explanations[].", passed_over)?;
        explanations.push(said(&at)?);
    }
    let list = at.get("activations")?;
    let places = list.list()?;
    bounded(&list, places.len(), 1, usize::MAX, "texts")?;
    let mut sequences = Vec::new();
    for at in &places {
        let known = ["tokens", "values", "quantileMin", "quantileMax", "quantileFraction"];
        pass_over(at, &known, "features[].activations[].", passed_over)?;
        sequences.push(sequence(at)?);
    }
    Ok(Feature {
        index,
        density: at.find("density")?.map(|at| share(&at)).transpose()?,
        top_logits: logits(at, "topLogits")?,
        bottom_logits: logits(at, "bottomLogits")?,
        explanations,
        sequences,
        ..Feature::default()
    })
}

fn logits(at: &At, key: &str) -> Result<Vec<(String, f32)>, Fault> {
    let Some(list) = at.find(key)? else { return Ok(Vec::new()) };
    let places = list.list()?;
    bounded(&list, places.len(), 0, MOST_LOGITS, "tokens")?;
    places.iter().map(|at| Ok((at.get("token")?.text()?.to_owned(), at.get("value")?.float()?))).collect()
}

fn said(at: &At) -> Result<Said, Fault> {
    let text = at.get("text")?;
    let words = text.text()?;
    bounded(&text, words.encode_utf16().count(), 1, MOST_CHARACTERS, "characters")?;
    let named = |key: &str| at.find(key)?.map(|at| at.text().map(str::to_owned)).transpose();
    Ok(Said { text: words.into(), method: named("methodName")?, model: named("modelName")? })
}

fn sequence(at: &At) -> Result<Sequence, Fault> {
    let (tokens, values) = (at.get("tokens")?, at.get("values")?);
    let texts = tokens.texts()?;
    bounded(&tokens, texts.len(), 1, MOST_TOKENS, "tokens")?;
    let numbers = values.floats()?;
    if numbers.len() != texts.len() {
        return Err(values.fault(format!("has {} numbers for {} tokens", numbers.len(), texts.len())));
    }
    let edge = |key: &str| at.find(key)?.map(|at| at.number()).transpose();
    let bin = Bin {
        min: edge("quantileMin")?,
        max: edge("quantileMax")?,
        share: at.find("quantileFraction")?.map(|at| share(&at)).transpose()?,
    };
    Ok(Sequence { tokens: texts, values: numbers, at: None, bin, dfa: None })
}
