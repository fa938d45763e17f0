//! Every layout against what its own project makes of the same files, and its damaged, turned and renamed twins.

use std::fs;
use std::path::{Path, PathBuf};

use exegete_sae::formats::{Choices, Saved, load, write};
use exegete_sae::{Dictionary, containers};
use exegete_testkit::{Golden, assert_close, refs_dir};
use proptest::prelude::*;

use super::slopes_agree;

/// Files and directories that hold a dictionary beside a `golden.safetensors`, below a folder of `refs/`.
pub(crate) fn cases(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![refs_dir().join(folder)];
    while let Some(dir) = left.pop() {
        let entries: Vec<PathBuf> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        left.extend(entries.iter().filter(|path| path.is_dir()).cloned());
        if entries.iter().any(|path| path.ends_with("golden.safetensors")) {
            found.push(dir);
        }
    }
    found.sort();
    assert!(!found.is_empty(), "no goldens below {folder}");
    found
}

/// What is read in a directory with a golden: the directory, or its one file that is a dictionary by itself.
pub(crate) fn place(dir: &Path) -> PathBuf {
    let is_alone = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let ending = [".pt", ".pth"].iter().any(|e| name.ends_with(e)) && !["ae.pt", "cc_weights.pt"].contains(&&*name);
        ending || name.starts_with("layer_") && name.ends_with(".safetensors")
    };
    let found = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).find(is_alone);
    found.unwrap_or_else(|| dir.to_owned())
}

fn open(dir: &Path) -> Saved {
    load(&place(dir), &Choices::default()).unwrap_or_else(|e| panic!("{}: {e}", dir.display()))
}

/// Activations, dense, and the reconstruction.
pub(crate) fn run(sae: &dyn Dictionary, x: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let (n, f) = (x.len() / sae.d_in(), sae.n_latents());
    let codes = sae.encode(x).unwrap();
    let (mut dense, mut recon) = (vec![0f32; n * f], vec![0f32; n * sae.d_out()]);
    for t in 0..n {
        codes.of(t).for_each(|(latent, value)| dense[t * f + latent as usize] = value);
    }
    sae.reconstruct(x, &codes, &mut recon).unwrap();
    (dense, recon)
}

fn agrees(dir: &Path) -> Saved {
    let saved = open(dir);
    computes(&saved, dir);
    saved
}

/// Asserts that a dictionary computes what the golden of a directory says.
fn computes(saved: &Saved, dir: &Path) {
    let name = dir.display().to_string();
    let golden =
        Golden::load(dir.strip_prefix(refs_dir()).unwrap().join("golden.safetensors").to_string_lossy().into_owned());
    let (acts, recon) = run(&*saved.dictionary, golden.f32("x"));
    let active = |acts: &[f32]| acts.iter().map(|a| *a > 0.0).collect::<Vec<bool>>();
    assert_eq!(active(&acts), active(golden.f32("acts")), "{name}: other latents are active");
    assert!(active(&acts).iter().any(|a| *a), "{name}: nothing is active, so nothing is tested");
    assert_close(&name, &acts, golden.f32("acts"), 1e-5);
    assert_close(&name, &recon, golden.f32("recon"), 1e-5);
}

#[test]
fn peers_and_we_agree_on_their_own_files() {
    let expected = [("saelens", "saelens"), ("dl_", "dictionary-learning"), ("sparsify", "sparsify")];
    let mut n = 0;
    let lens = ["sae_saelens", "sae_matching_pursuit"].into_iter().flat_map(cases);
    for dir in cases("sae_peers").into_iter().chain(lens).collect::<Vec<_>>().iter() {
        let saved = agrees(dir);
        let text = dir.display().to_string();
        let case = &text[text.find("sae_").unwrap()..];
        if let Some((_, format)) = expected.iter().find(|(part, _)| case.contains(&format!("/{part}"))) {
            assert_eq!(saved.format, *format, "{case}");
        }
        n += 1;
    }
    assert!(n >= 25, "{n} cases");
}

#[test]
fn published_layouts_are_read_as_they_are_described() {
    for dir in cases("sae_layouts") {
        agrees(&dir);
    }
}

