//! Other programs' files: what is written can be read again without loss, and what is bad is told with its place.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use exegete_base::sampling::pair_hash;
use exegete_base::{DocId, LatentId};
use exegete_store::interop::bulk::Bulk;
use exegete_store::interop::delphi::{self, DelphiSettings};
use exegete_store::interop::neuronpedia::{self, GivenUp};
use exegete_store::interop::{
    Bars, Bin, Dfa, FORMATS, Feature, Ground, Grouping, Origin, Related, RunBuilder, RunSource, Said, Sequence,
    read_json, saedashboard,
};
use exegete_store::run::part_name;
use exegete_store::{
    AccumulatorSettings, Accumulators, Activation, ActivationReader, Curves, Explanation, LatentRow, Notes, Run,
    Window, read_activations, write_activations, write_atomic, write_examples, write_latents, write_vocab,
    write_windows,
};
use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use serde_json::{Value, json};

const N_LATENTS: u32 = 140;
const N_VOCAB: u64 = 90;

/// A run as a harvest leaves it: windows of several lengths, the last latent silent, hostile tokens, two explanations.
fn make_run(dir: &Path) -> Vec<Activation> {
    let settings = json!({ "model": "org/Tiny Model", "text": ["corpus.jsonl"], "site": "blocks.3.hook_resid_post" });
    let mut run = Run::create_or_resume(dir, "exegete test", settings, &[]).unwrap();
    let mut vocab: Vec<Vec<u8>> = (0..N_VOCAB).map(|i| format!(" word{i}").into_bytes()).collect();
    vocab[3] = b"</script>\"\n\0".to_vec();
    vocab[5] = vec![0xe2, 0x80];
    let windows: Vec<Window> = (0..60u64)
        .map(|doc| Window {
            doc: DocId::new(0, doc),
            window: 0,
            start: 0,
            token_ids: (0..40 + doc % 9).map(|t| (pair_hash(1, doc, t) % N_VOCAB) as u32).collect(),
        })
        .collect();
    run.commit_part(&part_name("tokens", 0), 60, |w| write_windows(w, &windows)).unwrap();
    run.commit_part("tokens/vocab.parquet", N_VOCAB, |w| write_vocab(w, &vocab)).unwrap();
    let mut state = Accumulators::new(N_LATENTS as usize, AccumulatorSettings::default());
    let mut all = Vec::new();
    for (row, window) in windows.iter().enumerate() {
        state.add_tokens(0..window.token_ids.len() as u32);
        for latent in 0..N_LATENTS - 1 {
            let fires = |t: &u32| pair_hash(u64::from(latent) + 7, window.doc.0, u64::from(*t)).is_multiple_of(30);
            let positions: Vec<u32> = (1..window.token_ids.len() as u32).filter(fires).collect();
            let strength = |t: &u32| {
                let draw = pair_hash(u64::from(latent) + 99, window.doc.0, u64::from(*t)) >> 40;
                0.01 + 9.0 * (draw as f32 / (1u64 << 24) as f32).powi(3)
            };
            let values: Vec<f32> = positions.iter().map(strength).collect();
            state.push_group(window, LatentId(latent), &positions, &values);
            let firing = |(p, v): (&u32, &f32)| Activation { row: row as u32, position: *p, latent, value: *v };
            all.extend(positions.iter().zip(&values).map(firing));
        }
    }
    let row = |latent: u32| {
        let pairs = |from: u32, sign: f32| {
            (0..10).map(|i| ((from + i) % N_VOCAB as u32, sign * (4.0 - i as f32 / 3.0))).collect()
        };
        let mut row = LatentRow::new(LatentId(latent), state.stats(LatentId(latent)), state.n_tokens());
        (row.top_tokens, row.bottom_tokens) = (pairs(latent, 1.0), pairs(latent + 20, -1.0));
        row.profile.aligned_neurons = vec![(4, -0.5), (2, 0.25), (latent, 0.125)];
        row.profile.correlated_neurons = vec![(7, 0.875), (8, -0.3)];
        row.profile.correlated_latents = vec![((latent + 1) % N_LATENTS, 1.0 / 3.0)];
        (row.profile.decoder_l1, row.profile.decoder_norm) = (4.0, 1.0);
        row.profile.logit_histogram = (0..50).map(|i| i * (latent + 1)).collect();
        row.profile.logit_ends = [-2.5, 4.25];
        row
    };
    let rows: Vec<LatentRow> = (0..N_LATENTS).map(row).collect();
    run.commit_part("latents.parquet", rows.len() as u64, |w| write_latents(w, &rows)).unwrap();
    let examples: Vec<_> = (0..N_LATENTS).flat_map(|latent| state.examples(LatentId(latent))).collect();
    run.commit_part(&part_name("examples", 0), examples.len() as u64, |w| write_examples(w, &examples)).unwrap();
    run.finish_stage("tokens", json!({ "windows": 60, "window_len": 48 })).unwrap();
    let mut notes = Notes::open(&dir.join("run.sqlite")).unwrap();
    let said = |text: &str, abstained: bool| Explanation {
        method: "self".into(),
        rank: 0,
        text: text.into(),
        scale: 1.0,
        score: 0.5,
        abstained,
        settings: json!({}),
    };
    let long = "ω".repeat(600);
    notes
        .put_explanations(LatentId(0), "self", &[said("ships", false), said(&long, false)], &Curves::default())
        .unwrap();
    notes.put_explanations(LatentId(1), "self", &[said("never mind", true)], &Curves::default()).unwrap();
    notes.put_explanations(LatentId(0), "another", &[said("harbours", false)], &Curves::default()).unwrap();
    all
}

