//! Training a grid of dictionaries from the command line.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{NO_DATA, exegete, stderr, stories};

/// One of every kind, with what each has of its own.
const GRID: &str = r#"
latents = 128
k = 8
batch = 64
epochs = 2
aux_weight = 0.03
dead_after_tokens = 2000
lr = 1e-3

[[dictionary]]
name = "ranked"
activation = ["topk", "batchtopk"]

[[dictionary]]
name = "nested"
activation = "batchtopk"
prefixes = [16, 64]

[[dictionary]]
name = "steered"
activation = ["relu", "jumprelu", "gated"]
target_l0 = 8
decoder_rows = "free"
bandwidth = 0.5
sparsity = 0.01

[[dictionary]]
name = "kth"
activation = "kth-largest"
kth_form = ["b", "c"]

[[dictionary]]
name = "annealed"
activation = "relu"
penalty = "p-anneal"
penalty_p = 0.2

[[dictionary]]
name = "wide"
latents = 2048

[[dictionary]]
name = "transcoder"
site = "blocks.1.mlp.hook_in"
site_out = "blocks.1.hook_mlp_out"
skip = true

[[dictionary]]
name = "crosscoder"
site = "blocks.0.hook_resid_post,blocks.1.hook_resid_post"
activation = "batchtopk"
decoder_rows = "free"

[[dictionary]]
name = "layers"
site = "blocks.*.mlp.hook_in"
site_out = "blocks.*.hook_mlp_out"
latents = 64
"#;

fn train(model: &Path, grid: &Path, out: &Path) -> Command {
    let text = exegete_testkit::data_dir().unwrap().join("corpora/tinystories");
    let mut command = exegete();
    command.args(["sae", "train"]).arg(model).arg("--text").arg(text).arg("--grid").arg(grid).arg("--out").arg(out);
    let flags = "--max-tokens 12000 --window 48 --record-bytes 1500 --checkpoint-steps 11 --threads 2 --seed 5";
    command.args(flags.split_whitespace());
    command
}

/// Every file under a directory, but the manifest with its times.
fn content(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut files, mut dirs) = (BTreeMap::new(), vec![run.join("sae")]);
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
            match path.is_dir() {
                true => dirs.push(path),
                false => drop(files.insert(path.strip_prefix(run).unwrap().into(), std::fs::read(&path).unwrap())),
            }
        }
    }
    files
}

#[test]
fn a_grid_that_is_killed_at_any_instant_ends_with_the_same_dictionaries() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let dir = tempfile::tempdir().unwrap();
    let (grid, whole) = (dir.path().join("grid.toml"), dir.path().join("whole"));
    std::fs::write(&grid, GRID).unwrap();
    let output = train(&model, &grid, &whole).arg("--json").output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rows = told["dictionaries"].as_array().unwrap();
    assert_eq!(rows.len(), 13);
    for row in rows {
        let name = row["name"].as_str().unwrap();
        let saved = exegete_sae::formats::load(&whole.join("sae").join(name), &Default::default()).unwrap();
        let (result, kind) = (&row["result"], saved.dictionary.kind());
        assert_eq!(result["kind"], kind, "{name}");
        let (l0, fvu) = (result["l0"].as_f64().unwrap(), result["fvu"]["value"].as_f64().unwrap());
        // So few steps do not steer a penalty to its target yet.
        let is_near = !(name.starts_with("ranked") || name == "nested") || (4.0..16.0).contains(&l0);
        assert!(fvu < 1.0 && is_near && l0 > 0.0, "{name}: FVU {fvu}, L0 {l0}");
    }
    let want = content(&whole);
    // Weights, configuration, log and density of each; weights of each layer's two sides.
    assert_eq!(want.len(), 12 * 4 + 3 + 5 * 2, "{:?}", want.keys());

    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let seed: u64 = std::env::var("EXEGETE_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(seed);
    eprintln!("seed {seed} (EXEGETE_TEST_SEED repeats it)");
    let instants = [("train", 250), ("rename.before", 100), ("rename.after", 100), ("commit.before", 100)];
    for i in 0..20u64 {
        let (name, most) = instants[if i < 12 { 0 } else { i as usize % 4 }];
        let count = 1 + exegete_base::sampling::pair_hash(seed, i, 0) % most;
        let out = dir.path().join(format!("killed-{i}"));
        let killed = train(&model, &grid, &out).env("EXEGETE_KILLPOINT", format!("{name}:{count}")).output().unwrap();
        assert_eq!(killed.status.signal(), Some(9), "not killed at {name}:{count}: {}", stderr(&killed));
        let resumed = train(&model, &grid, &out).output().unwrap();
        assert!(resumed.status.success(), "{}", stderr(&resumed));
        let got = content(&out);
        assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>(), "killed at {name}:{count}");
        let differs: Vec<&PathBuf> = want.keys().filter(|name| got[*name] != want[*name]).collect();
        assert!(differs.is_empty(), "killed at {name}:{count} with seed {seed}: {differs:?} differ");
    }
}