#[test]
fn what_is_written_in_another_layout_computes_the_same() {
    let gemma = cases("sae_layouts/gemma_scope_1").remove(0);
    let peer = |name: &str| refs_dir().join("sae_peers").join(name);
    for (from, to) in [
        (peer("sparsify_sae/layers.2"), "sparsify"),
        (peer("sparsify_transcoder/layers.2"), "sparsify"),
        (refs_dir().join("sae_saelens/topk"), "sparsify"),
        (gemma.clone(), "gemma-scope"),
        (peer("saelens_jumprelu"), "gemma-scope"),
        (peer("dl_batchtopk"), "gemma-scope"),
        (peer("dl_gated"), "saelens"),
    ] {
        let saved = open(&from);
        let copy = tempfile::tempdir().unwrap();
        let dir = copy.path().join(from.file_name().unwrap());
        fs::create_dir(&dir).unwrap();
        for (name, bytes) in write(&saved, to).unwrap() {
            fs::write(dir.join(name), bytes).unwrap();
        }
        let again = load(&dir, &Choices::default()).unwrap();
        assert_eq!(again.format, to);
        computes(&again, &from);
        if saved.format == to && to != "saelens" {
            // Its own arrays come out as they went in.
            let file = weights(&dir).file_name().unwrap().to_owned();
            let arrays = |dir: &Path| containers::read(&dir.join(&file)).unwrap();
            assert_eq!(arrays(&dir), arrays(&from), "{}", from.display());
        }
    }
    for (from, to, parts) in [
        ("saelens_standard", "sparsify", ["sparsify", "kind standard"]),
        ("saelens_layer_norm", "sparsify", ["sparsify", "kind"]),
        ("dl_topk", "gemma-scope", ["Gemma Scope", "kind topk"]),
        ("saelens_jump_skip", "gemma-scope", ["Gemma Scope", "transcoder"]),
        ("dl_topk", "openai", ["\"openai\" can be written", "saelens, sparsify, gemma-scope"]),
    ] {
        let error = write(&open(&peer(from)), to).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

#[test]
fn gradients_flow_through_every_rule_and_beside_it() {
    for case in ["saelens_standard", "saelens_jumprelu", "saelens_gated", "saelens_skip", "dl_topk"] {
        let golden = Golden::load(format!("sae_peers/{case}/golden.safetensors"));
        let sae = open(&refs_dir().join("sae_peers").join(case)).dictionary;
        let x = golden.f32("x")[..2 * sae.d_in()].to_vec();
        let seed: Vec<f32> = (0..2 * sae.d_out()).map(|i| (i as f32 * 1.7).cos()).collect();
        let objective =
            |x: &[f32]| -> f64 { run(&*sae, x).1.iter().zip(&seed).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
        let grad = sae.backward(&x, &seed, None).unwrap();
        slopes_agree(case, &x, &grad, objective);
    }
    let normed = open(&refs_dir().join("sae_peers/saelens_layer_norm")).dictionary;
    let error = normed.backward(&vec![0.5; normed.d_in()], &vec![1.0; normed.d_in()], None).unwrap_err().to_string();
    assert!(error.contains("layer_norm"), "{error}");
}

#[test]
fn conventions_that_change_numbers_are_said() {
    let peers = refs_dir().join("sae_peers");
    let notes = |case: &str| open(&peers.join(case)).notes.join("; ");
    assert!(notes("dl_batchtopk").contains("threshold of 0.6"), "{}", notes("dl_batchtopk"));
    assert!(notes("dl_batchtopk_unset").contains("depends on the others"), "{}", notes("dl_batchtopk_unset"));
    assert!(notes("saelens_old").contains("before version 6"), "{}", notes("saelens_old"));
    assert!(notes("dl_standard").contains("unit length"), "{}", notes("dl_standard"));
    assert_eq!(open(&peers.join("saelens_old")).site(), Some("blocks.2.hook_resid_pre"));
    assert_eq!(open(&peers.join("sparsify_sae/layers.2")).site(), Some("blocks.2.hook_resid_post"));
}

#[test]
fn what_a_release_or_a_path_says_stands_in_for_a_configuration() {
    let layouts = refs_dir().join("sae_layouts");
    let r1 = layouts.join("llama_scope_r1");
    let mut expected = open(&r1).dictionary.into_sae().unwrap();
    expected.fold_input_factor(2.5);
    let stated = Choices { input_factor: Some(2.5), ..Choices::default() };
    assert_eq!(load(&r1, &stated).unwrap().dictionary, expected.into());
    // Version 1 states its own.
    assert_eq!(load(&layouts.join("llama_scope_1"), &stated).unwrap(), open(&layouts.join("llama_scope_1")));

    let copy = tempfile::tempdir().unwrap();
    let named = Choices { format: Some("gemma-scope-2".into()), ..Choices::default() };
    for (folder, site, transcodes) in [
        ("resid_post_all/layer_7_width_16k_l0_big", "blocks.7.hook_resid_post", false),
        ("transcoder/layer_9_width_16k_l0_small_affine", "blocks.9.ln2.hook_normalized", true),
    ] {
        let dir = copy.path().join(folder);
        fs::create_dir_all(&dir).unwrap();
        fs::copy(layouts.join("gemma_scope_2/params.safetensors"), dir.join("params.safetensors")).unwrap();
        let saved = load(&dir, &named).unwrap();
        assert_eq!((saved.site(), saved.dictionary.transcodes()), (Some(site), transcodes));
    }
}

#[test]
fn nothing_that_is_no_dictionary_is_taken_for_one() {
    let dir = tempfile::tempdir().unwrap();
    let error = load(dir.path(), &Choices::default()).unwrap_err().to_string();
    assert!(error.contains("params.npz") && error.contains("ae.pt"), "{error}");
    let error = load(&dir.path().join("nowhere"), &Choices::default()).unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
    let choices = Choices { format: Some("saelense".into()), ..Choices::default() };
    let error = load(dir.path(), &choices).unwrap_err().to_string();
    assert!(error.contains("\"saelense\"") && error.contains("saelens,"), "{error}");
}

/// A copy of a case, changed.
pub(crate) fn twin(dir: &Path, change: impl FnOnce(&Path)) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join(dir.file_name().unwrap());
    fs::create_dir(&to).unwrap();
    let mut left = vec![(dir.to_owned(), to.clone())];
    while let Some((from, to)) = left.pop() {
        for entry in fs::read_dir(from).unwrap().map(|e| e.unwrap().path()) {
            let to = to.join(entry.file_name().unwrap());
            if entry.is_dir() {
                fs::create_dir(&to).unwrap();
                left.push((entry, to));
            } else if !entry.ends_with("golden.safetensors") {
                fs::copy(&entry, to).unwrap();
            }
        }
    }
    change(&to);
    copy
}

/// The file of weights of a case.
fn weights(dir: &Path) -> PathBuf {
    let mut left = vec![place(dir)];
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(
                fs::read_dir(path).unwrap().map(|e| e.unwrap().path()).filter(|p| !p.ends_with("golden.safetensors")),
            );
        } else if path.extension().is_some_and(|e| e != "json") {
            return path;
        }
    }
    panic!("no weights in {}", dir.display());
}

