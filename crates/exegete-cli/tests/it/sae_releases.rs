//! Published dictionaries by name, from a hub on loopback.

use std::fs;
use std::path::Path;
use std::process::Output;

use exegete_testkit::refs_dir;
use serde_json::Value;
use tempfile::TempDir;

use super::hub_server::{File, TestHub};
use super::{exegete, stderr};

const COMMIT: &str = "3333333333333333333333333333333333333333";
const CANONICAL: &str = "gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canonical";

/// A hub, and a cache of its own.
struct World {
    server: TestHub,
    home: TempDir,
}

impl World {
    fn new() -> Self {
        Self { server: TestHub::start(), home: tempfile::tempdir().unwrap() }
    }

    /// Puts the files of a directory into a repository.
    fn publish(&self, repo: &str, path: &str, dir: &Path) {
        let mut repos = self.server.repos();
        let repo = repos.entry(repo.into()).or_default();
        repo.names.insert("main".into(), COMMIT.into());
        let files = repo.commits.entry(COMMIT.into()).or_default();
        let small = |text: &str| File { content: text.as_bytes().to_vec(), large: false };
        let inside = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
        files.insert("README.md".into(), small("# Dictionaries\n"));
        files.insert(inside("runner_cfg.json"), small("{}"));
        let mut left = vec![dir.to_owned()];
        while let Some(from) = left.pop() {
            for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    left.push(entry);
                    continue;
                }
                let at = inside(&entry.strip_prefix(dir).unwrap().display().to_string());
                let large = !at.ends_with(".json");
                files.insert(at, File { content: fs::read(entry).unwrap(), large });
            }
        }
    }

    fn run(&self, args: &[&str], offline: bool) -> Output {
        let mut command = exegete();
        command.args(args).args(["--threads", "2"]);
        for name in ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_TOKEN", "HF_TOKEN_PATH", "TRANSFORMERS_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("HF_ENDPOINT", &self.server.endpoint).env("HF_HOME", self.home.path());
        command.env("HF_HUB_OFFLINE", if offline { "1" } else { "0" }).output().unwrap()
    }

    fn info(&self, args: &[&str], offline: bool) -> Value {
        let output = self.run(&[&["sae", "info"], args, &["--json"]].concat(), offline);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, args: &[&str], offline: bool, parts: &[&str]) {
        let output = self.run(args, offline);
        let error = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }

    /// The files whose content was asked for since the last call, in order of their names.
    fn downloaded(&self) -> Vec<String> {
        let asked = self.server.requests().into_iter().filter(|request| request.method == "GET");
        let file = |target: String| Some(target.split_once(COMMIT)?.1.split('?').next()?[1..].to_owned());
        let mut files: Vec<String> = asked.filter_map(|request| file(request.target)).collect();
        files.sort();
        files.dedup();
        files
    }
}

fn layout(name: &str) -> std::path::PathBuf {
    refs_dir().join("sae_layouts").join(name)
}

fn peer(name: &str) -> std::path::PathBuf {
    refs_dir().join("sae_peers").join(name)
}

fn gemma(world: &World) {
    let mut dir = layout("gemma_scope_1");
    while !dir.join("params.npz").is_file() {
        dir = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).find(|path| path.is_dir()).unwrap();
    }
    for path in ["layer_12/width_16k/average_l0_82", "layer_12/width_16k/average_l0_41"] {
        world.publish("google/gemma-scope-2b-pt-res", path, &dir);
    }
}

