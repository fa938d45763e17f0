//! Metrics against SAEBench's, dictionary_learning's and scikit-learn's own functions on the same arrays.

use exegete_sae::kinds::{Relu, Rule};
use exegete_sae::metrics::compat::{Batches, Tool};
use exegete_sae::metrics::logistic::{self, Fit, Linear};
use exegete_sae::metrics::probing::{Binary, Examples, Score, largest, mean_differences};
use exegete_sae::metrics::{Measure, Reconstruction, ablation, absorption, geometry, losses};
use exegete_sae::{Codes, Dictionary, Sae};
use exegete_testkit::{Golden, assert_close};

const D: usize = 10;
const F: usize = 24;

fn golden() -> Golden {
    Golden::load("sae_metrics/golden.safetensors")
}

fn codes(dense_NF: &[f32]) -> Codes {
    let mut codes = Codes::default();
    for row in dense_NF.chunks_exact(F) {
        codes.push(row.iter().enumerate().filter(|(_, v)| **v != 0.0).map(|(f, v)| (f as u32, *v)));
    }
    codes
}

fn dictionary(g: &Golden, w_dec: &str) -> Sae {
    Sae {
        w_enc_FD: g.f32("w_enc_FD").to_vec(),
        w_dec_FD: g.f32(w_dec).to_vec(),
        b_dec_D: g.f32("b_dec").to_vec(),
        ..Sae::zeros(D, D, F, Rule::Relu(Relu))
    }
}

fn f32s(values: impl IntoIterator<Item = f64>) -> Vec<f32> {
    values.into_iter().map(|v| v as f32).collect()
}

fn latents(g: &Golden, name: &str) -> Vec<u32> {
    g.tokens(name)
}

fn sorted(mut latents: Vec<u32>) -> Vec<u32> {
    latents.sort_unstable();
    latents
}

#[test]
fn core_metrics_and_their_wrong_twins_are_the_peers() {
    let g = golden();
    let sae = dictionary(&g, "w_dec_FD");
    let (x, acts) = (g.f32("core/x"), g.f32("core/acts"));
    let n = x.len() / D / 3;
    let (mut all, mut batches) = (Reconstruction::new(D, F), Batches::default());
    for (x, acts) in x.chunks_exact(n * D).zip(acts.chunks_exact(n * F)) {
        let codes = codes(acts);
        let mut recon = vec![0f32; x.len()];
        sae.decode(&codes, &mut recon).unwrap();
        batches.add(x, &recon, D, &codes);
        all.add(x, &recon, &codes, false);
    }
    for (tool, prefix, wrong) in
        [(Tool::SaeBench, "core", 3), (Tool::SaeLens, "core", 3), (Tool::DictionaryLearning, "dl", 2)]
    {
        let numbers = batches.numbers(tool);
        assert_eq!(numbers.iter().filter(|n| n.known_wrong.is_some()).count(), wrong, "{tool:?}");
        for number in numbers {
            let want = g.scalar(&format!("{prefix}/{}", number.name));
            assert_close(number.name, &[number.value as f32], &[want], 2e-5);
        }
    }
    for (measure, name) in
        [(Measure::L0, "l0"), (Measure::L1, "l1"), (Measure::Cosine, "cossim"), (Measure::L2Ratio, "l2_ratio")]
    {
        assert_close(name, &[all.of(measure).value as f32], &[g.scalar(&format!("core/{name}"))], 1e-5);
    }
    // What SAEBench calls the explained variance is far from it, even here.
    let explained = 1.0 - all.of(Measure::Fvu).value;
    assert!((explained - f64::from(g.scalar("core/explained_variance"))).abs() > 0.01, "{explained}");
    assert_close("density", &f32s(all.density().shares()), g.f32("core/density"), 1e-6);
    let own = geometry::encoder_decoder_cosines(&sae).unwrap();
    assert_close("encoder and decoder", &own, g.f32("core/encoder_decoder_cosine"), 1e-5);
    let most = geometry::max_decoder_cosines(&sae.w_dec_FD, D);
    assert_close("decoder rows", &most, g.f32("core/max_decoder_cosine"), 1e-5);
}

