//! Transcoders and crosscoders: targets of another width and scale, a path beside the latents, blocks.

use exegete_base::settings::{Activation, DecoderRows, KthForm, Penalty, Reconstruction, TrainSettings};
use exegete_sae::Dictionary;
use exegete_sae::formats::Saved;
use exegete_sae::formats::saelens;
use exegete_sae::train::{Side, TrainState, Trainer};

use crate::training_kinds::{D, F, N, agree_with, noise, settings};

const OUT: usize = 8;

fn transcoder(settings: &TrainSettings) -> TrainState {
    let side = |scale, mean_D| Side { scale, mean_D };
    let mut state = TrainState::init_transcoder(settings, side(0.7, &noise(1, D)), side(1.3, &noise(2, OUT)), 5);
    for (i, p) in crate::training_kinds::params(&mut state).into_iter().enumerate() {
        let n = noise(3 + i as u64, p.values.len());
        p.values.iter_mut().zip(n).for_each(|(w, n)| *w += if i == 4 { 0.1 * n } else { 0.3 * n });
    }
    state
}

#[test]
fn crosscoders_penalties_count_the_sum_of_the_lengths_of_blocks() {
    let (x, y) = (noise(9, N * D), noise(10, N * OUT));
    for (step, l0) in [(0, 0.0), (1, 0.01)] {
        for penalty in [Penalty::L1, Penalty::Tanh, Penalty::HoyerSquare] {
            let settings = TrainSettings { penalty, sparsity: 2.0, ..settings(Activation::Relu) };
            let state = TrainState { step, l0, blocks: 4, ..transcoder(&settings) };
            let run = |state: &mut TrainState| {
                Trainer::new(settings.clone(), 10).unwrap().step(state, &x, Some(&y)).unwrap().loss
            };
            agree_with(&format!("{penalty:?}, step {step}"), &state, &[], &run);
        }
    }
    // L1 by hand.
    let settings =
        TrainSettings { penalty: Penalty::L1, decoder_rows: DecoderRows::Free, ..settings(Activation::Relu) };
    let state = TrainState { blocks: 4, ..transcoder(&settings) };
    let stats = Trainer::new(settings.clone(), 10).unwrap().step(&mut state.clone(), &x, Some(&y)).unwrap();
    let sae = state.dictionary(&settings);
    let codes = sae.encode(&x).unwrap();
    let length = |row: &[f32]| row.chunks(2).map(|b| b.iter().map(|w| w * w).sum::<f32>().sqrt()).sum::<f32>();
    let lengths: Vec<f32> = sae.w_dec_FD.chunks(OUT).map(length).collect();
    let each = codes.latents().iter().zip(codes.values()).map(|(f, v)| f64::from(lengths[*f as usize] * v * 1.3));
    let want = each.sum::<f64>() / N as f64;
    assert!((stats.penalty / want - 1.0).abs() < 1e-4, "{} {want}", stats.penalty);
}

#[test]
fn gradients_of_transcoders_are_those_of_the_loss() {
    let (x, y) = (noise(11, N * D), noise(10, N * OUT));
    for (activation, skip, skipped, l0) in [
        (Activation::TopK, false, &[][..], 0.0),
        (Activation::TopK, true, &[], 0.0),
        (Activation::BatchTopK, true, &[], 0.0),
        (Activation::Relu, true, &[], 0.01),
        (Activation::Relu, true, &[], F as f64),
        // Straight-through thresholds; what a gate's own error holds fixed.
        (Activation::JumpRelu, true, &[4], 0.01),
        (Activation::JumpRelu, true, &[4], F as f64),
        (Activation::Gated, true, &[2, 3, 6], 0.0),
    ] {
        let settings = TrainSettings { skip, bandwidth: 1e-6, ..settings(activation) };
        let state = TrainState { step: 1, l0, ..transcoder(&settings) };
        let run = |state: &mut TrainState| {
            Trainer::new(settings.clone(), 10).unwrap().step(state, &x, Some(&y)).unwrap().loss
        };
        agree_with(&format!("{activation:?}, {l0} active before"), &state, skipped, &run);
    }
    let nested = TrainSettings { skip: true, prefixes: vec![4, 9], ..settings(Activation::TopK) };
    let run =
        |state: &mut TrainState| Trainer::new(nested.clone(), 10).unwrap().step(state, &x, Some(&y)).unwrap().loss;
    agree_with("nested", &transcoder(&nested), &[], &run);
}