#[test]
fn a_name_downloads_the_right_files_once_and_then_needs_no_hub() {
    let world = World::new();
    gemma(&world);
    let told = world.info(&[CANONICAL], false);
    assert_eq!((&told["format"], &told["kind"]), (&"gemma-scope".into(), &"jumprelu".into()));
    assert_eq!(told["published_l0"], 82.0);
    assert_eq!(told["metadata"]["hook_name"], "blocks.12.hook_resid_post");
    assert_eq!(
        (&told["metadata"]["release"], &told["metadata"]["model_name"]),
        (&CANONICAL.into(), &"gemma-2-2b".into())
    );
    assert_eq!(world.downloaded(), ["layer_12/width_16k/average_l0_82/params.npz"]);
    assert_eq!(world.info(&[CANONICAL], false), told);
    assert!(world.downloaded().is_empty());
    assert_eq!(world.info(&[CANONICAL], true), told);
    let out = world.home.path().join("converted").display().to_string();
    let converted = world.run(&["sae", "convert", CANONICAL, "--out", &out], true);
    assert!(converted.status.success(), "{}", stderr(&converted));
    assert!(world.server.requests().is_empty(), "the network is forbidden");
    world.refused(
        &["sae", "info", "gemma-scope-2b-pt-res/layer_12/width_16k/average_l0_41"],
        true,
        &["layer_12/width_16k/average_l0_41 is not in the cache", "HF_HUB_OFFLINE"],
    );
}

#[test]
fn what_only_the_release_states_is_added() {
    let world = World::new();
    world.publish("jbloom/GPT2-Small-SAEs-Reformatted", "blocks.8.hook_resid_pre", &peer("saelens_old"));
    let told = world.info(&["gpt2-small-res-jb/blocks.8.hook_resid_pre"], false);
    assert_eq!((&told["published_l0"], &told["published_variance_explained"]), (&60.0.into(), &0.9.into()));
    assert_eq!(told["metadata"]["model_from_pretrained_kwargs"]["center_writing_weights"], true);
    assert_eq!(told["metadata"]["hook_name"], "blocks.2.hook_resid_pre", "the files go before the release");
    let names = ["cfg.json", "sae_weights.safetensors"].map(|name| format!("blocks.8.hook_resid_pre/{name}"));
    assert_eq!(world.downloaded(), names);

    world.publish("JoshEngels/Mistral-7B-Residual-Stream-SAEs", "mistral_7b_layer_16", &peer("saelens_standard"));
    let told = world.info(&["mistral-7b-res-wg/blocks.16.hook_resid_pre"], false);
    assert_eq!(told["input_norm"], "constant_norm_rescale");

    world.publish("Goodfire/Llama-3.1-8B-Instruct-SAE-l19", "", &layout("goodfire"));
    let told = world.info(&["goodfire-llama-3.1-8b-instruct/layer_19"], false);
    assert_eq!((&told["format"], &told["published_l0"]), (&"linear-layers".into(), &91.0.into()));
    assert_eq!(told["metadata"]["hook_name"], "blocks.19.hook_resid_post");

    world.publish("fnlp/Llama3_1-8B-Base-LXR-8x", "Llama3_1-8B-Base-L15R-8x", &layout("llama_scope_1"));
    let told = world.info(&["llama_scope_lxr_8x/l15r_8x"], false);
    assert_eq!(told["format"], "llama-scope");
}

#[test]
fn an_address_on_the_hub_is_a_repository_and_a_path() {
    let world = World::new();
    world.publish("tiny/dictionaries", "layers.2", &peer("sparsify_sae/layers.2"));
    world.publish("tiny/files", "a", &layout("hook_z"));
    world.publish("tiny/root", "", &peer("dl_topk"));
    assert_eq!(world.info(&["tiny/dictionaries:layers.2/"], false)["format"], "sparsify");
    assert_eq!(world.downloaded(), ["layers.2/cfg.json", "layers.2/sae.safetensors"]);
    let told = world.info(&["tiny/files@main:a/gpt2-small_L1_Hcat_z_ds24576.pt"], false);
    assert_eq!(
        (&told["format"], &told["metadata"]["hook_name"]),
        (&"named-tensors".into(), &"blocks.1.attn.hook_z".into())
    );
    assert_eq!(world.downloaded().len(), 2, "the file and its configuration");
    assert_eq!(world.info(&["tiny/root:."], false)["format"], "dictionary-learning");
    world.refused(&["sae", "info", "tiny/dictionaries:layer.2"], false, &["has no \"layer.2\"", "layers.2"]);
    world.refused(&["sae", "info", "tiny/dictionaries:."], false, &["looked for", "layers.2/cfg.json"]);
    world.refused(&["sae", "info", "tiny/nothing:a"], false, &["has no repository tiny/nothing"]);
}

