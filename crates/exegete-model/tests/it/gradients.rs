//! What gradients are made into, by identities: per-example gradients sum to the batch's, tokens' gradients predict
//! what swapping does, one forward pass serves many backward passes, recomputation changes no gradient.

use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, Hooks, LinearGradient, Logits, Model, Part, Weight};
use exegete_tensor::{Tape, Value, f32s, tensor};
use exegete_testkit::{Golden, assert_rel_l2, refs_dir};

const CASES: [&str; 5] = ["gpt2", "gpt_neox", "qwen3", "gemma2", "olmo2"];

fn open(case: &str) -> (Model, Batch) {
    let golden = Golden::load(format!("families/{case}/golden.safetensors"));
    let model = Model::open(&refs_dir().join("families").join(case)).unwrap();
    (model, Batch::uniform(golden.tokens("tokens"), 2))
}

/// Some scalar of the logits: each weighted by a wave.
fn seed(logits: &Value) -> exegete_tensor::Tensor {
    let n = logits.tensor().elem_count();
    tensor((0..n).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>(), logits.tensor().dims()).unwrap()
}

#[test]
fn per_example_gradients_sum_to_the_batches() {
    for case in CASES {
        let (model, batch) = open(case);
        for part in [Part::Q, Part::K, Part::V, Part::O, Part::Gate, Part::Up, Part::Down] {
            let w = Weight::at(part, 1);
            let Some((input, output)) = model.linear_sites(w).filter(|_| model.spec.weights().contains(&w)) else {
                continue;
            };
            let tape = Tape::new();
            let mut hooks = Hooks::none().tap(input).watch(output).watch_weight(w);
            let logits = model.run(&tape, &batch, None, &mut hooks, Logits::All).unwrap().unwrap();
            let wanted = [hooks.value(output).unwrap(), hooks.weight(w).unwrap()];
            let grads = tape.gradients(&logits, &seed(&logits), &wanted).unwrap();
            let x = f32s(hooks.value(input).unwrap().tensor()).unwrap().to_vec();
            let dy = f32s(&grads[0]).unwrap();
            let rows = LinearGradient::of_batch(&x, &dy, &batch.lens_B).unwrap();
            let outers: Vec<Vec<f32>> = rows.iter().map(LinearGradient::outer).collect();
            let sum: Vec<f32> = outers[0].iter().zip(&outers[1]).map(|(a, b)| a + b).collect();
            assert_rel_l2(&format!("{case} {w}"), &sum, &f32s(&grads[1]).unwrap(), 1e-5);
            let inner: f64 = outers[0].iter().zip(&outers[1]).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            let size: f64 = outers[0].iter().map(|a| f64::from(*a).powi(2)).sum::<f64>();
            assert!((rows[0].dot(&rows[1]) - inner).abs() < 1e-4 * size.max(inner.abs()), "{case} {w}");
        }
    }
}

#[test]
fn a_tokens_gradient_predicts_what_little_of_it_does() {
    for case in CASES {
        let (model, batch) = open(case);
        let site = Site::global(SiteKind::Embed);
        let tape = Tape::new();
        let mut hooks = Hooks::none().watch(site);
        let logits = model.run(&tape, &batch, None, &mut hooks, Logits::All).unwrap().unwrap();
        let grad = tape.gradients(&logits, &seed(&logits), &[hooks.value(site).unwrap()]).unwrap().remove(0);
        let grad = f32s(&grad).unwrap().to_vec();
        let all = model.token_gradients(&grad).unwrap();
        let best = model.best_tokens(&grad, 3).unwrap();
        let (position, v, d) = (5, model.spec.vocab_size, model.spec.d_model);
        let row = &all[position * v..(position + 1) * v];
        let lowest = (0..v).fold(0, |b, i| if row[i] < row[b] { i } else { b });
        assert_eq!(best[position][0], (lowest as u32, row[lowest]), "{case}");
        // A hundredth of the token, added to what stands there.
        let mut token = vec![0f32; d];
        model.weights.embed.row(lowest, &mut token);
        let embed = f32s(hooks.value(site).unwrap().tensor()).unwrap().to_vec();
        let value = |s: f32| -> f64 {
            let mut moved = embed.clone();
            let at = &mut moved[position * d..(position + 1) * d];
            at.iter_mut().zip(&token).for_each(|(x, e)| *x += s * e * model.spec.embed_scale);
            let edit = exegete_model::edits::Replace(exegete_model::edits::Vectors::PerPlace(
                tensor(moved, (2, 12, d)).unwrap(),
            ));
            let mut hooks = Hooks::none().edit(exegete_model::Edit::everywhere(site, std::sync::Arc::new(edit)));
            let out = model.run(&Tape::new(), &batch, None, &mut hooks, Logits::All).unwrap().unwrap();
            let (out, seed) = (f32s(out.tensor()).unwrap().to_vec(), f32s(&seed(&logits)).unwrap().to_vec());
            out.iter().zip(&seed).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
        };
        let numeric = (value(5e-3) - value(-5e-3)) / 1e-2;
        assert!((numeric - f64::from(row[lowest])).abs() < 2e-2 * numeric.abs(), "{case}: {numeric} {}", row[lowest]);
    }
}

