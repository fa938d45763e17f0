//! Steps in two halves, by an error that comes from elsewhere.

use exegete_base::settings::{Activation, TrainSettings};
use exegete_sae::train::{Given, StepStats, TrainState, Trainer};

use crate::training_kinds::{D, F, N, agree_with, noise, params, settings, start};

/// The halves of a step with the error that the trainer would have taken: the squared one, a mean over tokens.
fn halves(trainer: &mut Trainer, state: &mut TrainState, x: &[f32]) -> StepStats {
    let xs: Vec<f32> = x.iter().map(|x| x * state.scale).collect();
    let recon = trainer.forward(state, x).unwrap();
    let left_ND: Vec<f32> = xs.iter().zip(recon).map(|(x, r)| x - r).collect();
    let factor = 1.0 / N as f64;
    let grad_ND: Vec<f32> = left_ND.iter().map(|l| (-2.0 * factor) as f32 * l).collect();
    let loss = factor * left_ND.iter().map(|l| f64::from(l * l)).sum::<f64>();
    let given = Given { loss, fvu: 0.5, grad_ND: &grad_ND, left_ND: None };
    trainer.backward(state, given).unwrap()
}

const ALL: [Activation; 7] = [
    Activation::TopK,
    Activation::BatchTopK,
    Activation::Relu,
    Activation::JumpRelu,
    Activation::Gated,
    Activation::KthLargest,
    Activation::MatchingPursuit,
];

#[test]
fn the_halves_of_a_step_are_the_step() {
    for activation in ALL {
        for l0 in [0.01, F as f64] {
            let settings = TrainSettings {
                aux_weight: 0.1,
                aux_k: 3,
                dead_after_tokens: 20,
                bandwidth: 0.4,
                ..settings(activation)
            };
            let run = |step: &dyn Fn(&mut Trainer, &mut TrainState, &[f32]) -> StepStats| {
                let mut state = TrainState { step: 1, l0, ..start(&settings) };
                state.since_fired_F.iter_mut().step_by(5).for_each(|since| *since = 100);
                let mut trainer = Trainer::new(settings.clone(), 30).unwrap();
                let mut last = None;
                for i in 0..4 {
                    last = Some(step(&mut trainer, &mut state, &noise(50 + i, N * D)));
                    state.l0 = l0;
                }
                (last.unwrap(), state)
            };
            let (whole, mut a) = run(&|trainer, state, x| trainer.step(state, x, None).unwrap());
            let (half, mut b) = run(&|trainer, state, x| halves(trainer, state, x));
            let name = format!("{activation:?}, {l0} active before");
            let has_aux = activation != Activation::MatchingPursuit;
            assert!((whole.loss / half.loss - 1.0).abs() < 1e-5 && half.fvu == 0.5, "{name}");
            assert!((whole.aux > 0.0) == has_aux, "{name}");
            assert!(half.l0 == whole.l0 && half.n_dead == whole.n_dead, "{name}: {whole:?} {half:?}");
            // What is left is computed from a reconstruction that has been written down, in dense steps with sums in blocks.
            for (i, (a, b)) in params(&mut a).into_iter().zip(params(&mut b)).enumerate() {
                exegete_testkit::assert_rel_l2(&format!("{name}, parameter {i}"), &b.m, &a.m, 1e-4);
                exegete_testkit::assert_rel_l2(&format!("{name}, parameter {i}"), &b.values, &a.values, 1e-4);
            }
        }
    }
}

#[test]
fn gradients_of_an_error_from_elsewhere_are_those_of_the_loss() {
    let (x, other) = (noise(9, N * D), noise(30, N * D));
    for (activation, step, l0) in [
        (Activation::TopK, 0, 0.0),
        (Activation::BatchTopK, 0, 0.0),
        (Activation::Relu, 0, 0.0),
        (Activation::Relu, 1, 0.01),
        (Activation::KthLargest, 0, 0.0),
        (Activation::MatchingPursuit, 0, 0.0),
    ] {
        let settings = settings(activation);
        let run = |state: &mut TrainState| {
            let mut trainer = Trainer::new(settings.clone(), 10).unwrap();
            let recon = trainer.forward(state, &x).unwrap();
            let loss = recon.iter().zip(&other).map(|(r, o)| f64::from((r + o).sin())).sum();
            let grad_ND: Vec<f32> = recon.iter().zip(&other).map(|(r, o)| (r + o).cos()).collect();
            trainer.backward(state, Given { loss, fvu: 0.0, grad_ND: &grad_ND, left_ND: None }).unwrap().loss
        };
        // The encoder of a matching pursuit is its decoder.
        let skip: &[usize] = if activation == Activation::MatchingPursuit { &[0, 1] } else { &[] };
        agree_with(&format!("{activation:?}, step {step}"), &TrainState { step, l0, ..start(&settings) }, skip, &run);
    }
}

#[test]
fn halves_that_do_not_fit_are_refused() {
    let topk = settings(Activation::TopK);
    let x = noise(9, N * D);
    let (grad_ND, short) = (vec![0.1; N * D], vec![0.1; D]);
    let given = |grad_ND| Given { loss: 1.0, fvu: 1.0, grad_ND, left_ND: None };
    let (mut state, mut trainer) = (start(&topk), Trainer::new(topk.clone(), 10).unwrap());
    let error = |result: Result<StepStats, exegete_sae::SaeError>| result.unwrap_err().to_string();
    assert!(error(trainer.backward(&mut state, given(&grad_ND))).contains("forward"));
    trainer.forward(&mut state, &x).unwrap();
    assert!(error(trainer.backward(&mut state, given(&short))).contains("a gradient has 6 values"));
    // What was refused has moved nothing, and a half is used once.
    assert!(state == start(&topk) && error(trainer.backward(&mut state, given(&grad_ND))).contains("forward"));
    trainer.forward(&mut state, &x).unwrap();
    let nan = Given { loss: f64::NAN, ..given(&grad_ND) };
    assert!(error(trainer.backward(&mut state, nan)).contains("not finite"));

    let nested = TrainSettings { prefixes: vec![5], ..topk.clone() };
    let mut state = start(&nested);
    let refused = Trainer::new(nested, 10).unwrap().forward(&mut state, &x).unwrap_err().to_string();
    assert!(refused.contains("--prefixes"), "{refused}");

    // AuxK explains what is left, which a transcoder cannot know by itself.
    let aux = TrainSettings { aux_weight: 0.1, ..topk.clone() };
    let mut state = TrainState { transcodes: true, centres: false, ..start(&aux) };
    let mut trainer = Trainer::new(aux, 10).unwrap();
    trainer.forward(&mut state, &x).unwrap();
    assert!(error(trainer.backward(&mut state, given(&grad_ND))).contains("--aux-weight"));
    trainer.forward(&mut state, &x).unwrap();
    trainer.backward(&mut state, Given { left_ND: Some(&grad_ND), ..given(&grad_ND) }).unwrap();
    // Without AuxK it needs none, in a dense step neither.
    let relu = settings(Activation::Relu);
    let mut dense = TrainState { transcodes: true, centres: false, ..start(&relu) };
    let mut halved = Trainer::new(relu, 10).unwrap();
    halved.forward(&mut dense, &x).unwrap();
    halved.backward(&mut dense, given(&grad_ND)).unwrap();
    // Targets are a transcoder's.
    assert!(error(trainer.step(&mut state, &x, None)).contains("targets"));
    let mut state = start(&topk);
    let mut trainer = Trainer::new(topk, 10).unwrap();
    assert!(error(trainer.step(&mut state, &x, Some(&x))).contains("autoencoder"));
}
