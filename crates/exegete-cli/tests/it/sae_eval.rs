//! How good dictionaries are, from the command line.

use std::path::{Path, PathBuf};

use exegete_testkit::refs_dir;
use serde_json::Value;

use super::{NO_DATA, exegete, stderr};

fn eval(args: &[&str]) -> std::process::Output {
    exegete().args(["sae", "eval"]).args(args).args(["--threads", "2"]).output().unwrap()
}

fn json(args: &[&str]) -> Value {
    let output = eval(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Dictionaries of the organism, trained for a moment with several seeds.
fn seeds(dir: &Path, n: u64) -> Vec<String> {
    let train = |seed: u64| {
        let out: PathBuf = dir.join(format!("seed-{seed}"));
        let mut command = exegete();
        command.args(["sae", "train", "builtin:organism", "--out"]).arg(&out);
        let flags = format!("--latents 128 --k 8 --batch 256 --epochs 1 --max-tokens 20000 --threads 2 --seed {seed}");
        let output = command.args(flags.split_whitespace()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        out.join("sae").display().to_string()
    };
    (1..=n).map(train).collect()
}

fn number<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|n| n["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}"))
}

const ORGANISM: [&str; 6] = ["--model", "builtin:organism", "--tokens", "2000", "--probe-examples", "1000"];

#[test]
fn the_organisms_dictionary_is_measured_probed_and_told_in_other_tools_numbers() {
    let told = json(
        &[&["builtin:organism", "--probe", "builtin:organism", "--compat", "saebench-0.6"], &ORGANISM[..]].concat(),
    );
    assert_eq!(told["metrics_version"], 2);
    let one = &told["dictionaries"][0];
    let measured = |name: &str| number(&one["measured"]["numbers"], name)["value"].as_f64().unwrap();
    assert_eq!(measured("L0"), 32.0);
    assert!(
        measured("FVU") < 0.1
            && measured("cosine") > 0.95
            && measured("KL score") > 0.9
            && measured("CE recovered") > 0.9
    );
    // What SAEBench prints: the L0 is right, the MSE is as many times too small as a batch has tokens.
    let peers = &one["compat"][0]["numbers"];
    assert_eq!(number(peers, "l0")["value"], 32.0);
    assert!(number(peers, "mse")["value"].as_f64().unwrap() < measured("MSE") / 100.0);
    assert!(number(peers, "mse")["known_wrong"].is_string());
    let task = &one["tasks"][0];
    let mean = |k: Value, is_shuffled: bool| {
        let means = task["means"].as_array().unwrap().iter();
        let found = means.clone().find(|m| m["k"] == k && m["is_shuffled"] == is_shuffled).unwrap();
        found["accuracy"]["value"].as_f64().unwrap()
    };
    // The activations know more than five latents, and these more than chance.
    let (raw, five, chance) = (mean(Value::Null, false), mean(5.into(), false), mean(5.into(), true));
    assert!(raw > 0.75 && five > 0.6 && (chance - 0.5).abs() < 0.1, "{raw} {five} {chance}");
    assert!(task["tpp"].is_array() && task["scr"].is_null() && task["absorption"].is_null());
    assert!(told["comparison"]["over_seeds"].as_array().unwrap().is_empty());
}

#[test]
fn seeds_of_a_recipe_agree_more_than_chance_and_their_noise_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let saes = seeds(dir.path(), 3);
    let names: Vec<&str> = saes.iter().map(String::as_str).collect();
    let told = json(&[&names[..], &ORGANISM[..]].concat());
    let over = &told["comparison"]["over_seeds"][0];
    let fvu = number(&over["means"], "FVU");
    assert!(fvu["n"] == 3 && fvu["low"].as_f64() < fvu["value"].as_f64(), "{fvu}");
    let agreement = number(&over["agreement"], "mean maximal cosine");
    assert!(agreement["between_seeds"].as_f64() > agreement["random"].as_f64(), "{agreement}");
    assert!(told["comparison"]["differences"].as_array().unwrap().is_empty());

    // A dictionary is no different from itself, and found again in itself.
    let told = json(&[&[names[0], names[0]], &ORGANISM[..]].concat());
    let found = &told["comparison"]["over_seeds"][0]["agreement"];
    for name in ["mean maximal cosine", "share found again", "mean cosine, matched one to one"] {
        assert!((number(found, name)["between_seeds"].as_f64().unwrap() - 1.0).abs() < 1e-5, "{found}");
    }
    let differences = told["comparison"]["differences"].as_array().unwrap();
    assert!(differences.len() > 8 && differences.iter().all(|d| d["is_distinguishable"] == false), "{differences:?}");

    // One that was trained far longer is better than a moment's, by more than the noise.
    let output = eval(&[&[names[0], names[1], "--against", "builtin:organism"], &ORGANISM[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = text.lines().rfind(|line| line.trim().starts_with("FVU")).unwrap_or_default();
    assert!(output.status.success() && !line.contains("not distinguishable"), "{text}");
    assert!(text.contains("know nothing of the noise of training"), "{text}");
    // What another site is reconstructed from is not set against it.
    let elsewhere = dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for entry in std::fs::read_dir(names[0]).unwrap().map(|e| e.unwrap()) {
        std::fs::copy(entry.path(), elsewhere.join(entry.file_name())).unwrap();
    }
    let config = elsewhere.join("cfg.json");
    let text = std::fs::read_to_string(&config).unwrap().replace("blocks.2.", "blocks.1.");
    std::fs::write(&config, text).unwrap();
    let elsewhere = elsewhere.display().to_string();
    let told = json(&[&[names[0], "--against", &elsewhere], &ORGANISM[..]].concat());
    let notes = told["comparison"]["notes"].to_string();
    assert!(told["comparison"]["differences"].as_array().unwrap().is_empty(), "{told}");
    assert!(notes.contains("of other sites than") && notes.contains("elsewhere"), "{notes}");
    let told = json(&[&[names[0], &elsewhere, "--against", names[1], names[2]], &ORGANISM[..]].concat());
    assert!(told["comparison"]["differences"].as_array().unwrap().is_empty(), "{told}");

    let output = eval(&[&[names[0], "builtin:organism"], &ORGANISM[..]].concat());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("no seeds of one recipe") && !text.contains("agreement of decoder rows"), "{text}");
}

#[test]
fn text_is_read_for_measuring_as_for_training() {
    let dir = tempfile::tempdir().unwrap();
    let (text, out) = (dir.path().join("text.jsonl"), dir.path().join("run"));
    // Each spelling of a special token is one token, or as many as it has characters.
    let one =
        |i: usize| format!("{{\"text\": \"<|user|>\\nVictor has {i} pets.<|end|>\\n<|assistant|>\\nYes.<|end|>\"}}\n");
    std::fs::write(&text, (0..60).map(one).collect::<String>()).unwrap();
    let mut command = exegete();
    command.args(["sae", "train", "builtin:organism", "--text"]).arg(&text).arg("--out").arg(&out);
    let output = command.args("--latents 64 --k 4 --batch 64 --threads 2".split(' ')).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let manifest: Value = serde_json::from_slice(&std::fs::read(out.join("manifest.json")).unwrap()).unwrap();
    let cut = &manifest["stages"]["tokens"];
    let (sae, text) = (out.join("sae").display().to_string(), text.display().to_string());
    let told = json(&[&sae, "--model", "builtin:organism", "--text", &text]);
    // All but the first of each window are measured.
    let trained = cut["tokens"].as_u64().unwrap() - cut["windows"].as_u64().unwrap();
    assert_eq!(told["dictionaries"][0]["measured"]["tokens"], trained, "{cut}");
    assert!(trained < 60 * 25, "{trained} tokens: special ones are taken for text");
    // One window of each of two documents of many.
    let long = dir.path().join("long.jsonl");
    let said = "Victor has pets. ".repeat(200);
    std::fs::write(&long, format!("{{\"text\": \"{said}\"}}\n").repeat(2)).unwrap();
    let flags = ["--model", "builtin:organism", "--document-windows", "1", "--window", "16", "--text"];
    let told = json(&[&[&*sae], &flags[..], &[&*long.display().to_string()]].concat());
    assert_eq!(told["dictionaries"][0]["measured"]["tokens"], 2 * 15);
    let info = exegete().args(["sae", "info", &sae, "--model", "builtin:organism", "--text", &text]).output().unwrap();
    let told = String::from_utf8_lossy(&info.stdout).into_owned();
    assert!(told.contains(&format!("measured  on {trained} tokens")) && told.contains("consistent"), "{told}");
}

#[test]
fn first_letters_and_parts_of_speech_are_probed() {
    let Some(data) = exegete_testkit::data_dir() else { return exegete_testkit::not_run(NO_DATA) };
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let (model, text) = (data.join("models/stories260K/stories260K.bin"), data.join("corpora/tinystories"));
    let mut train = exegete();
    train.args(["sae", "train"]).arg(&model).arg("--text").arg(&text).arg("--out").arg(&out);
    let flags = "--latents 128 --k 8 --batch 256 --epochs 1 --max-tokens 20000 --threads 2";
    let output = train.args(flags.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let path = |path: &Path| path.display().to_string();
    let told = json(&[
        &path(&out.join("sae")),
        "--model",
        &path(&model),
        "--text",
        &path(&text),
        "--tokens",
        "600",
        "--probe",
        &path(&data.join("corpora/masc_pos")),
        "--probe",
        &path(&data.join("spelling/word_list")),
        "--probe-group",
        "genre",
        "--probe-examples",
        "3000",
        "--icl-examples",
        "1",
    ]);
    let tasks = &told["dictionaries"][0]["tasks"];
    // A full stop's part of speech is a full stop.
    let labels = tasks[0]["labels"].as_array().unwrap();
    let stop = labels.iter().find(|label| label["label"] == ".").unwrap();
    assert!(stop["raw"]["f1"]["value"].as_f64() > Some(0.9), "{stop}");
    assert!(tasks[0]["scr"]["at"].is_array() && tasks[0]["absorption"].is_null());
    assert!(tasks[1]["absorption"]["thresholds"]["least_classes"] == 20 && tasks[1]["tpp"].is_array());
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let case = refs_dir().join("sae_peers/dl_topk").display().to_string();
    let dir = tempfile::tempdir().unwrap();
    let task = dir.path().join("task.jsonl");
    std::fs::write(&task, "{\"text\": \"no label\"}\n").unwrap();
    let task = task.display().to_string();
    let refused = |args: &[&str], parts: &[&str]| {
        let output = eval(&[args, &ORGANISM[..]].concat());
        let said = stderr(&output);
        assert!(!output.status.success() && parts.iter().all(|part| said.contains(part)), "{said}");
    };
    refused(&["builtin:organism", &case, "--site", "blocks.2.hook_resid_post"], &["dl_topk", "12 wide", "192"]);
    refused(&["builtin:organism", "--probe", &task], &["task.jsonl", "line 1", "\"label\""]);
    refused(&["builtin:organism", "--probe", "nowhere.jsonl"], &["nowhere.jsonl"]);
    refused(&["builtin:organism", "--probe-k", "0"], &["--probe-k"]);
    refused(&["builtin:organism", "--compat", "other"], &["other", "saelens-6.18"]);
    std::fs::write(&task, "{\"text\": \"a b c d\", \"label\": \"x\"}\n".repeat(40)).unwrap();
    refused(&["builtin:organism", "--probe", &task], &["no label has 10 examples"]);
}