/// The FVU that the step measured in scaled units is that of the dictionary, saved and read again, in the model's.
#[test]
fn what_is_saved_of_a_transcoder_is_what_was_trained() {
    let (x, y) = (noise(9, N * D), noise(10, N * OUT));
    for (activation, kth_form) in [
        (Activation::TopK, KthForm::A),
        (Activation::Relu, KthForm::A),
        (Activation::JumpRelu, KthForm::A),
        (Activation::Gated, KthForm::A),
        (Activation::KthLargest, KthForm::B),
        (Activation::KthLargest, KthForm::C),
    ] {
        for skip in [false, true] {
            let settings =
                TrainSettings { skip, kth_form, reconstruction: Reconstruction::Fvu, ..settings(activation) };
            let state = transcoder(&settings);
            let stats = Trainer::new(settings.clone(), 10).unwrap().step(&mut state.clone(), &x, Some(&y)).unwrap();
            let dictionary = state.dictionary(&settings);
            let (config, weights) = saelens::to_bytes(&Saved::new(dictionary.clone(), saelens::NAME)).unwrap();
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join(saelens::CONFIG), config).unwrap();
            std::fs::write(dir.path().join(saelens::WEIGHTS), weights).unwrap();
            let sae = saelens::load(dir.path()).unwrap().dictionary;
            assert!(sae.transcodes() && sae.d_out() == OUT && sae.kind() == dictionary.kind());
            let codes = sae.encode(&x).unwrap();
            let mut recon = vec![0f32; N * OUT];
            sae.reconstruct(&x, &codes, &mut recon).unwrap();
            let mean: Vec<f32> = (0..OUT).map(|i| y.iter().skip(i).step_by(OUT).sum::<f32>() / N as f32).collect();
            let square = |a: f32| f64::from(a * a);
            let spread: f64 = y.iter().enumerate().map(|(i, y)| square(y - mean[i % OUT])).sum();
            let fvu = y.iter().zip(&recon).map(|(y, r)| square(y - r)).sum::<f64>() / spread;
            let name = format!("{activation:?}, skip {skip}");
            assert!((fvu / stats.fvu - 1.0).abs() < 1e-4, "{name}: {fvu} {stats:?}");
            assert_eq!(codes.n_active() as f64 / N as f64, stats.l0, "{name}");
        }
    }
}

#[test]
fn a_transcoder_starts_at_the_mean_of_its_outputs() {
    let settings = TrainSettings { skip: true, ..settings(Activation::TopK) };
    let (mean_in, mean_out) = (noise(1, D), noise(2, OUT));
    let (input, output) = (Side { scale: 0.5, mean_D: &mean_in }, Side { scale: 4.0, mean_D: &mean_out });
    let state = TrainState::init_transcoder(&settings, input, output, 3);
    let sae = state.dictionary(&settings);
    // The mean input has no pre-activations, so what comes out is the bias, the mean output.
    let codes = sae.encode(&mean_in).unwrap();
    assert!(codes.values().iter().all(|v| *v < 1e-5), "{:?}", codes.values());
    exegete_testkit::assert_close("bias", &sae.b_dec_D, &mean_out, 1e-6);
    assert!(sae.w_skip_DD.unwrap().iter().all(|w| *w == 0.0));
    let unit =
        |rows: &[f32], d: usize| rows.chunks(d).all(|row| (row.iter().map(|w| w * w).sum::<f32>() - 1.0).abs() < 1e-5);
    assert!(unit(&state.w_enc.values, D) && unit(&state.w_dec.values, OUT));
    let same = TrainState::init_transcoder(&settings, input, Side { mean_D: &mean_in, ..output }, 3);
    assert_eq!(same.w_enc, same.w_dec);

    // A path beside the latents alone finds a linear map.
    let map = noise(8, OUT * D);
    let settings = TrainSettings { lr: 0.01, k: 1, decay: 0.5, decoder_rows: DecoderRows::Unit, ..settings };
    let output = Side { scale: 0.5, ..output };
    let mut state = TrainState::init_transcoder(&settings, Side { scale: 1.0, mean_D: &[0.0; D] }, output, 3);
    let mut trainer = Trainer::new(settings, 600).unwrap();
    let last = (0..600).map(|i| {
        let x = noise(100 + i % 7, 64 * D);
        let row = |x: &[f32]| map.chunks(D).map(|m| m.iter().zip(x).map(|(a, b)| a * b).sum()).collect::<Vec<f32>>();
        let y: Vec<f32> = x.chunks(D).flat_map(row).collect();
        trainer.step(&mut state, &x, Some(&y)).unwrap().fvu
    });
    let fvu = last.last().unwrap();
    assert!(fvu < 1e-3, "FVU {fvu}");
    let auto = TrainState::init(&TrainSettings { skip: true, ..TrainSettings::default() }, D, 1.0, &[0.0; D], 1);
    let mut trainer = Trainer::new(TrainSettings { skip: true, ..TrainSettings::default() }, 10).unwrap();
    let error = trainer.step(&mut auto.clone(), &noise(1, D), None).unwrap_err().to_string();
    assert!(error.contains("--skip"), "{error}");
}
