//! `exegete model info`, `lens`, `parity` and the edits of `generate`, on tiny models of several families.

use std::path::{Path, PathBuf};
use std::process::Output;

use exegete_testkit::{Golden, refs_dir, sorter_file, sorter_tensor, write_sorter};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value as Json;

use super::{NO_DATA, exegete, stderr, stories};

fn family(case: &str) -> PathBuf {
    refs_dir().join("families").join(case)
}

fn run(args: &[&str]) -> Output {
    exegete().args(args).output().unwrap()
}

#[track_caller]
fn json(args: &[&str]) -> Json {
    let output = run(&[&["--json"], args].concat());
    assert!(output.status.success(), "{args:?}: {}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let output = run(args);
    assert_eq!(output.status.code(), Some(1), "{args:?}");
    let text = stderr(&output);
    for part in parts {
        assert!(text.contains(part), "{args:?}: {text:?} does not name {part:?}");
    }
    assert!(!text.contains("panicked"), "{text}");
}

/// A dump of tokens and logits, as refs/dump.py writes them.
fn dump(path: &Path, tokens: &[i32], shape: [usize; 2], logits: &[f32], logit_shape: [usize; 3]) {
    let tokens: Vec<u8> = tokens.iter().flat_map(|t| t.to_le_bytes()).collect();
    let logits: Vec<u8> = logits.iter().flat_map(|x| x.to_le_bytes()).collect();
    let views = [
        ("tokens", TensorView::new(Dtype::I32, shape.to_vec(), &tokens).unwrap()),
        ("hook_logits", TensorView::new(Dtype::F32, logit_shape.to_vec(), &logits).unwrap()),
    ];
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

#[test]
fn info_lists_sites_and_weights_of_the_family() {
    let info = json(&["model", "info", family("gemma2").to_str().unwrap(), "--sites", "--weights"]);
    let sites: Vec<&str> = info["sites"].as_array().unwrap().iter().map(|s| s["site"].as_str().unwrap()).collect();
    assert!(sites.contains(&"blocks.1.attn.hook_out") && sites.contains(&"blocks.2.attn.hook_pattern"));
    assert!(!sites.contains(&"blocks.0.attn.q_norm.hook_out"), "Gemma 2 does not normalise queries");
    assert!(info["weights"].as_array().unwrap().iter().any(|w| w["weight"] == "blocks.0.norm_attn"));
    assert_eq!(info["attn_soft_cap"], 2.0);
}

#[test]
fn parity_agrees_with_every_familys_golden_and_names_the_first_site_that_does_not() {
    for case in ["gpt2", "gpt_neox", "llama3", "mistral", "qwen3_moe", "gemma3", "phi3_long", "olmo2", "smollm3"] {
        let (model, golden) = (family(case), family(case).join("golden.safetensors"));
        let found = json(&["model", "parity", model.to_str().unwrap(), "--dump", golden.to_str().unwrap()]);
        assert_eq!(found["first_divergence"], Json::Null, "{case}");
        assert!(found["sites"].as_array().unwrap().len() > 20, "{case}");
    }
    // Another model's run: everything before the first weights agrees, what comes behind does not.
    let golden = family("llama2").join("golden.safetensors");
    let dir = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(family("llama2")).unwrap().map(|e| e.unwrap()) {
        std::fs::copy(file.path(), dir.path().join(file.file_name())).unwrap();
    }
    let config = dir.path().join("config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    let theta = text.replace("\"rms_norm_eps\"", "\"rope_theta\": 500.0, \"rms_norm_eps\"");
    assert_ne!(text, theta);
    std::fs::write(&config, theta).unwrap();
    let args = ["model", "parity", dir.path().to_str().unwrap(), "--dump", golden.to_str().unwrap()];
    refused(&args, &["blocks.0.attn.hook_rot_q", "first"]);
    refused(&["model", "parity", dir.path().to_str().unwrap(), "--dump", config.to_str().unwrap()], &["safetensors"]);
}

#[test]
fn parity_agrees_with_the_references_of_the_trained_models() {
    let Some(data) = exegete_testkit::data_dir() else { return exegete_testkit::not_run(NO_DATA) };
    let models = data.join("models");
    let read = |path: PathBuf| -> Json { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("dump.safetensors");
    for (name, file) in [("chargpt_tinystories", ""), ("slm4096", ""), ("stories260K", "stories260K.bin")] {
        for prompt in read(models.join(name).join("golden.json"))["prompts"].as_array().unwrap() {
            let ids: Vec<i32> = prompt["ids"].as_array().unwrap().iter().map(|i| i.as_i64().unwrap() as i32).collect();
            let last = prompt["logits_last"].as_array().unwrap();
            let last: Vec<f32> = last.iter().map(|x| x.as_f64().unwrap() as f32).collect();
            dump(&path, &ids, [1, ids.len()], &last, [1, 1, last.len()]);
            let model = if file.is_empty() { models.join(name) } else { models.join(name).join(file) };
            let found = json(&["model", "parity", model.to_str().unwrap(), "--dump", path.to_str().unwrap()]);
            assert_eq!(found["sites"][0]["agrees"], true, "{name}: {found}");
        }
    }
    let partials = sorter_file(&models.join("gpt_nano_sort/gpt-nano-sort-t0-partials.json"));
    let ids: Vec<i32> = sorter_tensor(&partials, "idx").0.iter().map(|x| *x as i32).collect();
    dump(&path, &ids, [3, 11], &sorter_tensor(&partials, "lm_head").0, [3, 11, 3]);
    write_sorter(&models.join("gpt_nano_sort/gpt-nano-sort-model.json"), dir.path());
    std::fs::rename(&path, dir.path().join("dump")).unwrap();
    let dumped = dir.path().join("dump");
    let found = json(&["model", "parity", dir.path().to_str().unwrap(), "--dump", dumped.to_str().unwrap()]);
    assert_eq!(found["sites"][0]["agrees"], true, "{found}");
}

#[test]
fn the_real_model_agrees_with_its_golden_through_the_command() {
    let Some(model) = exegete_testkit::real_model() else {
        return exegete_testkit::not_run("SmolLM2-135M-Instruct is not here: run cargo xtask models");
    };
    let golden = Golden::load("smollm2/golden.safetensors");
    let (tokens, full) = (golden.i32("tokens"), golden.i32("full_positions"));
    let logits = golden.f32("logits_full");
    let (v, dir) = (logits.len() / full.len(), tempfile::tempdir().unwrap());
    let path = dir.path().join("dump.safetensors");
    for (i, position) in full.iter().enumerate() {
        let prefix = &tokens[..=*position as usize];
        dump(&path, prefix, [1, prefix.len()], &logits[i * v..(i + 1) * v], [1, 1, v]);
        let found = json(&["model", "parity", model.to_str().unwrap(), "--dump", path.to_str().unwrap()]);
        assert_eq!(found["first_divergence"], Json::Null, "position {position}: {found}");
    }
}

#[test]
fn the_lens_ends_in_what_the_model_says_and_its_page_stands_alone() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let dir = tempfile::tempdir().unwrap();
    let page = dir.path().join("lens.html");
    let model = model.to_str().unwrap();
    let prompt = ["--prompt", "Once upon a time", "--top", "2"];
    let args = [&["model", "lens", model], &prompt[..], &["--html", page.to_str().unwrap()]].concat();
    let found = json(&args);
    let lens = &found["lens"]["cells"];
    assert_eq!(lens.as_array().unwrap().len(), 6, "the embedding and five layers");
    let new = json(&["model", "generate", model, "--prompt", "Once upon a time", "--max-new-tokens", "1"]);
    let last = lens[5].as_array().unwrap().last().unwrap();
    assert_eq!(last["top"][0][0], new["ids"][0]);
    assert!(last["kl_to_final"].as_f64().unwrap().abs() < 1e-9);
    let html = std::fs::read_to_string(&page).unwrap();
    assert!(html.contains("<table>") && !html.contains("<script") && !html.contains("http://"));
    refused(&["model", "lens", model, "--prompt", "x", "--top", "0"], &["--top"]);
    refused(&["model", "lens", model, "--prompt", "x", "--attribute", "two words"], &["--attribute", "two words"]);
}

#[test]
fn edits_name_what_they_cannot_do() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let model = model.to_str().unwrap();
    let with = |args: &[&'static str]| {
        [&["model", "generate", model, "--prompt", "Once", "--max-new-tokens", "4"], args].concat()
    };
    let plain = json(&with(&["--logits"]));
    let changed = |args: &[&'static str]| {
        assert_ne!(
            json(&with(&[&["--logits"], args].concat()))["logits_checksum"],
            plain["logits_checksum"],
            "{args:?}"
        );
    };
    let direction = "blocks.2.hook_resid_post:tokens('The dog')-tokens('The girl'):1";
    changed(&["--ablate-heads", "0:1,3"]);
    changed(&["--ablate-heads", "2:all"]);
    changed(&["--cut-edges", "1:all:0"]);
    changed(&["--cut-edges", "1:0..3:0", "--positions", "-1"]);
    changed(&["--set-component", direction]);
    changed(&["--add-at-norm", direction, "--positions", "token: Once"]);
    changed(&["--scale", "model.layers.1.mlp:0.5"]);
    // An edit of new tokens alone leaves the prompt as it is.
    let new_only = json(&with(&["--logits", "--scale", "blocks.4.hook_resid_post:-1", "--steps", "new"]));
    assert_eq!(new_only["logits_checksum"], plain["logits_checksum"]);
    assert_ne!(new_only["ids"], plain["ids"]);
    refused(&with(&["--ablate-heads", "0:9"]), &["head 9", "0..=7"]);
    refused(&with(&["--ablate-heads", "7:0"]), &["layer 7", "0..=4"]);
    refused(&with(&["--cut-edges", "1:0"]), &["LAYER:HEADS:KEYS"]);
    refused(&with(&["--scale", "blocks.1.attn.q_norm.hook_out:2"]), &["q_norm", "does not normalise"]);
    refused(&with(&["--positions", "-0", "--scale", "blocks.0.hook_mlp_out:2"]), &["--positions", "-1"]);
    refused(&with(&["--positions", "token:qqqqqq"]), &["no token", "qqqqqq"]);
    refused(&with(&["--steps", "sometimes"]), &["--steps"]);
    refused(&with(&["--clamp", "blocks.1.hook_resid_post:nowhere@3:1"]), &["nowhere"]);
    refused(&with(&["--top-p", "0", "--temperature", "1"]), &["top-p"]);
    refused(&with(&["--samples", "0"]), &["--samples"]);
    refused(&with(&["--top-k", "5"]), &["--temperature"]);
    refused(&with(&["--stored-weights", "--dtype", "bf16"]), &["--stored-weights"]);
    refused(&with(&["--scale", "blocks.2.attn.hook_attn_scores:0"]), &["not numbers"]);
    let far = run(&with(&["--positions", "99", "--scale", "blocks.0.hook_mlp_out:2"]));
    assert!(far.status.success() && stderr(&far).contains("touched no token"), "{}", stderr(&far));
    let long = [&["model", "generate", model, "--prompt", "Once", "--max-new-tokens", "600"][..]].concat();
    refused(&long, &["context of 512", "fewer"]);
    refused(&[&with(&["--chat"])[..]].concat(), &["--chat", "no chat template"]);
}

#[test]
fn samples_share_their_prompt_and_depend_on_the_seed_alone() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let model = model.to_str().unwrap();
    let args = |seed: &'static str, n: &'static str| {
        let rest = ["--prompt", "Once upon a time", "--temperature", "1", "--max-new-tokens", "12", "--samples", n];
        [&["--seed", seed, "model", "generate", model], &rest[..]]
            .concat()
            .iter()
            .map(|s| (*s).to_owned())
            .collect::<Vec<_>>()
    };
    let run = |args: Vec<String>| json(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let (one, again, other) = (run(args("1", "3")), run(args("1", "3")), run(args("2", "3")));
    assert_eq!(one, again);
    assert_ne!(one["samples"], other["samples"]);
    assert_ne!(one["samples"][0]["ids"], one["samples"][1]["ids"]);
    assert_eq!(run(args("1", "1"))["ids"], one["samples"][0]["ids"], "the first sample is what one alone would be");
    let penalised = |n: &'static str| {
        let mut args = args("1", n);
        args.extend(["--repetition-penalty".to_owned(), "4".to_owned()]);
        run(args)
    };
    assert_eq!(penalised("1")["ids"], penalised("2")["samples"][0]["ids"], "a shared prompt counts as one's own");
    let greedy = |dtype: &'static str| {
        json(&["--dtype", dtype, "model", "generate", model, "--prompt", "Once upon a time", "--max-new-tokens", "8"])
    };
    assert!(!greedy("bf16")["text"].as_str().unwrap().is_empty());
    let stopped = json(&["model", "generate", model, "--prompt", "Once upon a time", "--stop", "girl"]);
    assert_eq!(stopped["stopped_by"], "girl");
    assert!(!stopped["text"].as_str().unwrap().contains("girl"));
}

