//! SAEDashboard's batches: `batch-N.json`, which Neuronpedia's importer reads too.
//!
//! Floats have 5 decimals. The strongest firings come first, with -1 for the lower edge and the share of their bin; the others
//! stand in intervals of equal length from 0 to the largest activation, the highest first.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::cursor::{At, Fault};
use super::{Bars, Bin, Dfa, Feature, Ground, Origin, Related, Sequence};

/// Features of a file.
pub const BATCH: usize = 128;
/// Largest index of a feature.
pub const MOST_INDEX: u64 = 10_000_000;
/// Tokens of a sequence, at most: many times what the formats' programs write.
pub const MOST_TOKENS: usize = 1 << 16;

const BATCH_KEYS: [&str; 5] = ["model_id", "layer", "sae_set", "sae_id_suffix", "features"];
const FEATURE_KEYS: [&str; 25] = [
    "feature_index",
    "vector",
    "neuron_alignment_indices",
    "neuron_alignment_values",
    "neuron_alignment_l1",
    "correlated_neurons_indices",
    "correlated_neurons_pearson",
    "correlated_neurons_l1",
    "correlated_features_indices",
    "correlated_features_pearson",
    "correlated_features_l1",
    "neg_str",
    "neg_values",
    "pos_str",
    "pos_values",
    "frac_nonzero",
    "freq_hist_data_bar_values",
    "freq_hist_data_bar_heights",
    "logits_hist_data_bar_values",
    "logits_hist_data_bar_heights",
    "n_prompts_total",
    "n_tokens_in_prompt",
    "dataset",
    "decoder_weights_dist",
    "activations",
];
const SEQUENCE_KEYS: [&str; 9] = [
    "bin_min",
    "bin_max",
    "bin_contains",
    "tokens",
    "values",
    "qualifying_token_index",
    "dfa_values",
    "dfa_maxValue",
    "dfa_targetIndex",
];
/// The prefixes of the three lists of others, and the name of their values.
const RELATED: [(&str, &str); 3] =
    [("neuron_alignment", "values"), ("correlated_neurons", "pearson"), ("correlated_features", "pearson")];

/// A batch as a document.
pub fn write(origin: &Origin, features: &[Feature]) -> Value {
    let mut batch = Map::new();
    batch.insert("model_id".into(), json!(origin.model));
    batch.insert("layer".into(), origin.layer.clone());
    batch.insert("sae_set".into(), json!(origin.set));
    if let Some(suffix) = &origin.suffix {
        batch.insert("sae_id_suffix".into(), json!(suffix));
    }
    batch.insert("features".into(), features.iter().map(feature_document).collect());
    Value::Object(batch)
}

/// A number with 5 decimals.
fn rounded(x: f64) -> f64 {
    // Adding zero makes the negative zero a plain one.
    if x.abs() < 1e10 { (x * 1e5).round() / 1e5 + 0.0 } else { x }
}

fn floats(numbers: impl IntoIterator<Item = f64>) -> Value {
    numbers.into_iter().map(rounded).collect()
}

/// Counts are whole, and written so.
fn counts(numbers: &[f64]) -> Value {
    numbers.iter().map(|&x| whole_or(x)).collect()
}

fn whole_or(x: f64) -> Value {
    if x.fract() == 0.0 && x.abs() < 9e15 { json!(x as i64) } else { json!(rounded(x)) }
}

fn feature_document(feature: &Feature) -> Value {
    let mut out = Map::new();
    let mut put = |key: &str, value: Value| out.insert(key.into(), value);
    put("feature_index", json!(feature.index));
    if !feature.vector.is_empty() {
        put("vector", floats(feature.vector.iter().copied()));
    }
    let related = [&feature.aligned_neurons, &feature.correlated_neurons, &feature.correlated_latents];
    for ((name, values), related) in RELATED.into_iter().zip(related) {
        put(&format!("{name}_indices"), json!(related.indices));
        put(&format!("{name}_{values}"), floats(related.values.iter().map(|v| f64::from(*v))));
        put(&format!("{name}_l1"), floats(related.l1.iter().copied()));
    }
    for (name, logits) in [("neg", &feature.bottom_logits), ("pos", &feature.top_logits)] {
        put(&format!("{name}_str"), logits.iter().map(|(token, _)| token.as_str()).collect());
        put(&format!("{name}_values"), floats(logits.iter().map(|(_, logit)| f64::from(*logit))));
    }
    if let Some(density) = feature.density {
        put("frac_nonzero", json!(rounded(density)));
    }
    for (name, bars) in [("freq_hist", &feature.firings), ("logits_hist", &feature.logits)] {
        put(&format!("{name}_data_bar_values"), floats(bars.values.iter().copied()));
        put(&format!("{name}_data_bar_heights"), counts(&bars.heights));
    }
    let ground = &feature.ground;
    if let Some(n) = ground.n_prompts {
        put("n_prompts_total", json!(n));
    }
    if let Some(n) = ground.tokens_in_prompt {
        put("n_tokens_in_prompt", json!(n));
    }
    if let Some(dataset) = &ground.dataset {
        put("dataset", json!(dataset));
    }
    put("decoder_weights_dist", floats(feature.decoder_norms.iter().copied()));
    let max = feature.sequences.iter().flat_map(|s| &s.values).fold(0f32, |m, v| m.max(*v));
    put("activations", feature.sequences.iter().map(|s| sequence_document(s, f64::from(max))).collect());
    Value::Object(out)
}

