//! The SAELens layout: read against SAELens's own output (`refs/sae_saelens`), written and read back, refused.

use std::fs;
use std::path::Path;

use exegete_sae::Dictionary;
use exegete_sae::formats::saelens::{CONFIG, Saved, WEIGHTS, load, to_bytes};
use exegete_testkit::{Golden, assert_close, refs_dir};
use proptest::prelude::*;

fn write(dir: &Path, saved: &Saved) {
    let (config, weights) = to_bytes(saved).unwrap();
    fs::write(dir.join(CONFIG), config).unwrap();
    fs::write(dir.join(WEIGHTS), weights).unwrap();
}

#[test]
fn saelens_and_we_agree() {
    for case in ["topk", "topk_rescaled"] {
        let golden = Golden::load(format!("sae_saelens/{case}/golden.safetensors"));
        let saved = load(&refs_dir().join("sae_saelens").join(case)).unwrap();
        assert_eq!(saved.metadata["hook_name"], "blocks.1.hook_resid_post");
        let sae = &saved.dictionary;
        let codes = sae.encode(golden.f32("x")).unwrap();
        let mut dense = vec![0f32; 9 * 48];
        for t in 0..9 {
            codes.of(t).for_each(|(latent, value)| dense[t * 48 + latent as usize] = value);
        }
        assert_close(case, &dense, golden.f32("acts"), 1e-5);
        let mut recon = vec![0f32; 9 * 16];
        sae.decode(&codes, &mut recon).unwrap();
        assert_close(case, &recon, golden.f32("recon"), 1e-5);
    }
}

#[test]
fn what_is_written_reads_back_the_same() {
    let mut saved = load(&refs_dir().join("sae_saelens/topk")).unwrap();
    saved.metadata.insert("a_key_of_the_future".into(), serde_json::json!({"kept": true}));
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), &saved);
    assert_eq!(load(dir.path()).unwrap(), saved);
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
    refused(set("architecture", "gated".into()), &["cfg.json", "gated"]);
    refused(set("normalize_activations", "layer_norm".into()), &["normalize_activations", "layer_norm"]);
    refused(set("k", 49.into()), &["cfg.json", "49"]);
    refused(set("d_sae", 47.into()), &["W_enc", "47"]);
    refused(|dir| fs::remove_file(dir.join(WEIGHTS)).unwrap(), &[WEIGHTS]);
    refused(
        |dir| {
            let bytes = fs::read(dir.join(WEIGHTS)).unwrap();
            fs::write(dir.join(WEIGHTS), &bytes[..bytes.len() - 7]).unwrap();
        },
        &[WEIGHTS, "not a whole"],
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
