//! Dead latents that start anew.

use exegete_base::settings::{Activation, DecoderRows, TrainSettings};
use exegete_sae::train::{Side, TrainState, Trainer};

use crate::training_kinds::{D, F, N, noise, settings};

fn resampling(activation: Activation) -> TrainSettings {
    TrainSettings { resample_every: 5, dead_after_tokens: 50, ..settings(activation) }
}

fn start(settings: &TrainSettings, dead: &[usize]) -> TrainState {
    let mut state = TrainState { step: 4, ..crate::training_kinds::start(settings) };
    dead.iter().for_each(|f| {
        state.since_fired_F[*f] = 1000;
        // So that it does not fire in this very step.
        state.b_enc.values[*f] = -100.0;
    });
    state
}

fn length(row: &[f32]) -> f32 {
    row.iter().map(|w| w * w).sum::<f32>().sqrt()
}

#[test]
fn dead_latents_start_on_inputs_and_the_others_go_on() {
    let x = noise(9, N * D);
    for activation in [Activation::TopK, Activation::Relu, Activation::JumpRelu, Activation::Gated] {
        let settings = resampling(activation);
        let dead = [2usize, 7, 20];
        let after = |settings: &TrainSettings| {
            let mut state = start(settings, &dead);
            Trainer::new(settings.clone(), 30).unwrap().step(&mut state, &x, None).unwrap();
            state
        };
        let (with, without) = (after(&settings), after(&TrainSettings { resample_every: 0, ..settings.clone() }));
        let alive: Vec<usize> = (0..F).filter(|f| !dead.contains(f)).collect();
        let mean =
            alive.iter().map(|f| length(&without.w_enc.values[f * D..(f + 1) * D])).sum::<f32>() / alive.len() as f32;
        let mut tokens = Vec::new();
        for f in 0..F {
            let rows =
                |p: &exegete_tensor::optim::Parameter| [&p.values, &p.m, &p.v].map(|a| a[f * D..(f + 1) * D].to_vec());
            if !dead.contains(&f) {
                assert!(rows(&with.w_enc) == rows(&without.w_enc) && rows(&with.w_dec) == rows(&without.w_dec));
                assert!(with.b_enc.values[f] == without.b_enc.values[f]);
                assert!(with.extras.iter().zip(&without.extras).all(|(a, b)| a.values[f] == b.values[f]));
                continue;
            }
            let ([enc, enc_m, enc_v], [dec, dec_m, dec_v]) = (rows(&with.w_enc), rows(&with.w_dec));
            assert!([enc_m, enc_v, dec_m, dec_v].concat().iter().all(|m| *m == 0.0));
            assert!((with.b_enc.values[f], with.b_enc.m[f], with.since_fired_F[f]) == (0.0, 0.0, 0));
            let first = if activation == Activation::JumpRelu { 0.3 } else { 0.0 };
            assert!(with.extras.iter().all(|e| (e.values[f], e.m[f], e.v[f]) == (first, 0.0, 0.0)));
            assert!((length(&dec) - 1.0).abs() < 1e-5 && (length(&enc) / mean - 0.2).abs() < 1e-4);
            // Its direction is that of one token, less the decoder's bias before the step or behind it.
            let cos = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>() / length(a) / length(b);
            let b_dec = start(&settings, &dead).b_dec.values;
            let centred =
                |n: usize| -> Vec<f32> { x[n * D..(n + 1) * D].iter().zip(&b_dec).map(|(x, b)| 0.7 * x - b).collect() };
            let token = (0..N).find(|n| cos(&enc, &centred(*n)) > 0.99999).unwrap();
            assert!(cos(&dec, &centred(token)) > 0.999);
            tokens.push(token);
        }
        tokens.sort_unstable();
        tokens.dedup();
        assert_eq!(tokens.len(), 3, "drawn without replacement");
    }
}