fn origin() -> Origin {
    Origin { model: "tiny".into(), layer: json!(3), set: "exegete".into(), suffix: None }
}

/// All features of a run.
fn features(dir: &Path) -> Vec<Feature> {
    let source = RunSource::open(dir, None).unwrap();
    source.latents().iter().map(|row| source.feature(row, &Grouping::default()).unwrap()).collect()
}

/// Makes a run of features and gives those of the run.
fn through_a_run(dir: &Path, features: &[Feature]) -> Vec<Feature> {
    let run = Run::create_or_resume(dir, "exegete test", json!({ "command": "import" }), &[]).unwrap();
    let mut builder = RunBuilder::new(run);
    features.iter().for_each(|feature| builder.add(feature.clone()).unwrap());
    builder.finish(&origin(), json!({})).unwrap();
    self::features(dir)
}

#[test]
fn neuronpedia_comes_back_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    make_run(&dir.path().join("run"));
    let mut given_up = GivenUp::default();
    let all = features(&dir.path().join("run"));
    let fitted: Vec<Feature> = all.into_iter().filter_map(|f| neuronpedia::fitted(f, &mut given_up)).collect();
    assert_eq!(given_up, GivenUp { features: 1, cut_explanations: 1, ..GivenUp::default() });
    let requests: Vec<Value> =
        fitted.chunks(neuronpedia::MOST_FEATURES).map(|batch| neuronpedia::write(&origin(), batch)).collect();
    assert_eq!(requests.len(), 2, "139 features in requests of 128");
    let mut read = Vec::new();
    for request in &requests {
        neuronpedia::validate(request).unwrap();
        let text = serde_json::to_string(request).unwrap();
        let (from, features, passed_over) = neuronpedia::read(&serde_json::from_str(&text).unwrap()).unwrap();
        assert_eq!((from, passed_over.len()), (origin(), 0));
        read.extend(features);
    }
    let first = &requests[0]["features"][0];
    let texts: Vec<&str> =
        first["explanations"].as_array().unwrap().iter().map(|e| e["text"].as_str().unwrap()).collect();
    assert_eq!((texts[0], texts[1], texts[2].chars().count()), ("harbours", "ships", 512));
    assert!(requests[0]["features"][1].get("explanations").is_none(), "an abstention is no explanation");
    let again = through_a_run(&dir.path().join("again"), &read);
    for (i, request) in requests.iter().enumerate() {
        let batch = &again[i * 128..(i * 128 + 128).min(again.len())];
        assert!(neuronpedia::write(&origin(), batch) == *request, "request {i} has changed");
    }
}

