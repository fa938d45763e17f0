//! Dictionaries of other projects, from the command line.

use std::path::Path;

use exegete_testkit::refs_dir;
use serde_json::Value;

use super::{exegete, stderr};

fn sae(args: &[&str]) -> std::process::Output {
    exegete().arg("sae").args(args).args(["--threads", "2"]).output().unwrap()
}

fn case(name: &str) -> String {
    refs_dir().join("sae_peers").join(name).display().to_string()
}

fn json(args: &[&str]) -> Value {
    let output = sae(&[args, &["--json"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_dictionary_of_another_project_is_told_and_converted() {
    let dir = tempfile::tempdir().unwrap();
    for (name, kind) in [("dl_batchtopk", "jumprelu"), ("dl_gated", "gated"), ("sparsify_sae/layers.2", "topk")] {
        let told = json(&["info", &case(name)]);
        assert_eq!((&told["kind"], &told["d_in"], &told["n_latents"]), (&kind.into(), &12.into(), &40.into()));
        let out = dir.path().join(kind).display().to_string();
        let converted = json(&["convert", &case(name), "--out", &out]);
        assert!(converted["compared"].as_u64() > Some(20), "{converted}");
        assert!(converted["largest_difference"].as_f64() < Some(1e-5), "{converted}");
        let again = json(&["info", &out]);
        assert_eq!((&again["format"], &again["kind"]), (&"saelens".into(), &kind.into()));
        let full = sae(&["convert", &case(name), "--out", &out]);
        assert!(full.status.code() == Some(1) && stderr(&full).contains("not empty"), "{}", stderr(&full));
    }
}

#[test]
fn a_dictionary_is_written_in_the_layout_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    for (name, to) in [("dl_topk", "sparsify"), ("dl_batchtopk", "gemma-scope")] {
        let out = dir.path().join(to).display().to_string();
        let converted = json(&["convert", &case(name), "--to", to, "--out", &out]);
        assert!(converted["to"] == to && converted["largest_difference"].as_f64() < Some(1e-5), "{converted}");
        assert_eq!(json(&["info", &out])["format"], to);
    }
    let out = dir.path().join("none");
    let out_name = out.display().to_string();
    refused(&["convert", &case("dl_topk"), "--to", "gemma-scope", "--out", &out_name], &out, &["kind topk"]);
    refused(
        &["convert", &case("dl_topk"), "--to", "openai", "--out", &out_name],
        &out,
        &["can be written; there are saelens"],
    );
}

#[track_caller]
fn refused(args: &[&str], out: &Path, parts: &[&str]) {
    let output = sae(args);
    let error = stderr(&output);
    assert!(!output.status.success() && parts.iter().all(|part| error.contains(part)), "{error}");
    assert!(!out.exists(), "something is left of it");
}

#[test]
fn what_cannot_be_converted_or_measured_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("out");
    let out_name = out.display().to_string();
    refused(&["convert", &case("dl_batchtopk_unset"), "--out", &out_name], &out, &["without a threshold"]);
    refused(
        &["convert", &case("sparsify_transcoder/layers.2"), "--out", &out_name, "--to", "gemma-scope"],
        &out,
        &["kind topk"],
    );
    let layers = refs_dir().join("sae_layers");
    for (name, to, place) in [
        ("crosscoder_relu", "saelens", "llamascopium-crosscoder"),
        ("crosscoder_jump", "gemma-scope", "llamascopium-crosscoder"),
        ("kissane", "saelens", "llamascopium-crosscoder"),
        ("clt_relu", "saelens", "circuit-tracer-clt"),
    ] {
        let sae = layers.join(name).display().to_string();
        refused(&["convert", &sae, "--out", &out_name, "--to", to], &out, &["has no place", &format!("--to {place}")]);
    }
    refused(&["convert", &case("nowhere"), "--out", &out_name], &out, &["nowhere"]);
    refused(&["info", &case("dl_topk"), "--format", "tensorflow"], &out, &["tensorflow", "sparsify"]);
    refused(&["info", &case("dl_topk"), "--model", "builtin:organism"], &out, &["--text"]);
    let organism = ["--model", "builtin:organism", "--text", "builtin:organism"];
    refused(&[&["info", &case("dl_topk")], &organism[..]].concat(), &out, &["12 wide", "192"]);
    refused(&[&["info", &case("dl_topk"), "--site", "blocks.9.hook_resid_post"], &organism[..]].concat(), &out, &["9"]);
}