fn every_case() -> Vec<PathBuf> {
    ["sae_peers", "sae_saelens", "sae_matching_pursuit", "sae_layouts"].into_iter().flat_map(cases).collect()
}

#[test]
fn a_damaged_twin_of_every_layout_is_refused() {
    for dir in every_case() {
        let cut = twin(&dir, |to| {
            let path = weights(to);
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() * 3 / 4]).unwrap();
        });
        let at = cut.path().join(dir.file_name().unwrap());
        assert!(load(&place(&at), &Choices::default()).is_err(), "{}: a cut file was read", dir.display());
    }
}

#[test]
fn a_turned_and_a_renamed_twin_are_refused() {
    // In safetensors, which a test can write: every matrix turned, then one tensor under another name.
    for dir in every_case() {
        let path = weights(&dir);
        if path.extension().is_none_or(|e| e != "safetensors") {
            continue;
        }
        let arrays = containers::read(&path).unwrap().arrays;
        let rewritten = |turn: bool, rename: &str| {
            let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = arrays
                .iter()
                .map(|(name, array)| {
                    let (mut shape, mut values) = (array.shape.clone(), array.values.clone());
                    if let (true, &[r, c]) = (turn, &array.shape[..]) {
                        values = (0..r * c).map(|i| array.values[i % r * c + i / r]).collect();
                        shape = vec![c, r];
                    }
                    let name = if name == rename { format!("{name}_of_another") } else { name.clone() };
                    (name, shape, values.iter().flat_map(|v| v.to_le_bytes()).collect())
                })
                .collect();
            let views: Vec<_> = tensors
                .iter()
                .map(|(name, shape, bytes)| {
                    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes);
                    (name.clone(), view.unwrap())
                })
                .collect();
            safetensors::serialize(views, None).unwrap()
        };
        let first = arrays.keys().next().unwrap();
        for (what, bytes) in [("turned", rewritten(true, "")), ("renamed", rewritten(false, first))] {
            let copy = twin(&dir, |to| fs::write(weights(to), bytes).unwrap());
            let at = copy.path().join(dir.file_name().unwrap());
            let error = load(&place(&at), &Choices::default());
            assert!(error.is_err(), "{}: a {what} twin was read", dir.display());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..Default::default() })]
    #[test]
    fn mutated_files_of_every_layout_never_panic(
        which in any::<prop::sample::Index>(), of_json in any::<bool>(), at in any::<prop::sample::Index>(),
        value in any::<u8>(), cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let all = every_case();
        let dir = which.get(&all);
        let copy = twin(dir, |to| {
            let json = fs::read_dir(to).unwrap().map(|e| e.unwrap().path()).find(|p| p.extension().is_some_and(|e| e == "json"));
            let path = json.filter(|_| of_json).unwrap_or_else(|| weights(to));
            let mut bytes = fs::read(&path).unwrap();
            let at = at.index(bytes.len());
            bytes[at] = value;
            if let Some(cut) = cut {
                bytes.truncate(cut.index(bytes.len()));
            }
            fs::write(&path, bytes).unwrap();
        });
        let at = copy.path().join(dir.file_name().unwrap());
        if let Ok(saved) = load(&place(&at), &Choices::default()) {
            run(&*saved.dictionary, &vec![0.5; saved.dictionary.d_in()]);
        }
    }
}
