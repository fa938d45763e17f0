//! Harvests: however a text is split, in whatever order, on however many threads, and wherever they are killed, the merged run is
//! that of one pass, byte for byte.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use exegete_base::sampling::pair_hash;

use super::{NO_DATA, exegete, stderr, stories};

const TOKENS: &str = "9000";

/// Dictionaries of different sites, in a run of their own: one of them reads the outputs of heads.
fn dictionaries(model: &Path, text: &Path, dir: &Path) -> [PathBuf; 3] {
    let grid = dir.join("grid.toml");
    let of = |name: &str, rest: &str| format!("[[dictionary]]\nname = \"{name}\"\n{rest}\n");
    let topk = of("topk", "activation = \"topk\"\nk = 8\nsite = \"blocks.1.hook_resid_post\"");
    let relu = of("relu", "activation = \"relu\"\npenalty = \"l1\"\nsparsity = 0.02\nsite = \"blocks.2.hook_mlp_out\"");
    let heads = of("heads", "activation = \"topk\"\nk = 6\nsite = \"blocks.2.attn.hook_z\"");
    std::fs::write(&grid, topk + &relu + &heads).unwrap();
    let mut command = exegete();
    command.args(["sae", "train"]).arg(model).arg("--text").arg(text).arg("--grid").arg(&grid);
    command.arg("--out").arg(dir.join("trained"));
    command.args("--max-tokens 9000 --latents 96 --batch 128 --epochs 1 --window 48 --record-bytes 1500".split(' '));
    let done = command.output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    ["topk", "relu", "heads"].map(|name| dir.join("trained/sae").join(name))
}

struct Setup {
    model: PathBuf,
    text: PathBuf,
    saes: Vec<PathBuf>,
}

impl Setup {
    fn harvest(&self, out: &Path, flags: &[&str]) -> Command {
        let mut command = exegete();
        command.arg("harvest").arg(&self.model).arg("--text").arg(&self.text).arg("--sae").args(&self.saes);
        command.arg("--out").arg(out).args(["--max-tokens", TOKENS, "--seed", "3", "--correlation-tokens", "500"]);
        command
            .args("--keep-activations --window 24 --record-bytes 700 --context 5 --sketch 20 --sink-norm 2".split(' '))
            .args(flags);
        command
    }
}

