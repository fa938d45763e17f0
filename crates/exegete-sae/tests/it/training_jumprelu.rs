//! JumpReLU: straight-through gradients computed the long way, thresholds as logarithms, the pre-activation loss.

use exegete_base::settings::{Activation, DecoderRows, Penalty, ThresholdForm, TrainSettings};
use exegete_sae::train::{TrainState, Trainer};
use exegete_tensor::optim::Parameter;

use crate::training_kinds::{D, F, N, agree_with, gradients, noise, settings, start};

const WIDTH: f32 = 0.4;
const SPARSITY: f64 = 0.05;

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Gradients of thresholds and of encoder rows: equation 11 of Rajamanoharan et al. 2024, and what pre-activations feel of it.
fn long_way(settings: &TrainSettings, state: &TrainState, x: &[f32]) -> (Vec<f32>, Vec<f32>, usize) {
    let theta: Vec<f32> = state.extras[0].values.iter().map(|t| settings.threshold_form.threshold(*t)).collect();
    let row = |w: &Parameter, f: usize| w.values[f * D..(f + 1) * D].to_vec();
    let xs: Vec<Vec<f32>> = x.chunks(D).map(|x| x.iter().map(|x| x * state.scale).collect()).collect();
    let centred = |x: &[f32]| -> Vec<f32> { x.iter().zip(&state.b_dec.values).map(|(x, b)| x - b).collect() };
    let h_of = |x: &[f32]| -> Vec<f32> {
        (0..F).map(|f| dot(&row(&state.w_enc, f), &centred(x)) + state.b_enc.values[f]).collect()
    };
    let l0_of = |x: &[f32]| h_of(x).iter().zip(&theta).filter(|(h, t)| h > t).count() as f64;
    let (target, mean_l0) = (settings.target_l0, xs.iter().map(|x| l0_of(x)).sum::<f64>() / N as f64);
    let mut ends = settings.prefixes.clone();
    ends.push(F);
    let (mut d_theta, mut d_enc, mut n_felt) = (vec![0f32; F], vec![0f32; F * D], 0);
    let mut n_below = 0;
    for x in &xs {
        let (h, c) = (h_of(x), centred(x));
        let per_active = SPARSITY / N as f64
            * match settings.penalty {
                Penalty::L0Target => 4.0 / target * (l0_of(x) - target),
                Penalty::L0TargetBatch => 2.0 / target * (mean_l0 / target - 1.0),
                _ => 1.0,
            };
        for f in 0..F {
            // The error's gradient at the activation, of every prefix that has it.
            let of_prefix = |end: &usize| {
                let mut left = c.clone();
                for f in (0..*end).filter(|f| h[*f] > theta[*f]) {
                    left.iter_mut().zip(row(&state.w_dec, f)).for_each(|(l, w)| *l -= h[f] * w);
                }
                -2.0 / N as f32 / ends.len() as f32 * dot(&left, &row(&state.w_dec, f))
            };
            let df: f32 = ends.iter().filter(|end| **end > f).map(of_prefix).sum();
            let is_felt = ((h[f] - theta[f]) / WIDTH).abs() < 0.5;
            let felt = if is_felt { (theta[f] * df + per_active as f32) / WIDTH } else { 0.0 };
            n_felt += usize::from(is_felt && h[f] <= theta[f]);
            n_below += usize::from(is_felt && h[f] < 0.0);
            let by_form = if settings.threshold_form == ThresholdForm::Log { theta[f] } else { 1.0 };
            d_theta[f] -= by_form * felt;
            let dh = if h[f] > theta[f] { df } else { 0.0 } + if settings.ste_to_input { felt } else { 0.0 };
            d_enc[f * D..(f + 1) * D].iter_mut().zip(&c).for_each(|(g, c)| *g += dh * c);
        }
    }
    assert!(n_below > 0, "nothing below 0 is within the band");
    (d_theta, d_enc, n_felt)
}