#[test]
fn nothing_is_resampled_between_the_steps_or_without_dead_latents() {
    let x = noise(9, N * D);
    let settings = resampling(Activation::Relu);
    let after = |settings: &TrainSettings, step: u64, dead: &[usize]| {
        let mut state = TrainState { step, ..start(settings, dead) };
        Trainer::new(settings.clone(), 30).unwrap().step(&mut state, &x, None).unwrap();
        state
    };
    let off = TrainSettings { resample_every: 0, ..settings.clone() };
    assert!(after(&settings, 3, &[1]) == after(&off, 3, &[1]) && after(&settings, 4, &[]) == after(&off, 4, &[]));
    assert!(after(&settings, 4, &[1]) != after(&off, 4, &[1]));
    // More dead than tokens: the others wait.
    let all: Vec<usize> = (0..F).collect();
    let state = after(&settings, 4, &all);
    assert_eq!(state.since_fired_F.iter().filter(|since| **since == 0).count(), N);
}

/// With a probability proportional to the square of the squared error: of tokens of two lengths and a dictionary that
/// reconstructs nothing, those of double length are drawn 16 times as often.
#[test]
fn inputs_are_drawn_by_the_square_of_their_squared_error() {
    let settings = TrainSettings {
        resample_every: 1,
        decoder_rows: DecoderRows::Unit,
        latents: 1,
        k: 1,
        ..resampling(Activation::TopK)
    };
    let x: Vec<f32> = (0..N * D).map(|i| if i % D == (i / D) % 2 { 1.0 + (i / D % 2) as f32 } else { 0.0 }).collect();
    let (mut long, mut seen) = (0, 0);
    for seed in 0..2000 {
        let mut state = TrainState::init(&settings, D, 1.0, &[0.0; D], seed);
        state.since_fired_F[0] = 1000;
        state.b_enc.values[0] = -100.0;
        let mut trainer = Trainer::new(settings.clone(), 30).unwrap();
        trainer.step(&mut state, &x, None).unwrap();
        long += usize::from(state.w_dec.values[1].abs() > 0.9);
        seen += usize::from(state.w_dec.values[0].abs() > 0.9);
    }
    // 1882.4 of 2000 with a deviation of 10.5.
    assert!(seen + long == 2000 && (1840..=1925).contains(&long), "{long} of 2000");
}

#[test]
fn a_resampled_training_goes_on_from_its_bytes() {
    let settings = TrainSettings { resample_every: 3, dead_after_tokens: 30, ..settings(Activation::Relu) };
    let run = |stops: bool| {
        let mut state = start(&settings, &[1, 5, 9]);
        let mut trainer = Trainer::new(settings.clone(), 30).unwrap();
        for i in 0..12 {
            trainer.step(&mut state, &noise(50 + i, N * D), None).unwrap();
            if stops {
                state = TrainState::from_bytes(&state.to_bytes()).unwrap();
                trainer = Trainer::new(settings.clone(), 30).unwrap();
            }
        }
        state
    };
    assert!(run(true) == run(false));
}

#[test]
fn new_latents_of_a_transcoder_are_measured_from_the_mean_of_its_inputs() {
    let settings = TrainSettings { decoder_rows: DecoderRows::Unit, ..resampling(Activation::Relu) };
    let x: Vec<f32> = noise(9, N * D).iter().map(|x| x + 20.0).collect();
    let y = noise(10, N * D);
    let mean =
        |v: &[f32]| -> Vec<f32> { (0..D).map(|c| v.iter().skip(c).step_by(D).sum::<f32>() / N as f32).collect() };
    let (mean_in, mean_out) = (mean(&x), mean(&y));
    let side = |mean_D| Side { scale: 1.0, mean_D };
    let mut state =
        TrainState { step: 4, ..TrainState::init_transcoder(&settings, side(&mean_in), side(&mean_out), 3) };
    for f in [2, 7, 20] {
        state.since_fired_F[f] = 1000;
        state.b_enc.values[f] = -1e4;
    }
    Trainer::new(settings, 30).unwrap().step(&mut state, &x, Some(&y)).unwrap();
    for f in [2, 7, 20] {
        let row = &state.w_enc.values[f * D..(f + 1) * D];
        let along = row.iter().zip(&mean_in).map(|(w, m)| w * m).sum::<f32>();
        assert!((along + state.b_enc.values[f]).abs() < 1e-3, "{f}: {along} and {}", state.b_enc.values[f]);
        assert!(along.abs() < 0.9 * length(row) * length(&mean_in), "{f} points at the mean");
    }
}