#[test]
fn losses_are_saebenchs() {
    let g = golden();
    let (tokens, logits) = (g.tokens("losses/tokens"), g.f32("losses/logits"));
    let (n, vocab, ctx) = (tokens.len(), logits.len() / 3 / tokens.len(), g.shape("losses/tokens")[1]);
    let all: Vec<&[f32]> = logits.chunks_exact(n * vocab).collect();
    let kl = |i: usize| losses::kl_divergence(all[0], all[i], vocab).iter().sum::<f64>() / n as f64;
    let (with, zeros) = (kl(1), kl(2));
    let ce = |logits: &[f32]| {
        let at = (0..n).filter(|at| at % ctx + 1 < ctx);
        let loss = |at: usize| {
            let row = &logits[at * vocab..(at + 1) * vocab];
            f64::from(exegete_tensor::cpu::loss::log_sum_exp(row) - row[tokens[at + 1] as usize])
        };
        at.clone().map(loss).sum::<f64>() / at.count() as f64
    };
    let ratio = |(a, b): (f64, f64)| a / b;
    for (name, got) in [
        ("kl_div_with_sae", with),
        ("kl_div_with_ablation", zeros),
        ("kl_div_score", ratio(losses::kl_score(with, zeros))),
        ("ce_loss_without_sae", ce(all[0])),
        ("ce_loss_score", ratio(losses::ce_recovered(ce(all[0]), ce(all[1]), ce(all[2])))),
    ] {
        assert_close(name, &[got as f32], &[g.scalar(&format!("losses/{name}"))], 1e-5);
    }
}

#[test]
fn probes_choose_the_same_latents_and_find_scikit_learns_optimum() {
    let g = golden();
    let examples = |x: &str, labels: &str| {
        let labels: Vec<Vec<u32>> = g.i32(labels).iter().map(|l| if *l == 1 { vec![0] } else { vec![] }).collect();
        Examples {
            codes: codes(g.f32(x)),
            documents: (0..labels.len() as u32).collect(),
            labels,
            ..Examples::default()
        }
    };
    let (train, test) = (examples("probe/x", "probe/labels"), examples("probe/test_x", "probe/test_labels"));
    let (train_as, test_as): (Binary, Binary) = (train.all_against_rest(0), test.all_against_rest(0));
    let differences = mean_differences(&train.codes, &train_as, F);
    let columns = |all: &Examples, of: &Binary, latents: &[u32]| all.columns(&of.rows, latents);
    for k in [1, 2, 5] {
        let chosen = sorted(largest(&differences, k));
        assert_eq!(chosen, latents(&g, &format!("probe/top_{k}")));
        let probe =
            logistic::fit(&columns(&train, &train_as, &chosen), k, &train_as.is_positive, Fit::default()).unwrap();
        let score = test.score(&test_as, &probe.scores(&columns(&test, &test_as, &chosen)));
        let want = g.scalar(&format!("probe/accuracy_{k}"));
        assert!((score.accuracy.value - f64::from(want)).abs() < 1e-6, "k = {k}: {score:?}, want {want}");
    }
    let chosen = latents(&g, "probe/top_5");
    for (name, c, is_balanced) in [("plain", 1.0, false), ("weak", 100.0, false), ("balanced", 1.0, true)] {
        let x = columns(&train, &train_as, &chosen);
        let probe: Linear = logistic::fit(&x, 5, &train_as.is_positive, Fit { c, is_balanced }).unwrap();
        assert_close(name, &f32s(probe.w_D.clone()), g.f32(&format!("logistic/{name}_w")), 2e-5);
        assert_close(name, &[probe.b as f32], g.f32(&format!("logistic/{name}_b")), 2e-5);
        let scores = probe.scores(&columns(&test, &test_as, &chosen));
        let score = Score::of(&scores, &test_as.is_positive, &test.documents);
        for (what, got) in [("f1", score.f1.value), ("auc", score.auc.value)] {
            assert_close(what, &[got as f32], &[g.scalar(&format!("logistic/{name}_{what}"))], 1e-6);
        }
    }
}