#[test]
fn saedashboard_comes_back_as_it_was_and_its_bins_hold_their_values() {
    let dir = tempfile::tempdir().unwrap();
    make_run(&dir.path().join("run"));
    let all = features(&dir.path().join("run"));
    let batch = saedashboard::write(&origin(), &all);
    let text = serde_json::to_string(&batch).unwrap();
    let (from, read, passed_over) = saedashboard::read(&serde_json::from_str(&text).unwrap()).unwrap();
    assert_eq!((from, passed_over.len()), (origin(), 0));
    let again = through_a_run(&dir.path().join("again"), &read);
    assert!(saedashboard::write(&origin(), &again) == batch, "the batch has changed");

    let mut n_in_bins = 0;
    for feature in batch["features"].as_array().unwrap() {
        let number = |of: &Value, key: &str| of[key].as_f64().unwrap();
        let mut shares = BTreeMap::new();
        for sequence in feature["activations"].as_array().unwrap() {
            let own = sequence["qualifying_token_index"].as_u64().unwrap() as usize;
            let (value, low, high) =
                (sequence["values"][own].as_f64().unwrap(), number(sequence, "bin_min"), number(sequence, "bin_max"));
            if low == -1.0 {
                assert_eq!(number(sequence, "bin_contains"), -1.0);
                continue;
            }
            assert!((low..=high).contains(&value), "{value} in {low} to {high}");
            shares.insert(sequence["bin_min"].to_string(), number(sequence, "bin_contains"));
            n_in_bins += 1;
        }
        let total: f64 = shares.values().sum();
        assert!(total <= 1.0 + 1e-4, "shares of {} add up to {total}", feature["feature_index"]);
    }
    assert!(n_in_bins > 1000, "{n_in_bins} texts in intervals");
    let first = &batch["features"][0];
    assert_eq!(first["neuron_alignment_l1"], json!([0.125, 0.0625, 0.03125]));
    assert_eq!(first["logits_hist_data_bar_values"][0], json!(-2.4325));
    assert_eq!(first["n_prompts_total"], 60);
}

/// A feature with everything in it.
fn full_feature() -> Feature {
    let related = |l1: &[f64]| Related { indices: vec![3, 9], values: vec![0.5, -0.25], l1: l1.to_vec() };
    let sequence = |bin: Bin, at: Option<u32>, dfa: Option<Dfa>| Sequence {
        tokens: ["a", " b", "\u{202e}c", ""].map(String::from).to_vec(),
        values: vec![0.0, 1.5, -0.5, 0.25],
        at,
        bin,
        dfa,
    };
    let bin = Bin { min: Some(1.0), max: Some(2.0), share: Some(0.5) };
    let top = Bin { min: Some(-1.0), max: Some(1.5), share: Some(-1.0) };
    let dfa = Dfa { values: vec![0.1, 0.2], max: Some(0.2), target: Some(1) };
    Feature {
        index: 10_000_000,
        density: Some(0.125),
        top_logits: vec![("x".into(), 1.5)],
        bottom_logits: vec![(String::new(), -1.5)],
        explanations: vec![],
        sequences: vec![sequence(top, None, None), sequence(bin, Some(1), Some(dfa)), sequence(top, Some(3), None)],
        firings: Bars { values: vec![0.5, 1.0], heights: vec![3.0, 1.0] },
        logits: Bars { values: vec![-1.0, 0.5, 2.0], heights: vec![2.0, 2.0, 1.0] },
        aligned_neurons: related(&[0.5, 0.25]),
        correlated_neurons: related(&[]),
        correlated_latents: related(&[0.0, 0.0]),
        decoder_norms: vec![1.0, 0.5],
        vector: vec![0.25, -0.75, 0.0],
        ground: Ground { n_prompts: Some(7), tokens_in_prompt: Some(4), dataset: Some("corpus".into()) },
    }
}

#[test]
fn all_that_a_format_has_a_place_for_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let feature = full_feature();
    let document = saedashboard::write(&origin(), std::slice::from_ref(&feature));
    let (_, read, _) = saedashboard::read(&document).unwrap();
    assert_eq!(read, std::slice::from_ref(&feature));
    assert_eq!(through_a_run(&dir.path().join("a"), &read), read);
    // Explanations are in the other format only, and keep their order across methods.
    let said = |text: &str, method: Option<&str>, model: Option<&str>| Said {
        text: text.into(),
        method: method.map(str::to_owned),
        model: model.map(str::to_owned),
    };
    let explanations = vec![said("z", Some("m"), None), said("y", None, Some("gpt")), said("x", Some("m"), Some("b"))];
    let feature = Feature { explanations, ..feature };
    let (_, read, _) = neuronpedia::read(&neuronpedia::write(&origin(), &[feature])).unwrap();
    assert_eq!(through_a_run(&dir.path().join("b"), &read), read);
    assert_eq!(read[0].explanations.len(), 3);
}