#[test]
fn a_model_of_the_hubs_cache_opens_by_its_name() {
    let home = tempfile::tempdir().unwrap();
    let repo = home.path().join("hub/models--org--tiny");
    let commit = "0123456789abcdef0123456789abcdef01234567";
    let snapshot = repo.join("snapshots").join(commit);
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::create_dir_all(repo.join("refs")).unwrap();
    std::fs::write(repo.join("refs/main"), commit).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(family("qwen3").join(file), snapshot.join(file)).unwrap();
    }
    let run = |name: &str| {
        let mut command = exegete();
        command.args(["model", "info", name]).env("HF_HOME", home.path()).env("HF_HUB_OFFLINE", "1");
        command.env_remove("HF_HUB_CACHE").output().unwrap()
    };
    let found = run("org/tiny");
    assert!(found.status.success(), "{}", stderr(&found));
    assert!(String::from_utf8_lossy(&found.stdout).contains("qwen3"));
    let missing = run("org/other");
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        stderr(&missing).contains("HF_HUB_OFFLINE") && stderr(&missing).contains("org/other"),
        "{}",
        stderr(&missing)
    );
}

#[test]
fn directions_are_explained_and_an_untrained_model_is_another() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let model = model.to_str().unwrap();
    let how =
        "--site blocks.2.hook_resid_post --less-mean --scales 5 --max-scale 20 --explanation-tokens 4 --insert-layer 1";
    let how: Vec<&str> = how.split(' ').chain(["--abstain-below", "-2"]).collect();
    let named = ["--direction", "tokens('The dog')", "embedding('dog')", "random(3)"];
    let told = json(&[&["model", "self-explain", model][..], &how, &named].concat());
    let told = told.as_array().unwrap();
    assert_eq!(told.len(), 3);
    for of in told {
        let explanation = &of["explanation"];
        assert!(!explanation["answers"].as_array().unwrap().is_empty(), "{of}");
        let curves = &explanation["curves"];
        assert_eq!(curves["cross_entropy_random"].as_array().unwrap().len(), 5);
        assert_eq!(curves["by_layer"][0]["layer"], 1);
    }
    refused(&["model", "self-explain", model, "--insert-layer", "1", "--direction", "dog"], &["embedding('a')"]);
    refused(
        &["model", "self-explain", model, "--insert-layer", "9", "--direction", "random(1)"],
        &["--insert-layer 9"],
    );
    refused(&["model", "self-explain", model, "--less-mean", "--direction", "random(1)"], &["--less-mean"]);

    let untrained = format!("untrained:{model}");
    let written = |model: &str| {
        let flags = ["--prompt", "Once upon a", "--max-new-tokens", "6"];
        json(&[&["model", "generate", model][..], &flags].concat())
    };
    assert_eq!(written(&untrained), written(&untrained), "a run can open it again");
    assert_ne!(written(&untrained)["ids"], written(model)["ids"]);
    refused(&["model", "info", &untrained, "--fold-norms"], &["untrained:", "not processed"]);
}
