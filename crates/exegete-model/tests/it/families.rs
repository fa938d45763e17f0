//! Every family against transformers (`refs/families`), on tiny random models with the published configurations' every
//! key: all sites, losses, gradients of sites and weights, greedy texts.

use std::path::PathBuf;

use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, GenerateOptions, Hooks, Logits, Model, Weight, site_named};
use exegete_tensor::{Tape, Value, f32s, tensor};
use exegete_testkit::{Golden, assert_close, assert_rel_l2, refs_dir};

/// Cases whose rotation depends on the length of the context: there transformers' text with a cache differs from its
/// text without one, and ours is compared with the latter.
const BY_LENGTH: [&str; 3] = ["llama_dynamic", "llama_longrope", "phi3_long"];

fn folder() -> PathBuf {
    refs_dir().join("families")
}

fn cases() -> Vec<String> {
    let mut cases: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|e| e.unwrap())
        .filter(|e| e.path().join("golden.safetensors").is_file())
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    cases.sort();
    assert!(cases.len() >= 30, "{cases:?}");
    cases
}

fn open(case: &str) -> (Model, Golden) {
    (Model::open(&folder().join(case)).unwrap(), Golden::load(format!("families/{case}/golden.safetensors")))
}

fn batch(golden: &Golden) -> Batch {
    Batch::uniform(golden.i32("tokens").iter().map(|i| *i as u32).collect(), golden.shape("tokens")[0])
}

/// Mean next-token loss on the tape.
fn loss(tape: &Tape, logits: &Value, batch: &Batch) -> (Value, exegete_tensor::Tensor) {
    let (n, len) = (batch.ids.len(), batch.len().unwrap());
    let v = *logits.tensor().dims().last().unwrap();
    let flat = tape.reshape(logits, &[n, v]).unwrap();
    let rows: Vec<u32> = (0..n as u32).filter(|i| !(*i as usize + 1).is_multiple_of(len)).collect();
    let targets: Vec<u32> = rows.iter().map(|i| batch.ids[*i as usize + 1]).collect();
    let loss_N = tape.cross_entropy(&tape.rows(&flat, &rows).unwrap(), &targets).unwrap();
    let k = targets.len();
    (loss_N, tensor(vec![1.0 / k as f32; k], k).unwrap())
}

#[test]
fn every_site_agrees_with_transformers() {
    for case in cases() {
        let (model, golden) = open(&case);
        let sites = model.spec.sites();
        let mut hooks = sites.iter().fold(Hooks::none(), |h, s| h.tap(*s));
        model.run(&Tape::new(), &batch(&golden), None, &mut hooks, Logits::All).unwrap();
        let mut compared = 0;
        // In the order of computation, so that the first site that diverges is the one reported.
        for site in &sites {
            let value = hooks.value(*site).unwrap_or_else(|| panic!("{case}: {site} was not read"));
            let name = site.to_string();
            if !golden.contains(&name) {
                continue;
            }
            compared += 1;
            assert_eq!(value.tensor().dims(), golden.shape(&name), "{case}: {name}");
            let got = f32s(value.tensor()).unwrap();
            if site.kind == SiteKind::ExpertIndices {
                let want: Vec<f32> = golden.i32(&name).iter().map(|i| *i as f32).collect();
                assert_eq!(&got[..], want, "{case}: {name}");
                continue;
            }
            let want = golden.f32(&name);
            if site.kind == SiteKind::AttnScores {
                // Masked scores are -inf here and a large negative number there.
                let seen: Vec<usize> = (0..want.len()).filter(|i| want[*i] > -1e29).collect();
                assert!((0..want.len()).all(|i| seen.contains(&i) || got[i] == f32::NEG_INFINITY), "{case}: {name}");
                let pick = |x: &[f32]| seen.iter().map(|i| x[*i]).collect::<Vec<f32>>();
                assert_close(&format!("{case}: {name}"), &pick(&got), &pick(want), 1e-5);
            } else {
                assert_close(&format!("{case}: {name}"), &got, want, 1e-5);
            }
        }
        // Everything that transformers was asked for is a site of ours.
        let is_site = |n: &&str| !n.contains("grad/") && (n.contains("hook_") || n.contains("router_logits"));
        let theirs: Vec<&str> = golden.names().filter(is_site).collect();
        for name in &theirs {
            assert!(site_named(&model.spec, name).is_ok(), "{case}: {name} is no site of ours");
        }
        assert_eq!(compared, theirs.len(), "{case}");
    }
}