/// Tables and tokens of a run, by their paths in it.
fn content(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let (mut files, mut dirs) = (BTreeMap::new(), vec![run.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            let rel = path.strip_prefix(run).unwrap().display().to_string();
            if path.is_dir() {
                dirs.push(path);
            } else if rel.ends_with(".parquet") {
                files.insert(rel, std::fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn manifest(run: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(run.join("manifest.json")).unwrap()).unwrap()
}

fn setup(dir: &Path) -> Option<Setup> {
    let model = stories()?;
    let text = exegete_testkit::data_dir()?.join("corpora/tinystories");
    let saes = dictionaries(&model, &text, dir).to_vec();
    Some(Setup { model, text, saes })
}

#[test]
fn any_sharding_in_any_order_killed_anywhere_merges_to_one_pass() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = setup(dir.path()) else { return exegete_testkit::not_run(NO_DATA) };
    let whole = dir.path().join("whole");
    let done = setup.harvest(&whole, &[]).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let (want, told) = (content(&whole), manifest(&whole));
    let named = |end: &str| want.keys().filter(|rel| rel.ends_with(end)).cloned().collect::<Vec<_>>();
    assert_eq!(named("latents.parquet").len(), 3, "{:?}", want.keys());
    assert_eq!(named("attribution.parquet"), ["latents/heads/attribution.parquet"]);
    assert!(!want.keys().any(|rel| rel.starts_with("harvest/")), "what was gathered is removed");
    let sinks = told["stages"]["harvest"]["dictionaries"][1]["sinks"].as_u64().unwrap();
    assert!(sinks > 0, "some tokens are passed over: {told}");

    let seed = std::env::var("EXEGETE_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    eprintln!("seed {seed} (EXEGETE_TEST_SEED repeats it)");
    for trial in 0..4u64 {
        let draw = |what: u64, n: u64| pair_hash(seed, trial, what) % n;
        let of = 1 + draw(0, 5);
        let mut shards: Vec<PathBuf> = Vec::new();
        for index in 1..=of {
            let out = dir.path().join(format!("{trial}-{index}"));
            let (shard, threads) = (format!("{index}/{of}"), (1 + draw(100 + index, 3)).to_string());
            let memory = ["0.00001", "1"][draw(200 + index, 2) as usize];
            let flags = ["--shard", &shard, "--threads", &threads, "--memory", memory];
            let name =
                ["harvest", "commit.before", "commit.after", "rename.after", "merge"][draw(300 + index, 5) as usize];
            let killpoint = format!("{name}:{}", 1 + draw(400 + index, 6));
            let killed = setup.harvest(&out, &flags).env("EXEGETE_KILLPOINT", &killpoint).output().unwrap();
            // With few batches a shard may end before it is killed.
            assert!(killed.status.success() || killed.status.signal() == Some(9), "{killpoint}: {}", stderr(&killed));
            let done = setup.harvest(&out, &flags).output().unwrap();
            assert!(done.status.success(), "seed {seed}, {killpoint}: {}", stderr(&done));
            shards.insert(draw(500 + index, shards.len() as u64 + 1) as usize, out);
        }
        let merged = dir.path().join(format!("{trial}-merged"));
        let done = exegete().arg("merge").args(&shards).arg("--out").arg(&merged).output().unwrap();
        assert!(done.status.success(), "seed {seed}: {}", stderr(&done));
        let got = content(&merged);
        assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
        let differs: Vec<&String> = want.keys().filter(|rel| got[*rel] != want[*rel]).collect();
        assert!(differs.is_empty(), "seed {seed}, {of} shards: {differs:?} differ");
        let merged = manifest(&merged);
        assert_eq!(merged["stages"], told["stages"], "seed {seed}");
        assert_eq!(merged["parts"], told["parts"], "seed {seed}");
        assert_eq!(merged["settings"], told["settings"], "seed {seed}");
    }
}

#[test]
fn what_cannot_be_merged_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut setup) = setup(dir.path()) else { return exegete_testkit::not_run(NO_DATA) };
    setup.saes.truncate(1);
    let at = |name: &str| dir.path().join(name);
    let made = |name: &str, flags: &[&str]| {
        let done = setup.harvest(&at(name), flags).output().unwrap();
        assert!(done.status.success(), "{}", stderr(&done));
        at(name)
    };
    let (first, second) = (made("first", &["--shard", "1/2"]), made("second", &["--shard", "2/2"]));
    let other = made("other", &["--shard", "2/2", "--top-examples", "3"]);
    let whole = made("whole", &[]);
    let refused = |runs: &[&PathBuf], out: &str, why: &str| {
        let done = exegete().arg("merge").args(runs).arg("--out").arg(at(out)).output().unwrap();
        let said = stderr(&done);
        assert!(done.status.code() == Some(1) && said.contains(why), "{why}: {said}");
    };
    refused(&[&first], "a", "shards are missing: 2/2");
    refused(&[&first, &first], "a", "shard 1 is ");
    refused(&[&first, &whole], "a", "it is no shard");
    refused(&[&first, &other], "a", "keep.top_examples: was 20, now 3");
    refused(&[&first, &second], "first", "--out ");
    refused(&[&first, &at("nowhere")], "a", "nowhere");
    assert!(!at("a").exists(), "nothing is left behind");
    let state = std::fs::read_dir(first.join("harvest")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&state).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&state, bytes).unwrap();
    refused(&[&first, &second], "b", "make this shard again");
    let usage = |flags: &[&str], why: &str| {
        let done = setup.harvest(&at("c"), flags).output().unwrap();
        assert!(!done.status.success() && stderr(&done).contains(why), "{why}: {}", stderr(&done));
        assert!(!at("c").exists());
    };
    usage(&["--shard", "3/2"], "a shard is I/N");
    usage(&["--memory", "0"], "--memory 0");
    usage(&["--sink-norm", "0.5"], "--sink-norm must be 0");
    usage(&["--site", "blocks.9.hook_resid_post"], "blocks.9.hook_resid_post");
    let plan = setup.harvest(&at("d"), &["--dry-run"]).output().unwrap();
    let said = String::from_utf8_lossy(&plan.stdout).into_owned();
    assert!(plan.status.success() && said.contains("memory ") && said.contains("disk ") && !at("d").exists(), "{said}");
}

#[test]
fn what_a_harvest_made_is_explained_reported_and_held_to_its_weights() {
    let dir = tempfile::tempdir().unwrap();
    let Some(setup) = setup(dir.path()) else { return exegete_testkit::not_run(NO_DATA) };
    let run = dir.path().join("run");
    let done = setup.harvest(&run, &[]).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let of = |command: &str, rest: &[&str]| exegete().arg(command).arg(&run).args(rest).output().unwrap();
    let told = |done: &std::process::Output| String::from_utf8_lossy(&done.stdout).into_owned();

    let flags =
        "--dictionary topk --latents 0..3 --scales 4 --explanation-tokens 3 --insert-layer 1 --abstain-below -1";
    let flags: Vec<&str> = flags.split(' ').collect();
    let explained = of("explain", &flags);
    assert!(explained.status.success(), "{}", stderr(&explained));
    let missing = of("explain", &["--latents", "0"]);
    assert!(stderr(&missing).contains("topk, relu, heads"), "{}", stderr(&missing));

    // What people say of the texts, in the order of the method's own scores.
    let path = run.join("latents/topk/run.sqlite");
    let notes = exegete_store::Notes::open(&path).unwrap();
    let reported = told(&of("report", &["--dictionary", "topk"]));
    assert!(reported.contains("nobody has rated a text yet"), "{reported}");
    let mut candidates = notes.candidates().unwrap();
    assert!(candidates.len() >= 3, "{} texts", candidates.len());
    let score = |c: &exegete_store::Candidate| {
        let all = notes.explanations_of(exegete_base::LatentId(c.latent)).unwrap();
        all.iter().find(|e| e.rank == c.rank && e.method == c.method).unwrap().score
    };
    // What is said without a search has no score of its own.
    candidates.retain(|c| c.method == "self");
    candidates.sort_by(|a, b| score(a).total_cmp(&score(b)));
    let n = candidates.len();
    candidates.iter().enumerate().for_each(|(i, c)| notes.rate(c, (1 + 4 * i / n) as u8, 0).unwrap());
    drop(notes);
    let reported = of("report", &["--dictionary", "topk", "--json"]);
    let reported: serde_json::Value = serde_json::from_slice(&reported.stdout).unwrap();
    let agreement = &reported["agreement"]["self's own score"];
    assert!(agreement["value"].as_f64().unwrap() > 0.8 && agreement["n"] == n, "{reported}");

    explained_and_scored(&of);
    controlled_and_adapted(&of, dir.path());
    let shown = told(&of("show", &["0", "--dictionary", "heads", "--color", "never"]));
    assert!(shown.contains("comes from ") && shown.contains("promotes"), "{shown}");
    let weights = dir.path().join("trained/sae/topk/sae_weights.safetensors");
    let mut bytes = std::fs::read(&weights).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    std::fs::write(&weights, bytes).unwrap();
    let refused = of("explain", &flags);
    assert!(!refused.status.success() && stderr(&refused).contains("weights are others"), "{}", stderr(&refused));

    // A part that is gone is told of by the same command, which would otherwise say that all is done.
    std::fs::remove_file(run.join("latents/relu/latents.parquet")).unwrap();
    let mut again = setup.harvest(&run, &[]);
    let again = again.output().unwrap();
    assert!(!again.status.success(), "a run of other weights, with a part missing, is not finished");
}

/// A judge explains, everything is scored, once and not again, and what is wrong with a judge is said.
fn explained_and_scored(of: &dyn Fn(&str, &[&str]) -> std::process::Output) {
    let json = |done: &std::process::Output| -> serde_json::Value {
        assert!(done.status.success(), "{}", stderr(done));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let dictionary = ["--dictionary", "topk", "--json"];
    let few = ["--excerpt-tokens", "8", "--pool-tokens", "3000"];
    for method in ["judge", "output", "token-change"] {
        let flags = ["--latents", "0..2", "--method", method, "--texts", "2", "--shown", "3"];
        let said = json(&of("explain", &[&dictionary[..], &few, &flags].concat()));
        assert_eq!(said["explained"].as_array().unwrap().len(), 3, "{said}");
        assert!(said["explained"][0]["texts"].as_array().is_some_and(|texts| !texts.is_empty()), "{said}");
    }
    let unknown = of("explain", &["--dictionary", "topk", "--latents", "0", "--method", "guess"]);
    assert!(stderr(&unknown).contains("both-sides"), "{}", stderr(&unknown));

    let sizes = ["--firing", "12", "--silent", "12", "--latents", "0..3", "--most-texts", "3"];
    let score = |rest: &[&str]| of("score", &[&dictionary[..], &few, &sizes, rest].concat());
    let against = ["--against", "random,cofiring,same-token"];
    let most = ["--scorer", "embedding,surprisal,generation,output-surprisal,intruder"];
    let scored = json(&score(&[most, against].concat()));
    let scores = scored["scores"].as_array().unwrap();
    let count = |key: &str, name: &str| {
        scores
            .iter()
            .filter(|score| score[key].as_str().is_some_and(|text| text.split(" (").next() == Some(name)))
            .count()
    };
    assert!(count("scorer", "embedding") >= 3 && count("scorer", "intruder") >= 1, "{scored}");
    assert!(count("scorer", "output-surprisal") >= 3, "{scored}");
    assert!(count("against", "shuffled") >= 3 && count("against", "itself") >= 3, "{scored}");
    for score in scores.iter().filter(|s| s["value"]["value"].is_number()) {
        let [low, value, high] = ["low", "value", "high"].map(|key| score["value"][key].as_f64().unwrap());
        assert!(low <= value + 1e-12 && value <= high + 1e-12 && (0.0..=1.0).contains(&value), "{score}");
    }
    assert!(scored["cost"]["computed"].as_u64().unwrap() > 0);
    let again = json(&score(&[["--scorer", "embedding"], against].concat()));
    assert_eq!((again["scores"].as_array().unwrap().len(), &again["cost"]["computed"]), (0, &0.into()), "{again}");

    let other = json(&score(&["--scorer", "embedding", "--against", "decoder"]));
    assert!(!other["scores"].as_array().unwrap().is_empty(), "another comparison is another score: {other}");

    let reported = json(&of("report", &[&dictionary[..], &["--scales", "embedding"]].concat()));
    let of_scorer = |name: &str| -> Vec<serde_json::Value> {
        let all = reported["scores"].as_array().unwrap().iter();
        all.filter(|s| s["scorer"] == name).cloned().collect()
    };
    let told = of_scorer("embedding");
    assert!(told.len() >= 3 && told[0]["first"]["mean"]["value"].is_number(), "{reported}");
    assert_eq!(told[0]["controls"][0]["name"], "shuffled", "{reported}");
    let is_own = |s: &serde_json::Value| s["against"].as_str().is_some_and(|a| !a.starts_with("shuffled"));
    assert!(told.iter().all(is_own), "controls stand beside their scorers: {reported}");
    let controlled: Vec<_> = told.iter().filter(|s| s["controls"][0]["name"] == "shuffled").collect();
    assert!(controlled.len() >= 3, "each comparison has its own control: {reported}");
    let rules = reported["scales"][0]["rules"].as_array().unwrap();
    assert!(rules.iter().any(|rule| rule["rule"] == "plateaus" && rule["first"]["n"].is_number()), "{reported}");
    let wrong = score(&["--scorer", "divination"]);
    assert!(stderr(&wrong).contains("surprisal"), "{}", stderr(&wrong));
    // Nothing listens there: what was kept is kept, and the message says how to go on.
    let away = score(&["--scorer", "detection", "--judge", "http://127.0.0.1:9/v1", "--judge-retries", "0"]);
    assert!(!away.status.success() && stderr(&away).contains("give the command again"), "{}", stderr(&away));
    let dry = json(&score(&[
        "--scorer",
        "detection",
        "--judge",
        "http://127.0.0.1:9/v1",
        "--dry-run",
        "--judge-prices",
        "1,1",
    ]));
    assert!(dry["cost"]["requests"].as_u64().unwrap() > 10 && dry["cost"]["money"].as_f64().unwrap() > 0.0, "{dry}");
}

/// Random directions are a control, an adapter is trained on what was said, and tells directions by texts.
fn controlled_and_adapted(of: &dyn Fn(&str, &[&str]) -> std::process::Output, dir: &std::path::Path) {
    let json = |done: &std::process::Output| -> serde_json::Value {
        assert!(done.status.success(), "{}", stderr(done));
        serde_json::from_slice(&done.stdout).unwrap()
    };
    let dictionary = ["--dictionary", "topk", "--json"];
    let quick = ["--scales", "4", "--explanation-tokens", "3", "--insert-layer", "1", "--abstain-below", "-1"];
    let random =
        json(&of("explain", &[&dictionary[..], &quick, &["--latents", "0..2", "--method", "random"]].concat()));
    assert_eq!(random["random_directions"], 3, "{random}");
    let few = ["--excerpt-tokens", "8", "--pool-tokens", "3000", "--firing", "12", "--silent", "12"];
    let score = |rest: &[&str]| of("score", &[&dictionary[..], &few, &["--latents", "0..2", "--again"], rest].concat());
    let scored = json(&score(&["--scorer", "embedding"]));
    let against = |name: &str| {
        let of = |s: &&serde_json::Value| s["against"].as_str().is_some_and(|a| a.starts_with(name));
        scored["scores"].as_array().unwrap().iter().filter(of).count()
    };
    assert!(against("random-direction (random)") >= 2 && against("random-direction (co-firing)") >= 2, "{scored}");
    let shown = json(&of("show", &["0", "--dictionary", "topk", "--json"]));
    assert!(shown["methods"].as_array().unwrap().iter().all(|m| m["method"] != "random"), "{shown}");

    let explained = of("explain", &[&dictionary[..], &quick, &["--latents", "0..39"]].concat());
    assert!(explained.status.success(), "{}", stderr(&explained));
    let file = dir.join("adapter.safetensors");
    let file = file.to_str().unwrap();
    let train = ["--method", "self", "--epochs", "2", "--batch", "16", "--out", file];
    let trained = json(&of("adapter", &[&dictionary[..], &train].concat()));
    let loss = |key: &str| trained[key].as_f64().unwrap();
    assert!(loss("loss") < loss("loss_before") && loss("loss_shuffled").is_finite(), "{trained}");
    let again = json(&of("explain", &[&dictionary[..], &quick, &["--latents", "0..2"]].concat()));
    assert_eq!(again.as_array().unwrap().len(), 0, "what is there is not asked again: {again}");
    let adapted = ["--latents", "0..2", "--method", "adapter", "--adapter", file, "--texts", "2"];
    let said = json(&of("explain", &[&dictionary[..], &adapted].concat()));
    assert_eq!(said.as_array().unwrap().len(), 3, "{said}");
    let without = of("explain", &["--dictionary", "topk", "--latents", "0", "--method", "adapter"]);
    assert!(!without.status.success() && stderr(&without).contains("--adapter"), "{}", stderr(&without));
    // One scorer that cannot score is told of, and the other goes on.
    let scored = score(&["--scorer", "faithfulness,embedding"]);
    assert!(stderr(&scored).contains("needs --adapter FILE"), "{}", stderr(&scored));
    let scored = json(&scored);
    let of_scorer = |scored: &serde_json::Value, name: &str| -> Vec<serde_json::Value> {
        scored["scores"].as_array().unwrap().iter().filter(|s| s["scorer"] == name).cloned().collect()
    };
    assert!(of_scorer(&scored, "faithfulness").iter().all(|s| s["value"]["value"].is_null()), "{scored}");
    assert!(!of_scorer(&scored, "embedding").is_empty(), "{scored}");
    let scored = json(&score(&["--scorer", "faithfulness", "--adapter", file]));
    let faithful = of_scorer(&scored, "faithfulness");
    assert!(faithful.len() >= 3 && faithful.iter().all(|s| s["value"]["n"] == 31), "{scored}");
    let broken = dir.join("broken.safetensors");
    std::fs::write(&broken, &std::fs::read(file).unwrap()[..200]).unwrap();
    let refused = score(&["--scorer", "faithfulness", "--adapter", broken.to_str().unwrap()]);
    assert!(!refused.status.success() && stderr(&refused).contains("broken.safetensors"), "{}", stderr(&refused));
}

#[test]
fn shards_of_other_places_are_merged() {
    let dir = tempfile::tempdir().unwrap();
    let Some(mut setup) = setup(dir.path()) else { return exegete_testkit::not_run(NO_DATA) };
    setup.saes.truncate(1);
    let (first, second) = (dir.path().join("first"), dir.path().join("second"));
    assert!(setup.harvest(&first, &["--shard", "1/2"]).output().unwrap().status.success());
    // The same weights and model, as another machine has them elsewhere.
    let (sae, model) = (dir.path().join("elsewhere"), dir.path().join("model/stories260K.bin"));
    std::fs::create_dir_all(&sae).unwrap();
    std::fs::create_dir_all(model.parent().unwrap()).unwrap();
    for file in std::fs::read_dir(&setup.saes[0]).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
        std::fs::copy(&file, sae.join(file.file_name().unwrap())).unwrap();
    }
    for file in std::fs::read_dir(setup.model.parent().unwrap()).unwrap().map(|e| e.unwrap().path()) {
        std::fs::copy(&file, model.parent().unwrap().join(file.file_name().unwrap())).unwrap();
    }
    (setup.saes[0], setup.model) = (sae, model);
    let done = setup.harvest(&second, &["--shard", "2/2"]).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let merged = dir.path().join("merged");
    let done = exegete().arg("merge").args([&second, &first]).arg("--out").arg(&merged).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));

    std::fs::remove_file(merged.join("examples/part-00000.parquet")).unwrap();
    let shown = exegete().arg("show").arg(&merged).arg("0").output().unwrap();
    assert!(String::from_utf8_lossy(&shown.stdout).contains("not shown: "), "{}", stderr(&shown));
}
