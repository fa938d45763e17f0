//! Bad checkpoints: each a clear error, none a panic.

use std::fs;
use std::path::{Path, PathBuf};

use exegete_model::weights::gguf::{Gguf, Meta};
use exegete_model::{ChatTemplate, Message, Model, Tokenizer};
use exegete_testkit::refs_dir;
use proptest::prelude::*;

fn copy(case: &str) -> tempfile::TempDir {
    copy_of(&format!("llama_tiny/{case}"))
}

fn copy_of(case: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(refs_dir().join(case)).unwrap() {
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
    // Ids are worked on without a tokenizer, so it is read, and refused, when text comes in.
    let model = Model::open(dir.path()).unwrap();
    let error = model.tokenizer().err().unwrap().to_string();
    assert!(["tokenizer", "99", "61"].iter().all(|part| error.contains(part)), "{error}");
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

/// Found by fuzzing: tables and lists as long as a number of the file says, before that number was compared with anything.
#[test]
fn absurd_numbers_are_refused_before_memory_is_taken() {
    use serde_json::json;
    let most = 1u64 << 40;
    type Changes<'a> = &'a [(&'a str, serde_json::Value)];
    let cases: [(&str, Changes, &[&str]); 10] = [
        ("families/llama2", &[("head_dim", json!(most))], &["config.json", "head width", "1099511627776"]),
        ("families/gpt_neox", &[("hidden_size", json!(u64::MAX))], &["config.json", "model width"]),
        ("families/gpt_neox", &[("rotary_pct", json!(1e300))], &["config.json", "rotated", "width"]),
        ("families/gpt_neox", &[("rotary_pct", json!(-0.5))], &["config.json", "rotated", "-0.5"]),
        ("families/gpt2", &[("n_embd", json!(most))], &["config.json", "model width"]),
        ("families/phi3", &[("partial_rotary_factor", json!(2.0))], &["config.json", "rotated"]),
        ("families/llama2", &[("rope_theta", json!(-1.0))], &["config.json", "rotation's base"]),
        (
            "families/llama_dynamic",
            &[("rope_scaling", json!({"rope_type": "dynamic", "factor": 0.0}))],
            &["config.json", "rotation's base"],
        ),
        ("families/llama2", &[("num_hidden_layers", json!(10_000))], &["missing tensors", "model.layers.", "more"]),
        // 120 million weights are spoken of here.
        (
            "families/qwen3_moe",
            &[("num_hidden_layers", json!(10_000)), ("num_experts", json!(4096)), ("layer_types", json!(null))],
            &["mlp.gate", "shape", "[4096, 24]"],
        ),
    ];
    for (case, changes, parts) in cases {
        let dir = copy_of(case);
        edit_config(dir.path(), |c| c.extend(changes.iter().map(|(key, value)| ((*key).to_owned(), value.clone()))));
        refused(dir.path(), parts);
    }
}

/// A GGUF file of no tensors with one pair of metadata, its value as bytes.
fn gguf_of(pairs: &[(&str, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend((pairs.len() as u64).to_le_bytes());
    for (key, kind, value) in pairs {
        out.extend((key.len() as u64).to_le_bytes());
        out.extend(key.bytes());
        out.extend(kind.to_le_bytes());
        out.extend(value);
    }
    out
}

fn list_of(kind: u32, len: u64, items: &[u8]) -> Vec<u8> {
    [kind.to_le_bytes().as_slice(), &len.to_le_bytes(), items].concat()
}

/// A list of a million bytes took forty million.
#[test]
fn lists_of_gguf_metadata_take_no_more_memory_than_in_the_file() {
    let text = |t: &str| [(t.len() as u64).to_le_bytes().as_slice(), t.as_bytes()].concat();
    let nested = [list_of(0, 2, &[1, 2]), list_of(7, 1, &[1])].concat();
    let floats: Vec<u8> = [0.5f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect();
    let bytes = gguf_of(&[
        ("bytes", 9, list_of(1, 3, &[1, 0xff, 7])),
        ("floats", 9, list_of(6, 2, &floats)),
        ("flags", 9, list_of(7, 2, &[0, 1])),
        ("texts", 9, list_of(8, 2, &[text("a"), text("")].concat())),
        ("nested", 9, list_of(9, 2, &nested)),
    ]);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    fs::write(&path, bytes).unwrap();
    let m = Gguf::open(&path).unwrap().metadata;
    assert_eq!(m.numbers("bytes").unwrap().iter().collect::<Vec<_>>(), [1.0, -1.0, 7.0]);
    assert_eq!(m.numbers("floats").unwrap().iter().collect::<Vec<_>>(), [0.5, -2.0]);
    assert_eq!(m.numbers("floats").unwrap().len(), 2);
    assert_eq!(m.get("flags"), Some(&Meta::Flags(vec![false, true])));
    assert_eq!(m.texts("texts").unwrap().iter().collect::<Vec<_>>(), ["a", ""]);
    assert_eq!(m.get("nested"), Some(&Meta::Lists(2)));
    fs::write(&path, gguf_of(&[("deep", 9, [9u32.to_le_bytes().as_slice(), &1u64.to_le_bytes()].concat().repeat(9))]))
        .unwrap();
    refused(&path, &["m.gguf", "nested too deep"]);
}

#[test]
fn absurd_gguf_numbers_are_refused_before_memory_is_taken() {
    let bytes = fs::read(refs_dir().join("llama_tiny/gguf/q4_1.gguf")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    for (key, part) in [("llama.rope.dimension_count", "rotated"), ("llama.embedding_length", "model width")] {
        let mut bad = bytes.clone();
        let at = bad.windows(key.len()).position(|w| w == key.as_bytes()).unwrap() + key.len() + 4;
        bad[at..at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        fs::write(&path, &bad).unwrap();
        refused(&path, &["m.gguf", part, "4294967295"]);
    }
    // Every way to cut a piece in two is tried, which takes the square of its length.
    let pieces = [1u64 << 10, 1].map(|n| [n.to_le_bytes().as_slice(), &vec![b'a'; n as usize]].concat()).concat();
    let metadata = gguf_of(&[("tokenizer.ggml.tokens", 9, list_of(8, 2, &pieces))]);
    fs::write(&path, metadata).unwrap();
    let error = Tokenizer::from_gguf(&path, &Gguf::open(&path).unwrap().metadata, None).err().unwrap().to_string();
    assert!(error.contains("piece 0") && error.contains("1024 bytes"), "{error}");
}

fn tokenizer_of(change: impl FnOnce(&mut serde_json::Value)) -> Result<Tokenizer, exegete_model::ModelError> {
    let mut json = serde_json::json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}});
    change(&mut json);
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    Tokenizer::from_dir(dir.path(), Some(0))
}

/// The tokenizers crate panics on each of these, or takes what memory they ask for.
#[test]
fn tokenizers_that_cannot_be_run_are_errors() {
    use serde_json::json;
    let error = |change: &dyn Fn(&mut serde_json::Value)| match tokenizer_of(change) {
        Ok(tokenizer) => tokenizer.encode_prompt("ab").err().map(|e| e.to_string()).unwrap_or_default(),
        Err(e) => e.to_string(),
    };
    let said = error(&|t| t["model"]["continuing_subword_prefix"] = json!("####"));
    assert!(said.contains("tokenizer"), "{said:?}");
    let template = json!({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "?", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}}], "pair": [], "special_tokens": {}});
    let said = error(&|t| t["post_processor"] = template.clone());
    assert!(said.contains("tokenizer"), "{said:?}");
    for (map, part) in [("SpecialToken", "precompiled_charsmap"), ("AAAAAA==", "tokenizer"), ("=", "tokenizer")] {
        let said = error(&|t| t["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": map}));
        assert!(said.contains(part), "{said:?}");
    }
}

/// A file that was saved with a limit cut every text of a corpus, and one with padding lengthened it.
#[test]
fn limits_saved_with_a_tokenizer_are_not_applied() {
    use serde_json::json;
    let tokenizer = tokenizer_of(|t| {
        t["truncation"] = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0});
        t["padding"] = json!({"strategy": {"Fixed": 1u64 << 40}, "direction": "Right", "pad_to_multiple_of": 0,
            "pad_id": 0, "pad_type_id": 0, "pad_token": "a"});
    });
    assert_eq!(tokenizer.unwrap().encode_text("abab").unwrap(), [2, 2]);
}