#[test]
fn losses_and_gradients_agree() {
    for case in cases() {
        let (model, golden) = open(&case);
        let names: Vec<String> = golden.names().map(str::to_owned).collect();
        let sites: Vec<(Site, &String)> = names
            .iter()
            .filter_map(|n| Some((site_named(&model.spec, n.strip_prefix("grad/")?).unwrap(), n)))
            .collect();
        let weights: Vec<(Weight, &String)> = names
            .iter()
            .filter_map(|n| {
                let name = n.strip_prefix("wgrad/")?.replace("_bias", ".bias").replace("norm1_post", "norm_attn");
                let found = Weight::named(&model.spec, &name);
                Some((found.unwrap_or_else(|| panic!("{case}: {name} is no weight of ours")), n))
            })
            .collect();
        assert!(!sites.is_empty(), "{case}");
        for recompute in [false, true] {
            let mut hooks = sites.iter().fold(Hooks::none(), |h, (s, _)| h.watch(*s));
            hooks = weights.iter().fold(hooks, |h, (w, _)| h.watch_weight(*w));
            hooks.recompute = recompute;
            let (tape, batch) = (Tape::new(), batch(&golden));
            let logits = model.run(&tape, &batch, None, &mut hooks, Logits::All).unwrap().unwrap();
            let (loss_N, seed) = loss(&tape, &logits, &batch);
            let total: f32 = f32s(loss_N.tensor()).unwrap().iter().sum::<f32>() / seed.elem_count() as f32;
            assert_close(&case, &[total], golden.f32("loss"), 1e-5);
            let values: Vec<&Value> = sites
                .iter()
                .map(|(s, _)| hooks.value(*s).unwrap())
                .chain(weights.iter().map(|(w, _)| hooks.weight(*w).unwrap()))
                .collect();
            let grads = tape.gradients(&loss_N, &seed, &values).unwrap();
            let all_names = sites.iter().map(|s| s.1).chain(weights.iter().map(|w| w.1));
            for (grad, name) in grads.iter().zip(all_names) {
                let what = format!("{case}: {name}");
                let got = f32s(grad).unwrap();
                if name.ends_with("hook_pattern") {
                    // Keys behind the query have no gradient here; there it is formal.
                    let pattern = golden.f32("blocks.1.attn.hook_pattern");
                    let pick = |x: &[f32]| -> Vec<f32> {
                        x.iter().zip(pattern).filter(|(_, p)| **p > 0.0).map(|(x, _)| *x).collect()
                    };
                    assert_rel_l2(&what, &pick(&got), &pick(golden.f32(name)), 1e-5);
                } else if golden.f32(name).iter().all(|x| x.abs() < 1e-6) {
                    // A bias of keys shifts all scores of a query alike without rotation: its gradient is 0, and what
                    // either side has are roundings.
                    assert!(got.iter().all(|x| x.abs() < 1e-6), "{what}");
                } else {
                    assert_eq!(grad.dims(), golden.shape(name), "{what}");
                    assert_rel_l2(&what, &got, golden.f32(name), 1e-5);
                }
            }
        }
    }
}

#[test]
fn greedy_texts_agree_with_a_cache_and_rows_of_any_lengths() {
    for case in cases() {
        let (model, golden) = open(&case);
        let len = golden.shape("tokens")[1];
        let tokens: Vec<u32> = golden.i32("tokens").iter().map(|i| *i as u32).collect();
        let rows: Vec<Vec<u32>> = tokens.chunks(len).map(|r| r[..5].to_vec()).collect();
        let want: Vec<Vec<u32>> =
            golden.i32("greedy").chunks(16).map(|r| r.iter().map(|i| *i as u32).collect()).collect();
        if BY_LENGTH.contains(&case.as_str()) {
            for (row, want) in rows.iter().zip(&want) {
                let mut ids = row.clone();
                for _ in 0..16 {
                    let logits =
                        model.run(&Tape::new(), &Batch::one(&ids), None, &mut Hooks::none(), Logits::Last).unwrap();
                    let logits = f32s(logits.as_ref().unwrap().tensor()).unwrap().to_vec();
                    let best = (0..logits.len()).fold(0, |b, i| if logits[i] > logits[b] { i } else { b });
                    ids.push(best as u32);
                }
                assert_eq!(&ids[5..], want, "{case}");
            }
            continue;
        }
        let options = GenerateOptions::greedy(16, vec![]);
        let both = model.generate(&rows, &options, &mut Hooks::none()).unwrap();
        assert_eq!(both.ids, want, "{case}");
        // Together with a longer row, and alone.
        let longer = [rows[1].iter().chain(&rows[0]).copied().collect(), rows[0].clone()];
        let ragged = model.generate(&longer, &options, &mut Hooks::none()).unwrap();
        assert_eq!(ragged.ids[1], want[0], "{case}: beside a longer row");
        let alone = model.generate(&rows[1..], &options, &mut Hooks::none()).unwrap();
        assert_eq!(alone.ids[0], want[1], "{case}: alone");
    }
}