#[test]
fn a_wrong_name_is_answered_with_the_nearest() {
    let world = World::new();
    let info = |name: &'static str| ["sae", "info", name];
    world.refused(
        &info("gemma-scope-2b-pt-res-canonical/layer_12/width_16k/canon"),
        false,
        &["layer_12/width_16k/canonical,", "exegete sae list gemma-scope-2b-pt-res-canonical"],
    );
    world.refused(
        &info("gemma-scope-2b-res-canonical/layer_12/width_16k/canonical"),
        false,
        &["no file or directory", "ORG/NAME:PATH", "gemma-scope-2b-pt-res-canonical", "`exegete sae list`"],
    );
    world.refused(&info("temporal-sae-gemma-2-2b/blocks.12.hook_resid_post"), false, &["not read yet"]);
    assert!(world.server.requests().is_empty(), "none of this takes a hub");
}

#[test]
fn a_named_dictionary_is_measured_and_edits() {
    let world = World::new();
    let organism = refs_dir().join("../crates/exegete-lab/organism/sae");
    let (repo, path) = ("jbloom/Gemma-2b-IT-Residual-Stream-SAEs", "gemma_2b_it_blocks.12.hook_resid_post_16384");
    world.publish(repo, path, &organism);
    let name = "gemma-2b-it-res-jb/blocks.12.hook_resid_post";
    let proof = ["--model", "builtin:organism", "--text", "builtin:organism", "--tokens", "400"];
    let output = world.run(&[&["sae", "info", name], &proof[..]].concat(), false);
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    for part in ["stated    L0 32, variance explained 0.57", "(stated 0.57)", "verdict   consistent"] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    // The organism is of the wrong make for a dictionary of a centred model.
    world.publish("jbloom/GPT2-Small-SAEs-Reformatted", "blocks.2.hook_resid_pre", &organism);
    let centred = "gpt2-small-res-jb/blocks.2.hook_resid_pre";
    let parts = ["proof: with the model's writing weights centred", "not before RMSNorm"];
    world.refused(&[&["sae", "info", centred], &proof[..]].concat(), false, &parts);
    let clamp = format!("blocks.2.hook_resid_post:{name}@7:3");
    let add = format!("blocks.2.hook_resid_post:{name}@7:0.5");
    let generate = ["model", "generate", "builtin:organism", "--prompt", "the", "--max-new-tokens", "2"];
    for edit in [["--clamp", clamp.as_str()], ["--add", add.as_str()]] {
        let output = world.run(&[&generate[..], &edit].concat(), true);
        assert!(output.status.success(), "{}", stderr(&output));
    }
    let wrong = "blocks.2.hook_resid_post:gemma-2b-it-res-jb/blocks.1.hook_resid_post@7:0.5";
    world.refused(&[&generate[..], &["--add", wrong]].concat(), true, &["the nearest are blocks.12.hook_resid_post"]);
}

#[test]
fn releases_and_their_dictionaries_are_listed() {
    let list = |args: &[&str]| exegete().args(["sae", "list"]).args(args).output().unwrap();
    let text = |args: &[&str]| String::from_utf8(list(args).stdout).unwrap();
    let all = text(&[]);
    assert!(all.contains("170 releases, 13857 dictionaries"), "{all}");
    assert!(all.lines().any(|line| line.starts_with("temporal-sae-gemma-2-2b") && line.ends_with("not read yet")));
    let some = text(&["Mistral"]);
    assert!(some.starts_with("mistral-7b-res-wg  mistral-7b     3  saelens\n1 releases"), "{some}");
    assert!(
        text(&["mistral-7b-res-wg"])
            .starts_with("mistral-7b-res-wg/blocks.8.hook_resid_pre  L0 92, variance explained")
    );
    let json: Value = serde_json::from_slice(&list(&["llama_scope_lxr_8x", "--json"]).stdout).unwrap();
    assert_eq!(json["repository"], "fnlp/Llama3_1-8B-Base-LXR-8x");
    assert_eq!(json["dictionaries"].as_array().unwrap().len(), 32);
    let none = list(&["gpt2-smol-res"]);
    assert!(!none.status.success() && stderr(&none).contains("gpt2-small-res-jb"), "{}", stderr(&none));
}
