//! The SAELens layout: read against SAELens's own output (`refs/sae_saelens`), written and read back, refused.

use std::fs;
use std::path::Path;

use exegete_sae::InputNorm;
use exegete_sae::formats::saelens::{CONFIG, WEIGHTS, load, to_bytes};
use exegete_sae::formats::{self, Choices, Saved};
use exegete_testkit::refs_dir;
use proptest::prelude::*;

fn write(dir: &Path, saved: &Saved) {
    let (config, weights) = to_bytes(saved).unwrap();
    fs::write(dir.join(CONFIG), config).unwrap();
    fs::write(dir.join(WEIGHTS), weights).unwrap();
}

#[test]
fn what_is_written_reads_back_the_same() {
    let peers = ["standard", "layer_norm", "jumprelu", "gated", "transcoder", "skip", "jump_skip", "batchtopk"];
    let cases = peers.iter().map(|case| format!("sae_peers/saelens_{case}"));
    for case in
        cases.chain(["sae_saelens/topk", "sae_matching_pursuit/few", "sae_matching_pursuit/again"].map(Into::into))
    {
        let mut saved = load(&refs_dir().join(&case)).unwrap();
        saved.metadata.insert("a_key_of_the_future".into(), serde_json::json!({"kept": true}));
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &saved);
        let again = load(dir.path()).unwrap();
        if case.ends_with("gated") {
            // Logarithm and exponential do not give the very same scale back.
            assert_eq!(again.metadata, saved.metadata);
            continue;
        }
        assert_eq!(again, saved, "{case}");
    }
}

#[track_caller]
fn refused(change: impl FnOnce(&Path), parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &load(&refs_dir().join("sae_saelens/topk")).unwrap());
    change(dir.path());
    let error = load(dir.path()).unwrap_err().to_string();
    assert!(parts.iter().all(|p| error.contains(p)), "{error:?} does not name {parts:?}");
}

fn set(key: &'static str, value: serde_json::Value) -> impl FnOnce(&Path) {
    move |dir| {
        let mut config: serde_json::Value = serde_json::from_slice(&fs::read(dir.join(CONFIG)).unwrap()).unwrap();
        config[key] = value;
        fs::write(dir.join(CONFIG), config.to_string()).unwrap();
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    refused(set("architecture", "gated".into()), &[WEIGHTS, "b_gate"]);
    refused(set("architecture", "jumprelu".into()), &[WEIGHTS, "threshold"]);
    refused(set("architecture", "temporal".into()), &["cfg.json", "temporal", "jumprelu"]);
    refused(set("architecture", serde_json::Value::Null), &["cfg.json", "key \"architecture\" is missing", "jumprelu"]);
    refused(set("normalize_activations", "batch".into()), &["normalize_activations", "batch", "layer_norm"]);
    refused(set("reshape_activations", "heads".into()), &["reshape_activations", "heads"]);
    refused(set("apply_b_dec_to_input", 1.into()), &["apply_b_dec_to_input"]);
    refused(set("k", 49.into()), &["k is 49"]);
    refused(set("d_sae", 47.into()), &["b_enc", "47"]);
    refused(|dir| fs::remove_file(dir.join(WEIGHTS)).unwrap(), &[WEIGHTS]);
    // A width that nothing could hold, which nothing is to be allocated for.
    refused(
        |dir| {
            set("architecture", "transcoder".into())(dir);
            set("apply_b_dec_to_input", false.into())(dir);
            set("d_out", (1u64 << 31).into())(dir);
        },
        &[WEIGHTS, "b_dec"],
    );
    refused(
        |dir| {
            let bytes = fs::read(dir.join(WEIGHTS)).unwrap();
            fs::write(dir.join(WEIGHTS), &bytes[..bytes.len() - 7]).unwrap();
        },
        &[WEIGHTS, "nor a whole safetensors file"],
    );
}

#[test]
fn what_a_release_states_about_the_input_is_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let plain = load(&refs_dir().join("sae_saelens/topk")).unwrap();
    write(dir.path(), &plain);
    let stated = Choices { input_factor: Some(0.25), ..Choices::default() };
    assert_eq!(formats::load(dir.path(), &stated).unwrap(), plain, "inputs were not scaled");
    set("normalize_activations", "expected_average_only_in".into())(dir.path());
    let unknown = load(dir.path()).unwrap();
    assert_eq!(unknown.dictionary, plain.dictionary);
    assert!(unknown.notes.iter().any(|note| note.contains("states it elsewhere")), "{:?}", unknown.notes);
    let folded = formats::load(dir.path(), &stated).unwrap();
    let mut expected = plain.dictionary.sae().unwrap().clone();
    expected.fold_input_factor(0.25);
    assert_eq!(folded.dictionary, expected.into());
    assert!(folded.notes.iter().any(|note| note.contains("scaled by 0.25")), "{:?}", folded.notes);
    let normed = Choices { norm: Some(InputNorm::ConstantNormRescale), ..Choices::default() };
    assert_eq!(
        formats::load(dir.path(), &normed).unwrap().dictionary.sae().unwrap().norm,
        InputNorm::ConstantNormRescale
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..Default::default() })]
    #[test]
    fn mutated_files_never_panic(at in 0usize..4000, value in any::<u8>(), of_config in any::<bool>(), cut in 0usize..9000) {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &load(&refs_dir().join("sae_saelens/topk")).unwrap());
        let path = dir.path().join(if of_config { CONFIG } else { WEIGHTS });
        let mut bytes = fs::read(&path).unwrap();
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(cut.max(1));
        fs::write(&path, bytes).unwrap();
        let _ = load(dir.path());
    }
}