#[test]
fn thresholds_have_their_straight_through_gradients() {
    let x = noise(9, N * D);
    for penalty in [Penalty::L0, Penalty::L0Target, Penalty::L0TargetBatch] {
        for (ste_to_input, threshold_form, prefixes, l0) in [
            (false, ThresholdForm::Direct, vec![], F as f64),
            (false, ThresholdForm::Direct, vec![], 0.01),
            (false, ThresholdForm::Log, vec![], 0.01),
            (false, ThresholdForm::Log, vec![], F as f64),
            (true, ThresholdForm::Direct, vec![], 0.01),
            (true, ThresholdForm::Log, vec![5, 9], 0.01),
        ] {
            let settings = TrainSettings {
                penalty,
                ste_to_input,
                threshold_form,
                prefixes,
                bandwidth: f64::from(WIDTH),
                sparsity: SPARSITY,
                target_l0: if penalty == Penalty::L0 { 0.0 } else { 4.0 },
                ..settings(Activation::JumpRelu)
            };
            let mut state = TrainState { step: 1, l0, ..start(&settings) };
            // So low that some of the band is below 0.
            state.extras[0].values.iter_mut().step_by(2).for_each(|t| *t = threshold_form.parameter(0.05));
            let (want, want_enc, n_felt) = long_way(&settings, &state, &x);
            assert!(n_felt > 5, "{n_felt} inactive latents within the band");
            let got = gradients(&settings, &state, &x, None);
            let name = format!("{penalty:?}, {ste_to_input}, {threshold_form:?}, {l0}");
            exegete_testkit::assert_rel_l2(&format!("{name}: thresholds"), &got[4], &want, 1e-4);
            exegete_testkit::assert_rel_l2(&format!("{name}: encoder"), &got[0], &want_enc, 1e-4);
        }
    }
}

#[test]
fn dead_latents_are_raised_to_their_thresholds() {
    let x = noise(9, N * D);
    for (decoder_rows, threshold_form, l0) in [
        (DecoderRows::Free, ThresholdForm::Direct, 0.01),
        (DecoderRows::Free, ThresholdForm::Log, 0.01),
        (DecoderRows::Free, ThresholdForm::Log, F as f64),
    ] {
        // With a narrow band thresholds feel nothing but this loss, which has a gradient everywhere.
        let settings = TrainSettings {
            pre_act_weight: 0.5,
            dead_after_tokens: 50,
            bandwidth: 1e-6,
            penalty: Penalty::Tanh,
            decoder_rows,
            threshold_form,
            ..settings(Activation::JumpRelu)
        };
        let mut state = TrainState { step: 1, l0, ..start(&settings) };
        state.since_fired_F.iter_mut().step_by(3).for_each(|since| *since = 100);
        let run =
            |state: &mut TrainState| Trainer::new(settings.clone(), 10).unwrap().step(state, &x, None).unwrap().loss;
        agree_with(&format!("{decoder_rows:?}, {threshold_form:?}, {l0}"), &state, &[], &run);
        let stats = Trainer::new(settings.clone(), 10).unwrap().step(&mut state, &x, None).unwrap();
        assert!(stats.pre_act > 0.1 && stats.n_dead == F / 3 && stats.aux == 0.0, "{stats:?}");
    }
}

#[test]
fn a_logarithm_is_saved_as_its_threshold() {
    let log = TrainSettings { threshold_form: ThresholdForm::Log, ..settings(Activation::JumpRelu) };
    let state = TrainState::init(&log, D, 0.5, &[0.0; D], 3);
    assert!((state.extras[0].values[0] - 0.3f32.ln()).abs() < 1e-6);
    let exegete_sae::kinds::Rule::JumpRelu(rule) = state.dictionary(&log).rule else { panic!() };
    assert!((rule.threshold_F[0] - 0.3 / 0.5).abs() < 1e-6);
}
