//! Dictionaries of several layers or sites against what their own projects make of the same files: see
//! `refs/sae_layers/make.py`.

use std::fs;
use std::path::{Path, PathBuf};

use exegete_sae::AnyDictionary;
use exegete_sae::containers::{self, Array};
use exegete_sae::formats::{Choices, Saved, load, write};
use exegete_testkit::{Golden, assert_close, refs_dir};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::formats::{cases, place, run, twin};

use super::slopes_agree;

const GROUP: &str = "sae_layers";

/// The layout that each case is read as; the first that its name begins with counts.
const LAYOUTS: [(&str, &str); 6] = [
    ("clt_", "circuit-tracer-clt"),
    ("gemma_scope_2_clt", "gemma-scope-2-clt"),
    ("layer_", "circuit-tracer"),
    ("crosscoder_", "llamascopium-crosscoder"),
    ("llamascopium_", "llama-scope"),
    ("kissane", "kissane-crosscoder"),
];

fn name_of(dir: &Path) -> String {
    dir.file_name().unwrap().to_string_lossy().into_owned()
}

fn choices(name: &str) -> Choices {
    // Neither the file nor circuit-tracer's loader says that a transcoder keeps the 4 largest.
    Choices { k: (name == "layer_topk").then_some(4), ..Choices::default() }
}

fn open(name: &str, dir: &Path) -> exegete_sae::Result<Saved> {
    load(&place(dir), &choices(name))
}

fn golden(name: &str) -> Golden {
    Golden::load(format!("{GROUP}/{name}/golden.safetensors"))
}

/// Activations as the golden of a case has them.
fn as_recorded(name: &str, acts: Vec<f32>, saved: &Saved, recorded: &[f32]) -> Vec<f32> {
    let f = saved.dictionary.n_latents();
    let sae = saved.dictionary.sae();
    if let (true, Ok(sae)) = (name.starts_with("crosscoder_"), sae) {
        // Theirs are of each site, with 0 where its own gate is shut.
        let n_sites = recorded.len() / acts.len();
        let of_site = |site: usize, latent: usize, act: f32| {
            let gate = sae.site_gates.as_ref().map_or(0.0, |gates| gates.above_FS[latent * gates.n_sites + site]);
            if act > gate { act } else { 0.0 }
        };
        let tokens = acts.chunks_exact(f);
        let sites =
            |token: &[f32]| -> Vec<f32> { (0..n_sites * f).map(|i| of_site(i / f, i % f, token[i % f])).collect() };
        return tokens.flat_map(sites).collect();
    }
    if name == "llamascopium_topk_rows" {
        // Ours count the lengths of decoder rows, as its note says: rows have the length 1 here.
        let path = refs_dir().join(GROUP).join(name).join("sae_weights.safetensors");
        let rows = &containers::read(&path).unwrap().arrays["W_D"];
        let length = |row: &[f32]| row.iter().map(|w| w * w).sum::<f32>().sqrt();
        let lengths: Vec<f32> = rows.values.chunks_exact(rows.shape[1]).map(length).collect();
        return acts.iter().enumerate().map(|(i, act)| act / lengths[i % f]).collect();
    }
    acts
}

/// Asserts that a dictionary computes what the golden of a case says.
fn computes(name: &str, saved: &Saved) {
    let g = golden(name);
    let (acts, recon) = run(&*saved.dictionary, g.f32("x"));
    let acts = as_recorded(name, acts, saved, g.f32("acts"));
    let active = |acts: &[f32]| acts.iter().map(|a| *a > 0.0).collect::<Vec<bool>>();
    assert_eq!(active(&acts), active(g.f32("acts")), "{name}: other latents are active");
    assert_close(name, &acts, g.f32("acts"), 1e-5);
    assert_close(name, &recon, g.f32("recon"), 1e-5);
}

#[test]
fn their_projects_and_we_agree_on_dictionaries_of_several_layers() {
    let dirs = cases(GROUP);
    assert!(dirs.len() >= 16, "{} cases", dirs.len());
    for dir in dirs {
        let name = name_of(&dir);
        let saved = open(&name, &dir).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (_, layout) = LAYOUTS.iter().find(|(start, _)| name.starts_with(start)).unwrap();
        assert_eq!(saved.format, *layout, "{name}");
        computes(&name, &saved);
    }
}