/// Puts a value at a place of a document: `features/0/index`.
fn with(document: &Value, place: &str, value: Value) -> Value {
    let mut document = document.clone();
    *document.pointer_mut(&format!("/{place}")).unwrap() = value;
    document
}

#[test]
fn violations_of_the_schema_are_told_with_their_place() {
    let feature = Feature { explanations: vec![Said { text: "x".into(), ..Said::default() }], ..full_feature() };
    let good = neuronpedia::write(&origin(), &[feature.clone(), Feature { index: 1, ..feature }]);
    neuronpedia::validate(&good).unwrap();
    let long = |n: usize| json!(vec!["t"; n]);
    let cases = [
        ("modelId", json!("Tiny"), "modelId is \"Tiny\""),
        ("source", json!(""), "source is \"\""),
        ("features", json!([]), "features has 0 features"),
        ("features", json!(vec![good["features"][0].clone(); 129]), "features has 129 features"),
        ("features/1/index", json!(10_000_000), "features[1].index is 10000000, which another feature has"),
        ("features/0/index", json!(10_000_001), "features[0].index must be a whole number from 0 to 10000000"),
        ("features/0/index", json!("3"), "features[0].index must be a whole number"),
        ("features/0/density", json!(1.5), "features[0].density is 1.5"),
        (
            "features/0/topLogits",
            json!(vec![json!({"token": "a", "value": 1}); 21]),
            "features[0].topLogits has 21 tokens",
        ),
        ("features/0/topLogits/0/value", json!("1"), "features[0].topLogits[0].value must be a number"),
        ("features/0/explanations/0/text", json!(""), "features[0].explanations[0].text has 0 characters"),
        (
            "features/0/explanations/0/text",
            json!("😀".repeat(257)),
            "features[0].explanations[0].text has 514 characters",
        ),
        ("features/0/activations", json!([]), "features[0].activations has 0 texts"),
        ("features/0/activations/0/tokens", long(1025), "features[0].activations[0].tokens has 1025 tokens"),
        ("features/0/activations/0/tokens", long(3), "features[0].activations[0].values has 4 numbers for 3 tokens"),
        (
            "features/0/activations/0/values/2",
            Value::Null,
            "features[0].activations[0].values[2] must be a number, it is null",
        ),
        (
            "features/0/activations/0/values/2",
            json!(1e39),
            "features[0].activations[0].values[2] must be a number within",
        ),
        (
            "features/0/activations/1/quantileFraction",
            json!(1.25),
            "features[0].activations[1].quantileFraction is 1.25",
        ),
    ];
    for (place, value, expected) in cases {
        let told = neuronpedia::validate(&with(&good, place, value)).unwrap_err().to_string();
        assert!(told.starts_with(expected), "{place}: {told}");
    }
    for (document, expected) in [(json!([]), "the document must be an object"), (json!({}), "modelId is missing")] {
        let told = neuronpedia::validate(&document).unwrap_err().to_string();
        assert!(told.starts_with(expected), "{told}");
    }
}

#[test]
fn a_bad_batch_is_told_with_its_place() {
    let good = saedashboard::write(&origin(), &[full_feature()]);
    let cases = [
        ("features/0/feature_index", json!(-1), "features[0].feature_index must be a whole number"),
        ("features/0/frac_nonzero", json!(7), "features[0].frac_nonzero is 7"),
        ("features/0/pos_values", json!([]), "features[0].pos_values has 0 numbers for 1 tokens"),
        (
            "features/0/freq_hist_data_bar_heights",
            json!([1]),
            "features[0].freq_hist_data_bar_heights has 1 heights for 2 bars",
        ),
        ("features/0/correlated_features_l1", json!([1]), "features[0].correlated_features_l1 has 1 numbers for 2"),
        (
            "features/0/correlated_features_indices",
            json!([1, 5e9]),
            "features[0].correlated_features_indices[1] must be",
        ),
        (
            "features/0/activations/1/values",
            json!([0.5]),
            "features[0].activations[1].values has 1 numbers for 4 tokens",
        ),
        ("features/0/activations/1/tokens", json!([]), "features[0].activations[1].tokens has 0 tokens"),
        (
            "features/0/activations/1/qualifying_token_index",
            json!(4),
            "features[0].activations[1].qualifying_token_index is 4",
        ),
        ("features/0/activations/1/bin_min", json!("low"), "features[0].activations[1].bin_min must be a number"),
        ("layer", json!(-1), "layer must be a text"),
        ("features", json!({}), "features must be a list"),
    ];
    for (place, value, expected) in cases {
        let told = saedashboard::read(&with(&good, place, value)).unwrap_err().to_string();
        assert!(told.starts_with(expected), "{place}: {told}");
    }
    let mut document = good;
    document["features"][0]["activations"][0]["novelty"] = json!(1);
    let (_, _, passed_over) = saedashboard::read(&document).unwrap();
    assert_eq!(passed_over.into_iter().collect::<Vec<_>>(), ["features[].activations[].novelty"]);
}