fn sequence_document(sequence: &Sequence, max: f64) -> Value {
    let mut out = Map::new();
    let edge = |x: Option<f64>| x.map_or(Value::Null, |x| if x == -1.0 { json!(-1) } else { json!(rounded(x)) });
    let bin = match sequence.bin {
        bin if bin.is_top() => Bin { min: Some(-1.0), max: bin.max.or(Some(max)), share: Some(-1.0) },
        bin => bin,
    };
    out.insert("bin_min".into(), edge(bin.min));
    out.insert("bin_max".into(), edge(bin.max));
    out.insert("bin_contains".into(), edge(bin.share));
    out.insert("tokens".into(), json!(sequence.tokens));
    out.insert("values".into(), floats(sequence.values.iter().map(|v| f64::from(*v))));
    out.insert("qualifying_token_index".into(), json!(sequence.at.map_or(-1, i64::from)));
    if let Some(dfa) = &sequence.dfa {
        out.insert("dfa_values".into(), floats(dfa.values.iter().copied()));
        if let Some(max) = dfa.max {
            out.insert("dfa_maxValue".into(), json!(rounded(max)));
        }
        if let Some(target) = dfa.target {
            out.insert("dfa_targetIndex".into(), json!(target));
        }
    }
    Value::Object(out)
}

/// Reads a batch: where it is from, its features, and the keys that were passed over.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn read(document: &Value) -> Result<(Origin, Vec<Feature>, BTreeSet<String>), Fault> {
    let root = At::root(document);
    let text = |key: &str| root.find(key)?.map(|at| at.text().map(str::to_owned)).transpose();
    let layer = match root.find("layer")? {
        Some(at) => at.whole(u64::from(u32::MAX)).map(Value::from).or_else(|_| at.text().map(Value::from))?,
        None => Value::Null,
    };
    let origin = Origin {
        model: text("model_id")?.unwrap_or_default(),
        layer,
        set: text("sae_set")?.unwrap_or_default(),
        suffix: text("sae_id_suffix")?,
    };
    let mut passed_over = BTreeSet::new();
    pass_over(&root, &BATCH_KEYS, "", &mut passed_over)?;
    let mut features = Vec::new();
    for at in root.get("features")?.list()? {
        features.push(feature(&at, &mut passed_over)?);
    }
    Ok((origin, features, passed_over))
}

fn pass_over(at: &At, known: &[&str], place: &str, passed_over: &mut BTreeSet<String>) -> Result<(), Fault> {
    passed_over.extend(at.keys()?.filter(|key| !known.contains(key)).map(|key| format!("{place}{key}")));
    Ok(())
}

fn feature(at: &At, passed_over: &mut BTreeSet<String>) -> Result<Feature, Fault> {
    pass_over(at, &FEATURE_KEYS, "features[].", passed_over)?;
    let index = at.get("feature_index")?.whole(MOST_INDEX)? as u32;
    let mut sequences = Vec::new();
    if let Some(list) = at.find("activations")? {
        for at in list.list()? {
            pass_over(&at, &SEQUENCE_KEYS, "features[].activations[].", passed_over)?;
            sequences.push(sequence(&at)?);
        }
    }
    Ok(Feature { index, sequences, ..numbers_of(at)? })
}