#[test]
fn absorption_of_each_word_and_splits_of_each_letter_are_saebenchs() {
    let g = golden();
    let (main, direction) = (latents(&g, "absorption/main"), g.f32("absorption/direction"));
    let codes = codes(g.f32("absorption/codes"));
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    let cosine = |row: &[f32]| dot(row, direction) / dot(row, row).sqrt() / dot(direction, direction).sqrt();
    let cosines: Vec<f64> = g.f32("absorption/decoder").chunks_exact(D).map(cosine).collect();
    let (mut fractions, mut full) = (Vec::new(), Vec::new());
    for (i, acts) in g.f32("absorption/acts").chunks_exact(D).enumerate() {
        let at = absorption::Thresholds::default();
        let got = absorption::absorbed(codes.of(i), &cosines, &main, dot(acts, direction), &at);
        fractions.push(got.fraction);
        full.push(i32::from(got.is_full));
    }
    assert_close("fractions", &f32s(fractions), g.f32("absorption/fraction"), 1e-5);
    assert_eq!(full, g.i32("absorption/full"));
    let split = |f1: &[f32]| absorption::split(&f1.iter().map(|f| f64::from(*f)).collect::<Vec<f64>>(), 0.03) as i32;
    let got: Vec<i32> = g.f32("split/f1").chunks_exact(10).map(split).collect();
    assert_eq!(got, g.i32("split/n"));
}

#[test]
fn tpp_and_scr_are_saebenchs() {
    let g = golden();
    let sae = dictionary(&g, "w_dec_FD");
    let probe = Linear {
        w_D: g.f32("ablation/probe").iter().map(|w| f64::from(*w)).collect(),
        b: f64::from(g.f32("ablation/bias")[0]),
    };
    // Means over the six tokens of an input, of codes and of activations.
    let pooled = |values: &[f32], width: usize| -> Vec<f32> {
        let mean =
            |of: &[f32]| (0..width).map(|i| of.iter().skip(i).step_by(width).sum::<f32>() / 6.0).collect::<Vec<f32>>();
        values.chunks_exact(6 * width).flat_map(mean).collect()
    };
    let acts = pooled(g.f32("ablation/x"), D);
    let codes = codes(&pooled(g.f32("ablation/codes"), F));
    let halves = Binary { rows: (0..40).collect(), is_positive: (0..40).map(|i| i < 20).collect() };
    let differences = mean_differences(&codes, &halves, F);
    for (name, is_scr) in [("tpp", false), ("scr", true)] {
        let effects = ablation::effects(&differences, &probe, &sae, is_scr);
        assert_close(name, &f32s(effects.clone()), g.f32(&format!("ablation/effects_{name}")), 1e-5);
        for n in [2, 5, 20] {
            let theirs = latents(&g, &format!("ablation/{name}_top_{n}"));
            // Where too few have an effect, theirs holds some that have none.
            let of_effect: Vec<u32> = theirs.iter().copied().filter(|f| effects[*f as usize] > 0.0).collect();
            assert!(of_effect.len() > 1 && of_effect.len() <= n);
            assert_eq!(sorted(ablation::strongest(&effects, n)), of_effect, "{name} {n}");
            let scores = ablation::ablated_scores(&probe, &acts, &codes, &theirs, &sae);
            let want = probe.scores(g.f32(&format!("ablation/{name}_acts_{n}")));
            assert_close("ablated", &f32s(scores), &f32s(want), 2e-5);
        }
    }
    let wide = |name: &str| g.f32(name).iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let ablated: Vec<Vec<f64>> = wide("tpp/ablated").chunks_exact(4).map(<[f64]>::to_vec).collect();
    let tpp = ablation::tpp(&wide("tpp/clean"), &ablated);
    assert_close("tpp", &f32s(tpp.clone()), g.f32("tpp/each"), 1e-6);
    assert_close("tpp", &[(tpp.iter().sum::<f64>() / 4.0) as f32], &[g.scalar("tpp/mean")], 1e-6);
    let scores = wide("scr/cases").chunks_exact(3).map(|c| ablation::scr(c[0], c[1], c[2])).collect::<Vec<f64>>();
    assert_close("scr", &f32s(scores), g.f32("scr/score"), 1e-5);
}