#[test]
fn sites_that_share_a_latent_open_by_themselves() {
    // What the goldens are there for: activations that reach some sites and not others.
    for name in ["crosscoder_jump", "crosscoder_jump_normed"] {
        let g = golden(name);
        let acts = g.f32("acts");
        let saved = open(name, &refs_dir().join(GROUP).join(name)).unwrap();
        let (f, n_sites) =
            (saved.dictionary.n_latents(), saved.dictionary.sae().unwrap().site_gates.as_ref().unwrap().n_sites);
        let split = acts.chunks_exact(f * n_sites).flat_map(|token| {
            (0..f).filter(move |latent| {
                let open = (0..n_sites).filter(|site| token[site * f + latent] > 0.0).count();
                open > 0 && open < n_sites
            })
        });
        assert!(split.count() > 0, "{name}");
    }
}

#[test]
fn what_was_read_is_written_and_read_the_same() {
    let mut n = 0;
    for dir in cases(GROUP) {
        let name = name_of(&dir);
        let saved = open(&name, &dir).unwrap();
        let files = match (write(&saved, saved.format), &name[..]) {
            (Ok(files), _) => files,
            (Err(e), "crosscoder_jump_normed") => {
                assert!(e.to_string().contains("different factors"), "{e}");
                continue;
            }
            (Err(e), _) => {
                assert!(e.to_string().contains("can be written; there are"), "{name}: {e}");
                continue;
            }
        };
        n += 1;
        let copy = tempfile::tempdir().unwrap();
        files.iter().for_each(|(file, bytes)| fs::write(copy.path().join(file), bytes).unwrap());
        let again = load(copy.path(), &choices(&name)).unwrap();
        assert_eq!(again.format, saved.format);
        computes(&name, &again);
        if name.starts_with("clt_") {
            assert_eq!(again.dictionary, saved.dictionary, "{name}");
            for (file, _) in files.iter().filter(|(file, _)| file.ends_with("safetensors")) {
                let arrays = |dir: &Path| containers::read(&dir.join(file)).unwrap();
                assert_eq!(arrays(copy.path()), arrays(&dir), "{name}/{file}");
            }
        }
    }
    assert_eq!(n, 4, "dictionaries were written");
    // No files of circuit-tracer's hold a path beside the latents, and no layout but its own holds the gates of sites.
    for (name, to, said) in [
        ("gemma_scope_2_clt_affine", "circuit-tracer-clt", "a path beside the latents"),
        ("crosscoder_jump", "saelens", "no place for a crosscoder"),
        ("crosscoder_jump", "gemma-scope", "no place for a crosscoder"),
    ] {
        let saved = open(name, &refs_dir().join(GROUP).join(name)).unwrap();
        let error = write(&saved, to).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
}

/// The files of arrays of a case.
fn files_of(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let is_array = |path: &PathBuf| path.extension().is_some_and(|e| e == "safetensors" || e == "pt");
    let mut files: Vec<PathBuf> = all.filter(|p| is_array(p) && !p.ends_with("golden.safetensors")).collect();
    files.sort();
    files
}

/// A file of arrays, whatever its name ends in: readers do not ask.
fn file_of<'a>(arrays: impl IntoIterator<Item = (String, &'a Array)>) -> Vec<u8> {
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = arrays
        .into_iter()
        .map(|(name, a)| (name, a.shape.clone(), a.values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        .collect();
    let views =
        bytes.iter().map(|(name, shape, b)| (name.clone(), TensorView::new(Dtype::F32, shape.clone(), b).unwrap()));
    safetensors::serialize(views, None).unwrap()
}

/// The last two axes exchanged, where there are two.
fn turned(array: &Array) -> Array {
    let mut out = array.clone();
    if let [.., r, c] = array.shape[..] {
        let n = array.shape.len();
        out.shape.swap(n - 2, n - 1);
        let block = |b: &[f32]| -> Vec<f32> { (0..r * c).map(|i| b[i % r * c + i / r]).collect() };
        out.values = array.values.chunks_exact(r * c).flat_map(block).collect();
    }
    out
}

/// Asserts that a twin is refused, or computes something else.
fn is_told(name: &str, what: &str, dir: &Path, change: impl FnOnce(&Path)) {
    let copy = twin(dir, change);
    let Ok(saved) = open(name, &copy.path().join(name)) else { return };
    let g = golden(name);
    let (acts, recon) = run(&*saved.dictionary, g.f32("x"));
    let differs = |a: &[f32], b: &[f32]| a.len() != b.len() || a.iter().zip(b).any(|(a, b)| (a - b).abs() > 1e-3);
    let acts = as_recorded(name, acts, &saved, g.f32("acts"));
    assert!(
        differs(&acts, g.f32("acts")) || differs(&recon, g.f32("recon")),
        "{name}: a twin with {what} passes for it"
    );
}

#[test]
fn a_configuration_that_is_not_understood_is_refused() {
    let dir = refs_dir().join(GROUP).join("clt_relu");
    let with = |text: &str| {
        let copy = twin(&dir, |to| fs::write(to.join("config.yaml"), text).unwrap());
        open("clt_relu", &copy.path().join("clt_relu"))
    };
    let refused = |text: &str| with(text).unwrap_err().to_string();
    for (text, said) in [
        (":::{", "\":::{\""),
        ("model_name: \"tiny\"\nno key here", "no key here"),
        ("activation: gelu", "handled are relu, jump_relu, topk"),
        ("activation: topk", "give --k"),
        ("activation: jump_relu", "\"threshold_0\" is missing"),
        ("activation: topk\nk: many", "\"many\""),
    ] {
        let error = refused(text);
        assert!(error.contains("config.yaml") && error.contains(said), "{text}: {error}");
    }
    let copy = twin(&refs_dir().join(GROUP).join("clt_jump"), |to| {
        fs::write(to.join("config.yaml"), "activation: relu").unwrap()
    });
    let error = open("clt_jump", &copy.path().join("clt_jump")).unwrap_err().to_string();
    assert!(error.contains("\"threshold_0\" is there") && error.contains("says relu"), "{error}");
    // Lists and tables below a key say nothing of how it runs.
    let told = with("# ours\n---\nactivation: \"relu\"\ntranscoders:\n- a\n  - b: c\nscan:\n  x: y\n").unwrap();
    assert!(told.notes.len() == 1 && told.notes[0].contains("which sites"), "{:?}", told.notes);
    let notes = with("feature_input_hook: hook_resid_mid\nfeature_output_hook: hook_mlp_out").unwrap().notes;
    assert!(notes.len() == 1 && notes[0].contains("taken to be ReLU's"), "{notes:?}");
}

#[test]
fn damaged_turned_and_mislabelled_twins_are_refused_or_compute_another_thing() {
    for dir in cases(GROUP) {
        let name = name_of(&dir);
        for path in files_of(&dir) {
            let file = path.file_name().unwrap();
            let arrays = containers::read(&path).unwrap().arrays;
            let put = |bytes: Vec<u8>| move |to: &Path| fs::write(to.join(file), bytes).unwrap();
            let copy = |label: &str| label.to_owned();
            let bytes = fs::read(&path).unwrap();
            is_told(&name, "half a file", &dir, put(bytes[..bytes.len() / 2].to_vec()));
            // The original again, so that what follows is told for its change alone.
            let same = twin(&dir, put(file_of(arrays.iter().map(|(n, a)| (copy(n), a)))));
            computes(&name, &open(&name, &same.path().join(&name)).unwrap());
            for label in arrays.keys().filter(|label| !label.starts_with("dataset_average")) {
                let with =
                    |other: &Array| file_of(arrays.iter().map(|(n, a)| (copy(n), if n == label { other } else { a })));
                let array = &arrays[label];
                if array.shape.len() > 1 {
                    is_told(&name, &format!("{label} turned"), &dir, put(with(&turned(array))));
                }
                let mut damaged = array.clone();
                *damaged.values.last_mut().unwrap() = f32::NAN;
                let at = twin(&dir, put(with(&damaged)));
                assert!(open(&name, &at.path().join(&name)).is_err(), "{name}: {label} with no number was read");
                let renamed =
                    file_of(arrays.iter().map(|(n, a)| (if n == label { format!("{n}_0") } else { copy(n) }, a)));
                let at = twin(&dir, put(renamed));
                assert!(open(&name, &at.path().join(&name)).is_err(), "{name}: {label} under another name was read");
            }
        }
    }
    // A shape without values says nothing of its other lengths, which must not be allocated.
    let huge = format!("{{\"W_E\":{{\"dtype\":\"F32\",\"shape\":[{0},{0},0],\"data_offsets\":[0,0]}}}}", 1u64 << 31);
    let bytes = [&(huge.len() as u64).to_le_bytes(), huge.as_bytes()].concat();
    let copy = twin(&refs_dir().join(GROUP).join("crosscoder_relu"), |to| {
        fs::write(to.join("sae_weights.safetensors"), bytes).unwrap();
    });
    let error = open("crosscoder_relu", &copy.path().join("crosscoder_relu")).unwrap_err().to_string();
    assert!(error.contains("holds nothing"), "{error}");
    // Layers in each other's place: their tensors are numbered, or they compute another thing.
    for (name, file) in [
        ("clt_jump", "W_enc_{}.safetensors"),
        ("clt_jump", "W_dec_{}.safetensors"),
        ("gemma_scope_2_clt", "params_layer_{}.safetensors"),
    ] {
        let dir = refs_dir().join(GROUP).join(name);
        let of = |i: usize| file.replace("{}", &i.to_string());
        is_told(name, "layers exchanged", &dir, |to| {
            fs::copy(dir.join(of(0)), to.join(of(1))).unwrap();
            fs::copy(dir.join(of(1)), to.join(of(0))).unwrap();
        });
        is_told(name, "a layer missing", &dir, |to| fs::remove_file(to.join(of(1))).unwrap());
    }
    // A crosscoder that is said to be something else.
    for (key, value) in [
        ("sae_type", "\"sae\""),
        ("act_fn", "\"topk\""),
        ("act_fn", "\"batchtopk\""),
        ("norm_activation", "\"token-wise\""),
        ("norm_activation", "\"dataset-wise\""),
        ("hook_points", "[]"),
    ] {
        let name = if key == "hook_points" { "crosscoder_jump_normed" } else { "crosscoder_jump" };
        let copy = twin(&refs_dir().join(GROUP).join(name), |to| {
            let path = to.join("config.json");
            let mut config: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            config[key] = serde_json::from_str(value).unwrap();
            fs::write(path, config.to_string()).unwrap();
        });
        assert!(open(name, &copy.path().join(name)).is_err(), "{key} {value} was read");
    }
}

#[test]
fn gradients_flow_through_layers_and_the_gates_of_sites() {
    for name in ["clt_relu", "clt_jump", "gemma_scope_2_clt_affine", "crosscoder_relu", "crosscoder_jump"] {
        let saved = open(name, &refs_dir().join(GROUP).join(name)).unwrap();
        let dictionary: &AnyDictionary = &saved.dictionary;
        let x = golden(name).f32("x").to_vec();
        let n = x.len() / dictionary.d_in();
        let seed: Vec<f32> = (0..n * dictionary.d_out()).map(|i| (i as f32 * 1.7).cos()).collect();
        let every_third: Vec<usize> = (0..dictionary.n_latents()).step_by(3).collect();
        for only in [None, Some(&every_third[..])] {
            // Through some latents alone: what the others decode to, and a path beside them, stay out of the objective.
            let objective = |x: &[f32]| -> f64 {
                let codes = dictionary.encode(x).unwrap();
                let mut out = vec![0f32; seed.len()];
                match only {
                    None => dictionary.reconstruct(x, &codes, &mut out).unwrap(),
                    Some(only) => {
                        let mut kept = exegete_sae::Codes::default();
                        (0..n).for_each(|t| {
                            kept.push(codes.of(t).filter(|(latent, _)| only.contains(&(*latent as usize))))
                        });
                        dictionary.decode(&kept, &mut out).unwrap();
                    }
                }
                out.iter().zip(&seed).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            };
            let grad = dictionary.backward(&x, &seed, only).unwrap();
            assert!(grad.iter().any(|g| g.abs() > 0.1), "{name}");
            slopes_agree(name, &x, &grad, objective);
        }
    }
}