/// A bulk export with a feature for each index: rows of the database, packed.
fn write_bulk(dir: &Path, indices: &[u32]) {
    let write = |name: &str, rows: Vec<Value>| {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut packed = GzEncoder::new(std::fs::File::create(path).unwrap(), Compression::fast());
        rows.iter().for_each(|row| writeln!(packed, "{row}").unwrap());
        packed.finish().unwrap();
    };
    let row = |index: u32, more: Value| {
        let mut row = json!({ "modelId": "tiny", "layer": "2-words", "index": index.to_string(), "createdAt": "now" });
        row.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        row
    };
    let feature = |i: &u32| {
        row(*i, json!({ "frac_nonzero": 0.5, "pos_str": ["a"], "pos_values": [1.5], "vector": [], "umap_x": null }))
    };
    let text = |i: &u32, value: f32| {
        row(
            *i,
            json!({ "tokens": ["a", "b"], "values": [0.0, value], "binMin": 1.0, "binMax": 2.0, "binContains": 0.25,
            "qualifyingTokenIndex": 1, "dfaValues": [], "dfaTargetIndex": null }),
        )
    };
    write("features/batch-0.jsonl.gz", indices.iter().map(feature).collect());
    write("activations/batch-0.jsonl.gz", indices.iter().map(|i| text(i, 1.5)).collect());
    write("activations/batch-10.jsonl.gz", indices.iter().map(|i| text(i, 1.75)).collect());
    let said = |i: &u32| {
        row(*i, json!({ "description": format!("about {i}"), "typeName": "oai", "explanationModelName": "gpt" }))
    };
    write("explanations/batch-0.jsonl.gz", indices.iter().map(said).collect());
}

#[test]
fn a_bulk_export_is_joined_by_index() {
    let dir = tempfile::tempdir().unwrap();
    assert!(Bulk::find(dir.path()).unwrap().is_none());
    write_bulk(dir.path(), &[4, 2, 9]);
    let bulk = Bulk::find(dir.path()).unwrap().unwrap();
    assert_eq!(bulk.files().count(), 4);
    let mut read = Vec::new();
    let take = |feature: Feature| {
        read.push(feature);
        Ok(())
    };
    let from = bulk.read(Some(&[2, 9].into()), take).unwrap();
    assert_eq!((from.model.as_str(), from.source().as_str()), ("tiny", "2-words"));
    let sequence = |value: f32| Sequence {
        tokens: ["a", "b"].map(String::from).to_vec(),
        values: vec![0.0, value],
        at: Some(1),
        bin: Bin { min: Some(1.0), max: Some(2.0), share: Some(0.25) },
        dfa: None,
    };
    let expected = |index: u32| Feature {
        index,
        density: Some(0.5),
        top_logits: vec![("a".into(), 1.5)],
        explanations: vec![Said {
            text: format!("about {index}"),
            method: Some("oai".into()),
            model: Some("gpt".into()),
        }],
        sequences: vec![sequence(1.5), sequence(1.75)],
        ..Feature::default()
    };
    assert_eq!(read, [expected(2), expected(9)]);
    assert_eq!(through_a_run(&dir.path().join("run"), &read), read);

    // Bad rows are told with file, line and key; a file that is cut, too.
    let told = || bulk.read(None, |_| Ok(())).unwrap_err().to_string();
    std::fs::write(
        dir.path().join("features/batch-1.jsonl"),
        "\n{\"index\": \"4\", \"modelId\": \"tiny\", \"layer\": \"2-words\"}",
    )
    .unwrap();
    let bulk = Bulk::find(dir.path()).unwrap().unwrap();
    let again = bulk.read(None, |_| Ok(())).unwrap_err().to_string();
    assert!(
        again.contains("batch-1.jsonl") && again.contains("line 2: index is 4, which another feature has"),
        "{again}"
    );
    let path = dir.path().join("activations/batch-0.jsonl.gz");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    assert!(told().contains("batch-0.jsonl.gz"), "{}", told());
    std::fs::write(dir.path().join("explanations/batch-0.jsonl.gz"), b"no gzip").unwrap();
    assert!(told().contains("explanations/batch-0.jsonl.gz"), "{}", told());
    let long = format!("{{\"index\": \"{}", "9".repeat(33 << 20));
    std::fs::write(dir.path().join("explanations/batch-0.jsonl"), long).unwrap();
    std::fs::remove_file(dir.path().join("explanations/batch-0.jsonl.gz")).unwrap();
    let told = Bulk::find(dir.path()).unwrap().unwrap().read(None, |_| Ok(())).unwrap_err().to_string();
    assert!(told.contains("line 1: it is longer than"), "{told}");
}