/// A training of one of every shape, streamed or cached.
fn of_shapes(dir: &Path, out: &str, flags: &[&str]) -> Command {
    let grid = dir.join("shapes.toml");
    let (keys, shapes) = (GRID.find("[[").unwrap(), GRID.find("[[dictionary]]\nname = \"transcoder").unwrap());
    std::fs::write(&grid, [&GRID[..keys], &GRID[shapes..]].concat()).unwrap();
    let model = stories().unwrap();
    let mut command = train(&model, &grid, &dir.join(out));
    command.args(flags);
    command
}

#[test]
fn activations_that_are_streamed_train_the_same_dictionaries_as_those_that_are_kept() {
    if stories().is_none() {
        return exegete_testkit::not_run(NO_DATA);
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let run = |out: &str, flags: &[&str]| {
        let output = of_shapes(dir, out, flags).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        content(&dir.join(out))
    };
    // A buffer, or none: with one, streaming may find other scales and other tokens to calibrate on, where not all rows are
    // in it.
    let whole = run("kept", &[]);
    assert_eq!(whole, run("streamed", &["--stream", "--buffer-tokens", "1000000"]));
    let buffered = run("buffered", &["--buffer-tokens", "2000"]);
    assert!(buffered != whole, "a small buffer mixes as a large one does");
    let flags = ["--stream", "--buffer-tokens", "2000"];
    let streamed = run("streamed-2000", &flags);
    for (name, count) in [("train", 20), ("train", 170), ("commit.before", 30)] {
        let killed =
            of_shapes(dir, "killed", &flags).env("EXEGETE_KILLPOINT", format!("{name}:{count}")).output().unwrap();
        assert_eq!(killed.status.signal(), Some(9), "{}", stderr(&killed));
        assert_eq!(run("killed", &flags), streamed, "killed at {name}:{count}");
        std::fs::remove_dir_all(dir.join("killed")).unwrap();
    }
}

#[test]
fn activations_are_shared_between_trainings_and_checked() {
    if stories().is_none() {
        return exegete_testkit::not_run(NO_DATA);
    }
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let (whole, store) = (dir.join("store"), dir.join("store").display().to_string());
    let run = |out: &str, flags: &[&str]| {
        let output = of_shapes(dir, out, &[&["--activations", &store], flags].concat()).output().unwrap();
        (output.status.success(), stderr(&output))
    };
    let plain = of_shapes(dir, "plain", &[]).output().unwrap();
    assert!(plain.status.success() && !dir.join("plain/cache").exists(), "{}", stderr(&plain));
    let (done, said) = run("first", &[]);
    assert!(done && said.contains("cache "), "{said}");
    let (done, said) = run("second", &[]);
    assert!(done && !said.contains("cache "), "the model was run again: {said}");
    for out in ["first", "second"] {
        assert_eq!(content(&dir.join(out)), content(&dir.join("plain")), "{out}");
    }
    // Of another text, another precision, another model.
    let (done, said) = run("other", &["--max-tokens", "9000"]);
    assert!(!done && said.contains("--activations") && said.contains("max_tokens: was 12000, now 9000"), "{said}");
    let (done, said) = run("other", &["--activations-dtype", "bf16"]);
    assert!(!done && said.contains("stored: was \"f32\", now \"bf16\""), "{said}");
    assert!(!dir.join("other").exists());
    let part = whole.join("cache/blocks.1.hook_resid_post/part-00000.safetensors");
    let mut bytes = std::fs::read(&part).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&part, bytes).unwrap();
    let (done, said) = run("third", &[]);
    assert!(!done && said.contains("part-00000.safetensors") && said.contains("not what was written"), "{said}");
}