#[test]
fn chat_templates_come_to_an_end() {
    let grow = "{% set x = 'aaaaaaaaaaaaaaaa' %}".to_owned() + &"{% set x = x ~ x %}".repeat(40);
    let share = "{% set x = [1] %}".to_owned() + &"{% set x = [x, x] %}".repeat(30) + "{{ x }}";
    let nest = "{% set x = [1] %}".to_owned() + &"{% set x = [x] %}".repeat(5000) + "{{ x }}";
    let deep = format!("{{{{ f({}) }}}}", "[".repeat(60) + "x" + &"]".repeat(60));
    let calls = "{% macro f(x) %}".to_owned() + &deep + "{% endmacro %}{{ f(1) }}";
    for (template, part) in [
        ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "fuel"),
        ("{{ 'ab' * 1000000000 }}", "fuel"),
        ("{{ ('a' * 999999).replace('a', 'b' * 9999999) }}", "fuel"),
        ("{{ '{:1000000000}'.format(1) }}", "fuel"),
        ("{{ ('a' * 999999).join(['b'] * 9999) }}", "fuel"),
        ("{{ ','.join(['b'] * 600000) }}", "fuel"),
        ("{{ [1, 2] * 10000000 }}", "fuel"),
        ("{{ messages | slice(1000000000) | list }}", "fuel"),
        ("{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}", "contains itself"),
        ("{% set ns = namespace() %}{% set ns.a = [{'b': ns}] %}{{ ns == ns }}", "contains itself"),
        ("{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "recursion"),
        (&grow, "fuel"),
        (&share, "fuel"),
        (&nest, "nested too deeply"),
        (&calls, "recursion"),
    ] {
        let rendered = ChatTemplate::new(template, "", "").render(&[Message::user("a")], true);
        let error = rendered.expect_err(template).to_string();
        assert!(error.contains(part), "{template}: {error}");
    }
    let template = "{%- set ns = namespace(n=0) -%}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}\
        {%- set all = messages | map(attribute='content') | list -%}{{ ns.n }}{{ ', '.join(all) }}{{ '{:>3}'.format(7) }}";
    let rendered = ChatTemplate::new(template, "", "").render(&[Message::user("a"), Message::user("b")], true);
    assert_eq!(rendered.unwrap(), "2a, b  7");
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