/// A feature's numbers, without its index and its texts: Neuronpedia's rows have them under the same names.
pub(super) fn numbers_of(at: &At) -> Result<Feature, Fault> {
    let numbers = |key: &str| at.find(key)?.map_or(Ok(Vec::new()), |at| at.numbers());
    let whole = |key: &str| at.find(key)?.map(|at| at.whole(u64::MAX)).transpose();
    Ok(Feature {
        density: at.find("frac_nonzero")?.map(|at| share(&at)).transpose()?,
        top_logits: logits(at, "pos")?,
        bottom_logits: logits(at, "neg")?,
        firings: bars(at, "freq_hist")?,
        logits: bars(at, "logits_hist")?,
        aligned_neurons: related(at, RELATED[0])?,
        correlated_neurons: related(at, RELATED[1])?,
        correlated_latents: related(at, RELATED[2])?,
        decoder_norms: numbers("decoder_weights_dist")?,
        vector: numbers("vector")?,
        ground: Ground {
            n_prompts: whole("n_prompts_total")?,
            tokens_in_prompt: whole("n_tokens_in_prompt")?,
            dataset: at.find("dataset")?.map(|at| at.text().map(str::to_owned)).transpose()?,
        },
        ..Feature::default()
    })
}

fn share(at: &At) -> Result<f64, Fault> {
    let share = at.number()?;
    if (0.0..=1.0).contains(&share) { Ok(share) } else { Err(at.fault(format!("is {share}, a share is from 0 to 1"))) }
}

/// A list that must be as long as another.
fn as_long(at: &At, key: &str, n: usize, of: &str) -> Result<Vec<f32>, Fault> {
    let values = at.find(key)?.map_or(Ok(Vec::new()), |at| at.floats())?;
    if values.len() == n {
        return Ok(values);
    }
    let fault = at.fault("");
    let key = if fault.key.is_empty() { key.into() } else { format!("{}.{key}", fault.key) };
    Err(Fault { key, problem: format!("has {} numbers for {n} {of}", values.len()) })
}

fn logits(at: &At, name: &str) -> Result<Vec<(String, f32)>, Fault> {
    let tokens = at.find(&format!("{name}_str"))?.map_or(Ok(Vec::new()), |at| at.texts())?;
    let values = as_long(at, &format!("{name}_values"), tokens.len(), "tokens")?;
    Ok(tokens.into_iter().zip(values).collect())
}

fn bars(at: &At, name: &str) -> Result<Bars, Fault> {
    let list = |end: &str| at.find(&format!("{name}_data_bar_{end}"))?.map_or(Ok(Vec::new()), |at| at.numbers());
    let bars = Bars { values: list("values")?, heights: list("heights")? };
    if bars.values.len() != bars.heights.len() {
        let problem = format!("has {} heights for {} bars", bars.heights.len(), bars.values.len());
        return Err(At::fault(&at.get(&format!("{name}_data_bar_heights"))?, problem));
    }
    Ok(bars)
}

fn related(at: &At, (name, values): (&str, &str)) -> Result<Related, Fault> {
    let indices = at.find(&format!("{name}_indices"))?.map_or(Ok(Vec::new()), |at| at.wholes(u64::from(u32::MAX)))?;
    let l1 = at.find(&format!("{name}_l1"))?.map_or(Ok(Vec::new()), |at| at.numbers())?;
    if !l1.is_empty() && l1.len() != indices.len() {
        return Err(at.get(&format!("{name}_l1"))?.fault(format!(
            "has {} numbers for {} indices",
            l1.len(),
            indices.len()
        )));
    }
    let values = as_long(at, &format!("{name}_{values}"), indices.len(), "indices")?;
    Ok(Related { indices: indices.into_iter().map(|i| i as u32).collect(), values, l1 })
}

fn sequence(at: &At) -> Result<Sequence, Fault> {
    let number = |key: &str| at.find(key)?.map(|at| at.number()).transpose();
    let tokens = at.get("tokens")?;
    let texts = tokens.texts()?;
    if texts.is_empty() || texts.len() > MOST_TOKENS {
        return Err(tokens.fault(format!("has {} tokens; a text has 1 to {MOST_TOKENS}", texts.len())));
    }
    let values = as_long(at, "values", texts.len(), "tokens")?;
    // -1 stands for none.
    let own = match at.find("qualifying_token_index")? {
        Some(place) => match place.signed()? {
            -1 => None,
            i => Some(
                u32::try_from(i)
                    .ok()
                    .filter(|i| (*i as usize) < texts.len())
                    .ok_or_else(|| place.fault(format!("is {i} in a text of {} tokens", texts.len())))?,
            ),
        },
        None => None,
    };
    let dfa = Dfa {
        values: at.find("dfa_values")?.map_or(Ok(Vec::new()), |at| at.numbers())?,
        max: number("dfa_maxValue")?,
        target: at.find("dfa_targetIndex")?.map(|at| at.signed()).transpose()?,
    };
    let has_dfa = at.find("dfa_values")?.is_some();
    Ok(Sequence {
        tokens: texts,
        values,
        at: own,
        bin: Bin { min: number("bin_min")?, max: number("bin_max")?, share: number("bin_contains")? },
        dfa: has_dfa.then_some(dfa),
    })
}
