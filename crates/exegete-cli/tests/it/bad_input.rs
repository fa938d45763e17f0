//! Bad input: a clear error, the right exit status, nothing half-written.

use std::path::Path;

use super::{NO_DATA, exegete, small_tour, stderr, stories};

#[track_caller]
fn refused(command: &mut std::process::Command, status: i32, parts: &[&str]) {
    let output = command.output().unwrap();
    let error = stderr(&output);
    assert_eq!(output.status.code(), Some(status), "{error}");
    assert!(!error.contains("panicked"), "{error}");
    for part in parts {
        assert!(error.contains(part), "{error:?} does not name {part:?}");
    }
}

#[test]
fn tours_of_bad_text_leave_nothing_behind() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let out = dir.path().join("run");
    let tour = |text: &Path| small_tour(&model, text, &out);
    refused(&mut tour(&file("empty.txt", b" \n")), 1, &["empty.txt", "no text"]);
    refused(&mut tour(&file("latin1.txt", b"caf\xe9 au lait, again and again")), 1, &["latin1.txt", "not UTF-8", "3"]);
    refused(&mut tour(&dir.path().join("missing.txt")), 1, &["missing.txt"]);
    refused(&mut tour(&file("bad.jsonl", b"{\"text\": \"a\"}\n{\"tex\": 1}\n")), 1, &["bad.jsonl", "line 2", "text"]);
    refused(&mut tour(&file("short.txt", b"One word.")), 1, &["fewer than one batch"]);
    let good = file("good.txt", "Once upon a time there was a little dog. ".repeat(400).as_bytes());
    let mut typo = tour(&good);
    refused(typo.args(["--site", "blocks.2.hook_resid_pots"]), 1, &["blocks.2.hook_resid_post"]);
    let mut layer = tour(&good);
    refused(layer.args(["--site", "blocks.9.hook_resid_post"]), 1, &["layers 0..=4"]);
    refused(tour(&good).args(["--site", "blocks.1.attn.hook_q"]), 1, &["hook_q", "residual stream"]);
    refused(tour(&good).args(["--k", "300"]), 1, &["--k"]);
    refused(tour(&good).args(["--insert-layer", "4"]), 1, &["--insert-layer"]);
    refused(tour(&good).args(["--window", "100000"]), 1, &["--window", "512"]);
    refused(tour(&good).args(["--context", "5000000"]), 1, &["--context"]);
    refused(tour(&good).args(["--latents", "many"]), 2, &["--latents"]);
    refused(tour(&good).args(["--device", "cuda"]), 2, &["--device cuda"]);
    refused(&mut small_tour(&dir.path().join("no.gguf"), &good, &out), 1, &["no.gguf"]);
    assert!(!out.exists(), "something was left behind");
}

#[test]
fn a_run_made_with_other_settings_is_not_touched() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("good.txt");
    std::fs::write(&text, "Once upon a time there was a little dog. She liked the sun.\n\n".repeat(400)).unwrap();
    let out = dir.path().join("run");
    let first = small_tour(&model, &text, &out).output().unwrap();
    assert!(first.status.success(), "{}", stderr(&first));
    let manifest = std::fs::read(out.join("manifest.json")).unwrap();
    refused(small_tour(&model, &text, &out).args(["--latents", "64"]), 1, &["latents", "256", "64", "--out"]);
    assert_eq!(std::fs::read(out.join("manifest.json")).unwrap(), manifest);
    std::fs::write(&text, "Something else entirely.\n\n".repeat(900)).unwrap();
    refused(&mut small_tour(&model, &text, &out), 1, &["good.txt", "content has changed"]);

    let shown = exegete().arg("show").arg(&out).arg("3").output().unwrap();
    assert!(shown.status.success() && String::from_utf8_lossy(&shown.stdout).contains("latent 3"));
    refused(exegete().arg("show").arg(&out).arg("999"), 1, &["999", "0 to 255"]);
    refused(exegete().arg("explain").arg(&out).args(["--latents", "5..1"]), 1, &["5..1"]);
    let info = exegete().args(["sae", "info"]).arg(out.join("sae")).output().unwrap();
    assert!(info.status.success() && String::from_utf8_lossy(&info.stdout).contains("topk"));
}

#[test]
fn a_resumed_run_that_fails_keeps_what_it_has() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("good.txt");
    std::fs::write(&text, "Once upon a time there was a little dog. She liked the sun.\n\n".repeat(400)).unwrap();
    let out = dir.path().join("run");
    let killed = small_tour(&model, &text, &out).env("EXEGETE_KILLPOINT", "train:1").output().unwrap();
    assert!(!killed.status.success());
    let kept = out.join("cache/blocks.1.hook_resid_post/part-00000.safetensors");
    assert!(kept.exists(), "the cache was written before the kill: {}", stderr(&killed));
    let tokens = out.join("tokens/part-00000.parquet");
    let bytes = std::fs::read(&tokens).unwrap();
    std::fs::write(&tokens, &bytes[..bytes.len() / 2]).unwrap();
    refused(&mut small_tour(&model, &text, &out), 1, &["part-00000.parquet"]);
    assert!(kept.exists() && out.join("manifest.json").exists(), "a damaged part took the others with it");
}

#[test]
fn a_config_file_gives_flags_and_typed_flags_win() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("exegete.toml");
    std::fs::write(&config, "max_new_tokens = 3\nprompt = \"a\"\nno_such_flag = 1\n").unwrap();
    let mut command = exegete();
    refused(command.args(["model", "generate", "nowhere.gguf", "--config"]).arg(&config), 2, &["--no-such-flag"]);
    std::fs::write(&config, "max_new_tokens = 3\nprompt = \"a\"\n").unwrap();
    let mut command = exegete();
    refused(command.args(["model", "generate", "nowhere.gguf", "--config"]).arg(&config), 1, &["nowhere.gguf"]);
    let mut command = exegete();
    refused(command.args(["model", "generate", "nowhere.gguf", "--config", "absent.toml"]), 2, &["absent.toml"]);
}