#[test]
fn a_file_that_is_no_json_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("batch-0.json");
    for bad in ["", "{\"a\": NaN}", "{\"a\": [1, 2", "\u{feff}{}", &"[".repeat(100_000)] {
        std::fs::write(&path, bad).unwrap();
        let told = read_json(&path).unwrap_err().to_string();
        assert!(told.contains("batch-0.json") && told.contains("line 1"), "{told}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]
    #[test]
    fn damaged_documents_never_bring_the_reader_down(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), is_batch in any::<bool>(),
    ) {
        let feature = Feature { index: 5, ..full_feature() };
        let document = if is_batch { saedashboard::write(&origin(), &[feature]) } else { neuronpedia::write(&origin(), &[feature]) };
        let mut bytes = serde_json::to_vec(&document).unwrap();
        for (at, byte) in cuts {
            let at = at.index(bytes.len());
            // Signs that keep it JSON now and then.
            bytes[at] = b"0123456789-.eE\"[]{},:"[byte as usize % 21];
        }
        if let Ok(document) = serde_json::from_slice::<Value>(&bytes) {
            for read in [saedashboard::read, neuronpedia::read] {
                if let Ok((_, features, _)) = read(&document) {
                    let dir = tempfile::tempdir().unwrap();
                    let again = through_a_run(dir.path(), &features);
                    prop_assert_eq!(again.len(), features.len());
                    prop_assert_eq!(again, features);
                }
            }
        }
    }
}

#[test]
fn activations_come_back_by_ranges_of_latents() {
    let dir = tempfile::tempdir().unwrap();
    let all = make_run(&dir.path().join("run"));
    let (half, paths) = (all.len() / 2, [dir.path().join("a"), dir.path().join("b")]);
    write_atomic(&paths[0], |w| write_activations(w, &all[..half])).unwrap();
    write_atomic(&paths[1], |w| write_activations(w, &all[half..])).unwrap();
    let mut sorted = all.clone();
    sorted.sort_by_key(|a| (a.latent, a.row, a.position));
    let mut first = read_activations(&paths[0]).unwrap();
    assert!(first.is_sorted_by_key(|a| (a.latent, a.row, a.position)));
    first.extend(read_activations(&paths[1]).unwrap());
    first.sort_by_key(|a| (a.latent, a.row, a.position));
    assert!(first == sorted);
    let reader = ActivationReader::open(&paths).unwrap();
    let expected: Vec<Activation> = sorted.into_iter().filter(|a| (20..=60).contains(&a.latent)).collect();
    assert!(!expected.is_empty() && reader.range(20..=60).unwrap() == expected);
    assert!(reader.range(N_LATENTS..=N_LATENTS + 5).unwrap().is_empty());
}