#[test]
fn one_forward_pass_serves_many_backward_passes_between_any_sites() {
    let (model, batch) = open("qwen3");
    let tape = Tape::new();
    let sites = [Site::at(SiteKind::ResidPre, 0), Site::at(SiteKind::AttnPattern, 1), Site::at(SiteKind::MlpPost, 1)];
    let mut hooks = sites.iter().fold(Hooks::none(), |h, s| h.watch(*s));
    model.run(&tape, &batch, None, &mut hooks, Logits::None).unwrap();
    let values: Vec<&Value> = sites.iter().map(|s| hooks.value(*s).unwrap()).collect();
    // A scalar of neurons, with respect to the pattern before them and the residual before that; then of the pattern.
    let n = values[2].tensor().elem_count();
    let seed = tensor((0..n).map(|i| (i as f32).cos()).collect::<Vec<f32>>(), values[2].tensor().dims()).unwrap();
    let from_neurons = tape.gradients(values[2], &seed, &values[..2]).unwrap();
    assert!(from_neurons.iter().all(|g| f32s(g).unwrap().iter().any(|x| *x != 0.0)));
    let seed = tensor(vec![1f32; values[1].tensor().elem_count()], values[1].tensor().dims()).unwrap();
    let from_pattern = tape.gradients(values[1], &seed, &values).unwrap();
    // A pattern's rows sum to one, whatever stands before them, and do not depend on what comes behind them.
    assert!(f32s(&from_pattern[0]).unwrap().iter().all(|x| x.abs() < 1e-5));
    assert!(f32s(&from_pattern[2]).unwrap().iter().all(|x| *x == 0.0));
    let again = tape
        .gradients(
            values[2],
            &tensor((0..n).map(|i| (i as f32).cos()).collect::<Vec<f32>>(), values[2].tensor().dims()).unwrap(),
            &values[..2],
        )
        .unwrap();
    for (a, b) in from_neurons.iter().zip(&again) {
        assert_eq!(f32s(a).unwrap()[..], f32s(b).unwrap()[..]);
    }
}

#[test]
fn recomputation_keeps_gradients_and_records_less() {
    for case in ["gpt2", "gemma3", "qwen3_moe"] {
        let (model, batch) = open(case);
        let site = Site::global(SiteKind::Embed);
        let run = |recompute: bool| {
            let tape = Tape::new();
            let mut hooks = Hooks::none().watch(site);
            hooks.recompute = recompute;
            let logits = model.run(&tape, &batch, None, &mut hooks, Logits::All).unwrap().unwrap();
            let grads = tape.gradients(&logits, &seed(&logits), &[hooks.value(site).unwrap()]).unwrap();
            (f32s(&grads[0]).unwrap().to_vec(), tape.len())
        };
        let ((plain, all), (again, few)) = (run(false), run(true));
        assert_eq!(plain, again, "{case}");
        assert!(few < all / 2, "{case}: {few} of {all} records");
    }
}

#[test]
fn gradients_that_cannot_be_had_are_refused() {
    let (model, batch) = open("qwen3");
    assert!(model.token_gradients(&[0.0; 7]).unwrap_err().to_string().contains("width"));
    assert!(model.best_tokens(&vec![0.0; model.spec.d_model], 0).is_err());
    let mut cache = exegete_model::KvCache::new(&model.spec, 2, 20).unwrap();
    let mut hooks = Hooks::none().watch(Site::global(SiteKind::Embed));
    let error = model.run(&Tape::new(), &batch, Some(&mut cache), &mut hooks, Logits::All).err().unwrap().to_string();
    assert!(error.contains("cache"), "{error}");
    let mut hooks = Hooks::none().watch_weight(Weight::at(Part::Router, 0));
    let error = model.run(&Tape::new(), &batch, None, &mut hooks, Logits::All).err().unwrap().to_string();
    assert!(error.contains("no weight blocks.0.router"), "{error}");
}
