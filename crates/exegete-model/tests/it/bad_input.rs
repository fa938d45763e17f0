//! Bad checkpoints: each a clear error, none a panic.

use std::fs;
use std::path::{Path, PathBuf};

use exegete_model::Model;
use exegete_testkit::refs_dir;
use proptest::prelude::*;

fn copy(case: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(refs_dir().join("llama_tiny").join(case)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

#[track_caller]
fn refused(path: &Path, parts: &[&str]) {
    let error = match Model::open(path) {
        Ok(_) => panic!("{} was accepted", path.display()),
        Err(e) => e.to_string(),
    };
    for part in parts {
        assert!(error.contains(part), "{error:?} does not name {part:?}");
    }
}

fn edit_config(dir: &Path, change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let path = dir.join("config.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(json.as_object_mut().unwrap());
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn configurations_fail_closed() {
    let scaling = serde_json::json!({"rope_type": "llama3", "factor": 8.0});
    let cases: [(&str, serde_json::Value, &[&str]); 7] = [
        ("residual_multiplier", 0.22.into(), &["config.json", "residual_multiplier"]),
        ("attention_bias", true.into(), &["missing tensors", "q_proj.bias"]),
        ("rope_parameters", scaling, &["low_freq_factor"]),
        ("rope_parameters", serde_json::json!({"rope_type": "spiral"}), &["rope type", "spiral", "yarn"]),
        ("hidden_act", "glu".into(), &["hidden_act", "glu", "silu"]),
        ("model_type", "mamba".into(), &["model_type", "mamba", "llama"]),
        ("num_hidden_layers", 4.into(), &["missing tensors", "model.layers.3"]),
    ];
    for (key, value, parts) in cases {
        let dir = copy("gqa_tied");
        edit_config(dir.path(), |c| drop(c.insert(key.into(), value)));
        refused(dir.path(), parts);
    }
    for (key, value) in [("num_key_value_heads", 3), ("num_attention_heads", 0), ("vocab_size", -1), ("head_dim", 1)] {
        let dir = copy("gqa_tied");
        edit_config(dir.path(), |c| drop(c.insert(key.into(), value.into())));
        refused(dir.path(), &["config.json"]);
    }
}

/// Each family refuses one more key, and one of its own keys with a value that it does not handle, by name.
#[test]
fn every_family_refuses_a_key_that_it_does_not_know() {
    let mut families = std::collections::BTreeSet::new();
    for entry in fs::read_dir(refs_dir().join("families")).unwrap() {
        let from = entry.unwrap().path();
        if !from.join("config.json").is_file() {
            continue;
        }
        let read = |dir: &Path| -> serde_json::Value {
            serde_json::from_slice(&fs::read(dir.join("config.json")).unwrap()).unwrap()
        };
        let family = read(&from)["model_type"].as_str().unwrap().to_owned();
        for (key, value) in [("logit_multiplier", serde_json::json!(0.5)), ("is_encoder_decoder", true.into())] {
            let dir = tempfile::tempdir().unwrap();
            for file in fs::read_dir(&from).unwrap().map(|e| e.unwrap()) {
                fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
            }
            edit_config(dir.path(), |c| drop(c.insert(key.into(), value)));
            refused(dir.path(), &["config.json", key]);
        }
        families.insert(family);
    }
    let all: std::collections::BTreeSet<String> =
        exegete_model::families::FAMILIES.iter().map(|f| f.model_type.to_owned()).collect();
    let missing: Vec<&String> = all.difference(&families).collect();
    assert_eq!(missing, ["scratch"], "every family but the one without a published configuration has a golden");
}

#[test]
fn weights_fail_closed() {
    let dir = copy("gqa_tied");
    edit_config(dir.path(), |c| drop(c.insert("num_hidden_layers".into(), 2.into())));
    refused(dir.path(), &["does not use", "model.layers.2"]);
    let dir = copy("gqa_tied");
    edit_config(dir.path(), |c| drop(c.insert("intermediate_size".into(), 65.into())));
    refused(dir.path(), &["shape", "gate_proj", "65"]);
    let dir = copy("gqa_tied");
    let path = dir.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    refused(dir.path(), &["model.safetensors", "not a whole"]);
    fs::remove_file(&path).unwrap();
    refused(dir.path(), &["no model.safetensors"]);
    let dir = copy("mqa_untied_sharded");
    fs::remove_file(dir.path().join("model-00003-of-00009.safetensors")).unwrap();
    refused(dir.path(), &["model-00003-of-00009.safetensors"]);
    refused(&PathBuf::from("/nowhere/model.gguf"), &["/nowhere/model.gguf", "no such file"]);
}

#[test]
fn a_tokenizer_of_another_model_is_refused() {
    let dir = copy("gqa_tied");
    let vocab: serde_json::Map<String, serde_json::Value> = (0..100).map(|i| (format!("t{i}"), i.into())).collect();
    let json = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"}});
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    refused(dir.path(), &["tokenizer", "99", "61"]);
}

#[test]
fn absurd_gguf_lengths_are_refused_before_memory_is_taken() {
    let bytes = fs::read(refs_dir().join("llama_tiny/gguf/q4_1.gguf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    for (at, name) in [(8, "tensors"), (16, "metadata pairs"), (24, "text")] {
        let mut bad = bytes.clone();
        bad[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
        fs::write(&path, &bad).unwrap();
        refused(&path, &["m.gguf", "at byte", name]);
    }
    fs::write(&path, &bytes[..bytes.len() - 100]).unwrap();
    refused(&path, &["does not fit", "truncated"]);
    fs::write(&path, b"GGML").unwrap();
    refused(&path, &["not a GGUF file"]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..Default::default() })]
    #[test]
    fn mutated_checkpoints_never_panic(
        which in 0usize..3,
        changes in prop::collection::vec((0usize..2000, any::<u8>()), 1..6),
        cut in prop::option::of(0usize..20_000),
    ) {
        let source = ["llama_tiny/gguf/q4_1.gguf", "llama_tiny/gguf/f16.gguf", "llama_tiny/gqa_tied/model.safetensors"][which];
        let mut bytes = fs::read(refs_dir().join(source)).unwrap();
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(cut.unwrap_or(usize::MAX).min(bytes.len()));
        // What survives is a model, perhaps a wrong one; what does not is an error. Neither is a panic.
        if which < 2 {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("m.gguf");
            fs::write(&path, &bytes).unwrap();
            let _ = Model::open(&path);
        } else {
            let dir = copy("gqa_tied");
            fs::write(dir.path().join("model.safetensors"), &bytes).unwrap();
            let _ = Model::open(dir.path());
        }
    }
}