#[test]
fn a_training_does_not_go_on_from_what_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    let train = || {
        let mut command = exegete();
        command.args(["sae", "train", "builtin:organism", "--out"]).arg(&out);
        let flags = "--latents 64 --k 4 --batch 128 --epochs 2 --max-tokens 6000 --threads 2 --checkpoint-steps 10";
        command.args(flags.split_whitespace());
        command
    };
    let killed = train().env("EXEGETE_KILLPOINT", "train:35").output().unwrap();
    assert_eq!(killed.status.signal(), Some(9), "{}", stderr(&killed));
    let parts = [
        ("sae/checkpoint.bin", "train anew"),
        ("cache/blocks.2.hook_resid_post", "start again"),
        ("tokens", "start again"),
    ];
    for (part, said) in parts {
        let path = match out.join(part) {
            dir if dir.is_dir() => {
                let parts = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
                parts.min().unwrap()
            }
            file => file,
        };
        let bytes = std::fs::read(&path).unwrap();
        let mut other = bytes.clone();
        other[bytes.len() / 2] ^= 4;
        std::fs::write(&path, other).unwrap();
        let output = train().output().unwrap();
        let told = stderr(&output);
        assert!(!output.status.success() && told.contains("not what was written") && told.contains(said), "{told}");
        assert!(told.contains(path.file_name().unwrap().to_str().unwrap()), "{told}");
        std::fs::write(&path, bytes).unwrap();
    }
    let output = train().output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn a_site_without_a_width_is_refused() {
    for site in ["blocks.2.attn.hook_pattern", "blocks.2.attn.hook_attn_scores"] {
        let dir = tempfile::tempdir().unwrap();
        let mut command = exegete();
        command.args(["sae", "train", "builtin:organism", "--max-tokens", "3000", "--site", site, "--out"]);
        let output = command.arg(dir.path().join("run")).output().unwrap();
        let told = stderr(&output);
        assert!(output.status.code() == Some(1) && told.contains(site) && told.contains("name another site"), "{told}");
        assert!(!dir.path().join("run").exists(), "a run is left behind");
    }
}

#[test]
fn activations_of_fewer_bytes_train_nearly_as_well() {
    if stories().is_none() {
        return exegete_testkit::not_run(NO_DATA);
    }
    let dir = tempfile::tempdir().unwrap();
    let measured = |stored: &str| {
        let flags = ["--activations-dtype", stored, "--keep-cache", "--json"];
        let output = of_shapes(dir.path(), stored, &flags).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let told: Value = serde_json::from_slice(&output.stdout).unwrap();
        let fvu = |row: &Value| row["result"]["fvu"]["value"].as_f64().unwrap();
        let parts = content_of(&dir.path().join(stored).join("cache"));
        (told["dictionaries"].as_array().unwrap().iter().map(fvu).collect::<Vec<_>>(), parts)
    };
    let (exact, bytes) = measured("f32");
    for (stored, share, off) in [("bf16", 0.5, 0.02), ("int8", 0.25, 0.05)] {
        let (fvus, less) = measured(stored);
        assert!((less as f64 / bytes as f64 - share).abs() < 0.03, "{stored}: {less} of {bytes} bytes");
        for (a, b) in fvus.iter().zip(&exact) {
            assert!((a / b - 1.0).abs() < off, "{stored}: FVU {a}, of f32 {b}");
        }
    }
}

/// Bytes of all files under a directory.
fn content_of(dir: &Path) -> u64 {
    let entries = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    entries.map(|path| if path.is_dir() { content_of(&path) } else { path.metadata().unwrap().len() }).sum()
}