#[test]
fn a_cache_of_delphi_holds_every_firing() {
    let dir = tempfile::tempdir().unwrap();
    let (run_dir, out) = (dir.path().join("run"), dir.path().join("out"));
    let all = make_run(&run_dir);
    let settings = DelphiSettings { module: "layers.3".into(), n_splits: 3, pad_token: 89 };
    let told = delphi::write(&RunSource::open(&run_dir, None).unwrap(), &out, &settings).unwrap_err().to_string();
    assert!(told.contains("--keep-activations"), "{told}");
    let mut run = Run::open_to_write(&run_dir).unwrap();
    run.commit_part(&part_name("activations", 0), all.len() as u64, |w| write_activations(w, &all)).unwrap();
    drop(run);
    let source = RunSource::open(&run_dir, None).unwrap();
    let written = delphi::write(&source, &out, &settings).unwrap();
    assert_eq!((written.files, written.firings, written.rows, written.ctx_len), (3, all.len() as u64, 60, 48));
    assert_eq!(written.explanations, 1);
    let config = read_json(&out.join("latents/layers.3/config.json")).unwrap();
    assert_eq!((&config["ctx_len"], &config["cache_ctx_len"]), (&json!(48), &json!(48)));
    let said = read_json(&out.join("explanations/layers.3_latent0.txt")).unwrap();
    assert_eq!(said, "harbours");

    let mut found = Vec::new();
    for (first, last) in [(0u32, 45u32), (46, 92), (93, 139)] {
        let bytes = std::fs::read(out.join(format!("latents/layers.3/{first}_{last}.safetensors"))).unwrap();
        let header_len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert!(header_len.is_multiple_of(8));
        let header: Value = serde_json::from_slice(&bytes[8..8 + header_len]).unwrap();
        let data = |name: &str| {
            let ends = &header[name]["data_offsets"];
            let [from, to] = [0, 1].map(|i| ends[i].as_u64().unwrap() as usize);
            bytes[8 + header_len..][from..to].to_vec()
        };
        assert_eq!(header["locations"]["dtype"], "U16");
        let narrow: Vec<u32> =
            data("locations").chunks(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]))).collect();
        let values: Vec<f32> =
            data("activations").chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
        for (place, value) in narrow.chunks(3).zip(values) {
            assert!(place[2] <= last - first);
            found.push(Activation { row: place[0], position: place[1], latent: place[2] + first, value });
        }
        let tokens: Vec<u32> = data("tokens").chunks(4).map(|b| u32::from_le_bytes(b.try_into().unwrap())).collect();
        assert_eq!((tokens.len(), header["tokens"]["shape"].clone()), (60 * 48, json!([60, 48])));
        for row in 0..60 {
            let window = source.tokens().window(row).unwrap().unwrap().token_ids;
            let filled: Vec<u32> = window.into_iter().chain(std::iter::repeat(89)).take(48).collect();
            assert_eq!(tokens[row * 48..][..48], filled);
        }
    }
    let mut all = all;
    all.sort_by_key(|a| (a.latent, a.row, a.position));
    assert!(found == all);
}

#[test]
fn modules_are_named_as_delphi_names_them() {
    let cases = [
        ("blocks.5.hook_resid_post", "layers.5"),
        ("blocks.5.hook_resid_pre", "layers.4"),
        ("blocks.2.hook_mlp_out", "layers.2.mlp"),
        ("blocks.0.hook_resid_pre", "blocks.0.hook_resid_pre"),
        ("hook_embed", "hook_embed"),
    ];
    for (site, module) in cases {
        assert_eq!(delphi::module_of(site), module);
    }
}

#[test]
fn one_of_several_dictionaries_is_named() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let mut run = Run::open_to_write(dir.path()).unwrap();
    let rows = [LatentRow::new(LatentId(4), Default::default(), 10)];
    run.commit_part("latents/b/latents.parquet", 1, |w| write_latents(w, &rows)).unwrap();
    let row = |name: &str, prefix: &str| json!({ "name": name, "prefix": prefix, "site": format!("blocks.9.{name}") });
    run.finish_stage("harvest", json!({ "dictionaries": [row("a", "latents/a/"), row("b", "latents/b/")] })).unwrap();
    drop(run);
    let source = RunSource::open(dir.path(), Some("b")).unwrap();
    assert_eq!((source.latents().len(), source.site().as_deref()), (1, Some("blocks.9.b")));
    for (asked, expected) in [(None, "(a, b); name one with --dictionary"), (Some("c"), "none called \"c\"")] {
        let told = RunSource::open(dir.path(), asked).map(drop).unwrap_err().to_string();
        assert!(told.contains(expected), "{told}");
    }
    let told = RunSource::open(dir.path(), Some("a")).map(drop).unwrap_err().to_string();
    assert!(told.contains("has no latents"), "{told}");
}

#[test]
fn formats_are_listed_once() {
    let names: Vec<&str> = FORMATS.iter().map(|row| row.name).collect();
    assert_eq!(names, ["neuronpedia", "saedashboard", "delphi", "html"]);
    assert!(FORMATS.iter().all(|row| row.is_read == ["neuronpedia", "saedashboard"].contains(&row.name)));
}