#[test]
fn one_that_diverges_is_named_and_costs_the_others_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (grid, out) = (dir.path().join("grid.toml"), dir.path().join("run"));
    let text = "latents = 64\nk = 4\nepochs = 1\nbatch = 256\n[[dictionary]]\nname = \"good\"\n\
        [[dictionary]]\nname = \"wild\"\nlr = 1e30\nactivation = \"relu\"\nsparsity = 1e30\n";
    let train = |text: &str| {
        std::fs::write(&grid, text).unwrap();
        let mut command = exegete();
        command.args(["sae", "train", "builtin:organism", "--max-tokens", "20000", "--grid"]).arg(&grid);
        let output = command.arg("--out").arg(&out).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        stderr(&output)
    };
    let said = train(text);
    assert!(said.contains("\"wild\"") && said.contains("not finite"), "{said}");
    assert!(out.join("sae/good/sae_weights.safetensors").exists() && !out.join("sae/wild/cfg.json").exists());
    // Other settings are told by their keys.
    let said = train(&text.replace("k = 4", "k = 5"));
    assert!(said.contains("sae/good.train.k: was 4, now 5") && !said.contains('{'), "{said}");
}

#[test]
fn grids_and_settings_that_cannot_be_are_refused_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (grid, out) = (dir.path().join("grid.toml"), dir.path().join("run"));
    let refused = |text: &str, flags: &[&str]| {
        std::fs::write(&grid, text).unwrap();
        let mut command = exegete();
        command.args(["sae", "train", "builtin:organism", "--max-tokens", "20000", "--grid"]).arg(&grid);
        let output = command.args(flags).arg("--out").arg(&out).output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(!out.exists(), "{text} left a run");
        stderr(&output)
    };
    let two = "[[dictionary]]\nname = \"a\"\n[[dictionary]]\nname = \"b\"\nbatch = 64";
    let said = refused(two, &[]);
    assert!(said.contains("\"b\"") && said.contains("batch"), "{said}");
    let said = refused("[[dictionary]]\nname = \"a\"\nlatent = 64", &[]);
    assert!(said.contains("grid.toml") && said.contains("\"latent\""), "{said}");
    let said = refused("[[dictionary]]\nname = \"a\"\nk = []", &[]);
    assert!(said.contains("\"k\" is empty"), "{said}");
    let said = refused("[[dictionary]]\nname = \"a\"\nbatch = 100000", &[]);
    assert!(said.contains("fewer than one batch"), "{said}");
    let said = refused("[[dictionary]]\nname = \"a\"", &["--site", "blocks.99.hook_resid_post"]);
    assert!(said.contains("blocks.99"), "{said}");
    for (keys, what) in [
        ("site = \"blocks.0.hook_mlp_out\"\nsite_out = \"blocks.0.hook_mlp_out\"", "leave it out for an autoencoder"),
        ("site = \"blocks.0.hook_mlp_out,blocks.1.mlp.hook_post\"", "one width"),
        ("site = \"blocks.0.hook_mlp_out,blocks.0.hook_mlp_out\"", "named twice"),
        ("site = \"blocks.0.mlp.hook_in\"\nsite_out = \"blocks.*.hook_mlp_out\"", "1 sites and --site-out 6"),
        (
            "site = \"blocks.0.mlp.hook_in,blocks.1.mlp.hook_in\"\nsite_out = \"blocks.0.hook_mlp_out,blocks.1.hook_mlp_out\"",
            "with a *",
        ),
        ("skip = true", "--site-out"),
        ("site = \"blocks.*.hook_mlp_out\"\nactivation = \"matching-pursuit\"", "matching pursuit"),
        ("site = \"blocks.*.hook_mlp_out\"\nactivation = \"gated\"", "no layout"),
    ] {
        let said = refused(&format!("[[dictionary]]\nname = \"a\"\n{keys}"), &[]);
        assert!(said.contains("\"a\"") && said.contains(what), "{said}");
    }
}
