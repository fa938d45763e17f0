//! Training of every kind: gradients by finite differences, straight-through gradients by their formulas, exactness.

use exegete_base::settings::{Activation, DecoderRows, KthForm, Penalty, Reconstruction, ThresholdForm, TrainSettings};
use exegete_sae::train::{TrainState, Trainer};
use exegete_tensor::optim::Parameter;

pub(crate) const D: usize = 6;
pub(crate) const F: usize = 24;
pub(crate) const N: usize = 16;

pub(crate) fn settings(activation: Activation) -> TrainSettings {
    TrainSettings {
        latents: F,
        activation,
        k: 4,
        kth_eps: 0.3,
        sparsity: 0.05,
        sparsity_warmup: 0.0,
        threshold: 0.3,
        bandwidth: 0.05,
        decoder_rows: DecoderRows::Free,
        reconstruction: Reconstruction::Mse,
        aux_weight: 0.0,
        warmup: 0.0,
        lr: 1e-3,
        ..TrainSettings::default()
    }
}

pub(crate) fn noise(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| next() + next()).collect()
}

pub(crate) fn start(settings: &TrainSettings) -> TrainState {
    let mut state = TrainState::from_parts(settings, D, 0.7, noise(1, F * D), noise(2, F * D), noise(3, D));
    state.b_enc.values = noise(4, F);
    if settings.activation == Activation::MatchingPursuit {
        // Longer rows take off more than there is.
        for row in state.w_dec.values.chunks_mut(D) {
            let length = row.iter().map(|w| w * w).sum::<f32>().sqrt();
            row.iter_mut().for_each(|w| *w *= 0.9 / length);
        }
    }
    for (i, extra) in state.extras.iter_mut().enumerate() {
        extra.values.iter_mut().zip(noise(5 + i as u64, F)).for_each(|(w, n)| *w += 0.1 * n);
    }
    state
}

pub(crate) fn params(state: &mut TrainState) -> Vec<&mut Parameter> {
    let mut all = vec![&mut state.w_enc, &mut state.b_enc, &mut state.w_dec, &mut state.b_dec];
    all.extend(&mut state.extras);
    all.extend(&mut state.w_skip);
    all
}

/// Gradients of the loss, one list for each parameter: Adam's first moment after one step is a tenth of them.
pub(crate) fn gradients(settings: &TrainSettings, state: &TrainState, x: &[f32], y: Option<&[f32]>) -> Vec<Vec<f32>> {
    let mut after = state.clone();
    Trainer::new(settings.clone(), 10).unwrap().step(&mut after, x, y).unwrap();
    params(&mut after).into_iter().map(|p| p.m.iter().map(|m| m / 0.1).collect()).collect()
}

/// [`agree_at`] the first step.
fn agree(name: &str, settings: &TrainSettings, skip: &[usize], y: Option<&[f32]>) {
    agree_at(0, 0.0, name, settings, skip, y);
}

/// [`agree_with`] a step on random data. `step` is one of ten, and the running number of active latents says whether it is
/// dense.
fn agree_at(step: u64, l0: f64, name: &str, settings: &TrainSettings, skip: &[usize], y: Option<&[f32]>) {
    let (mut state, x) = (TrainState { step, l0, ..start(settings) }, noise(9, N * D));
    if y.is_some() {
        (state.transcodes, state.centres) = (true, false);
    }
    let run = |state: &mut TrainState| Trainer::new(settings.clone(), 10).unwrap().step(state, &x, y).unwrap().loss;
    agree_with(name, &state, skip, &run);
}

/// Compares the gradients of a step with differences of the loss that it gives, along the gradient and one other direction
/// of each parameter.
pub(crate) fn agree_with(name: &str, state: &TrainState, skip: &[usize], run: &dyn Fn(&mut TrainState) -> f64) {
    let mut after = state.clone();
    run(&mut after);
    let grads = params(&mut after).into_iter().map(|p| p.m.iter().map(|m| m / 0.1).collect::<Vec<f32>>());
    for (i, grad) in grads.enumerate().filter(|(i, _)| !skip.contains(i)) {
        let norm = grad.iter().map(|g| g * g).sum::<f32>().sqrt();
        assert!(norm > 1e-5, "{name}: parameter {i} has no gradient");
        let along: Vec<f32> = grad.iter().map(|g| g / norm).collect();
        for direction in [along, noise(20 + i as u64, grad.len())] {
            let step = 2e-4;
            let moved = |by: f32| {
                let mut moved = state.clone();
                params(&mut moved)[i].values.iter_mut().zip(&direction).for_each(|(w, d)| *w += by * d);
                run(&mut moved)
            };
            let numeric = (moved(step) - moved(-step)) / (2.0 * f64::from(step));
            let exact: f64 = grad.iter().zip(&direction).map(|(g, d)| f64::from(g * d)).sum();
            let off = (numeric - exact).abs();
            assert!(
                off < 0.01 * exact.abs() + 0.01 * f64::from(norm),
                "{name}, parameter {i}: {numeric} is not {exact}"
            );
        }
    }
}

#[test]
fn gradients_of_every_activation_are_those_of_the_loss() {
    agree("topk", &settings(Activation::TopK), &[], None);
    agree("batchtopk", &settings(Activation::BatchTopK), &[], None);
    agree("relu", &settings(Activation::Relu), &[], None);
    for kth_form in [KthForm::A, KthForm::B, KthForm::C] {
        agree(&format!("{kth_form:?}"), &TrainSettings { kth_form, ..settings(Activation::KthLargest) }, &[], None);
    }
    // Thresholds have straight-through gradients, which are no differences.
    agree("jumprelu", &TrainSettings { bandwidth: 1e-6, ..settings(Activation::JumpRelu) }, &[4], None);
    // The encoder is the decoder.
    agree("matching pursuit", &settings(Activation::MatchingPursuit), &[0, 1], None);
    let fvu = TrainSettings { k: 9, reconstruction: Reconstruction::Fvu, ..settings(Activation::MatchingPursuit) };
    agree("a longer matching pursuit", &fvu, &[0, 1], None);
    // The gate's own error holds the decoder and its bias fixed.
    let gated = TrainSettings { sparsity: 5.0, ..settings(Activation::Gated) };
    agree("gated", &gated, &[2, 3], None);
    agree_at(1, 0.01, "gated, sparse", &gated, &[2, 3], None);
    let nested = TrainSettings { prefixes: vec![5, 11], ..gated };
    agree("gated, nested", &nested, &[2, 3], None);
    let nested = TrainSettings { prefixes: vec![5, 11], ..settings(Activation::Relu) };
    agree("relu, nested", &nested, &[], None);
    agree_at(1, 0.01, "relu, nested and sparse", &nested, &[], None);
}

#[test]
fn a_penalty_of_gates_leaves_magnitudes_alone() {
    let x = noise(9, N * D);
    let grads = |sparsity: f64| {
        let settings = TrainSettings { sparsity, ..settings(Activation::Gated) };
        gradients(&settings, &start(&settings), &x, None)
    };
    let (with, without) = (grads(5.0), grads(0.0));
    assert!(with[4..] == without[4..] && with[1] != without[1]);
}

/// Where fewer than k pre-activations are above 0, the gate is open for all that are.
#[test]
fn a_gate_without_a_kth_largest_is_a_relu() {
    let x = noise(9, N * D);
    let after = |kth_form: KthForm| {
        let settings = TrainSettings { k: F - 2, kth_form, ..settings(Activation::KthLargest) };
        let mut state = start(&settings);
        state.b_enc.values.iter_mut().for_each(|b| *b -= 0.5);
        let stats = Trainer::new(settings, 10).unwrap().step(&mut state, &x, None).unwrap();
        assert!(stats.l0 < (F - 3) as f64, "{stats:?}");
        state
    };
    let (hard, mut soft) = (after(KthForm::A), after(KthForm::C));
    // Summed in another order.
    let mut hard = hard;
    for (a, b) in params(&mut hard).into_iter().zip(params(&mut soft)) {
        exegete_testkit::assert_rel_l2("form c", &b.m, &a.m, 1e-5);
    }
}

#[test]
fn annealing_keeps_the_penaltys_size_in_sparse_and_dense_steps() {
    let x = noise(9, N * D);
    let settings = TrainSettings {
        penalty: Penalty::PAnneal,
        penalty_p: 0.2,
        sparsity: 0.5,
        lr: 1e-9,
        ..settings(Activation::Relu)
    };
    for l0 in [0.01, F as f64] {
        // The power changes behind step 9 of 11.
        let mut state = TrainState { step: 9, l0, ..start(&settings) };
        let mut trainer = Trainer::new(settings.clone(), 11).unwrap();
        let before = trainer.step(&mut state, &x, None).unwrap();
        state.l0 = l0;
        let after = trainer.step(&mut state, &x, None).unwrap();
        assert!(after.penalty != before.penalty && after.sparsity != before.sparsity, "{before:?} {after:?}");
        let (was, is) = (before.sparsity * before.penalty, after.sparsity * after.penalty);
        assert!((is / was - 1.0).abs() < 1e-4, "{was} became {is}");
        // What the weight is steered to be above is one of the new penalty too.
        assert!(state.steering != 1.0 && state.most_steering == state.steering, "{}", state.most_steering);
    }
}

#[test]
fn batches_without_variance_are_told_of_and_do_no_harm_where_none_is_needed() {
    let topk = TrainSettings { aux_weight: 0.1, dead_after_tokens: 5, ..settings(Activation::TopK) };
    let one = noise(9, D);
    let fvu = TrainSettings { reconstruction: Reconstruction::Fvu, ..topk.clone() };
    let mut state = start(&fvu);
    let error = Trainer::new(fvu, 10).unwrap().step(&mut state, &one, None).unwrap_err().to_string();
    assert!(error.contains("the same"), "{error}");
    let mut trainer = Trainer::new(topk.clone(), 50).unwrap();
    let mut state = start(&topk);
    let stats = (0..20).map(|_| trainer.step(&mut state, &one, None).unwrap()).last().unwrap();
    assert!(stats.n_dead > 0 && stats.aux == 0.0 && stats.loss.is_finite(), "{stats:?}");
}

#[test]
fn gradients_of_every_penalty_and_error_are_those_of_the_loss() {
    let relu = settings(Activation::Relu);
    use Penalty::{Freshman, FreshmanRatio, HoyerSquare, L1, PAnneal, Recip, Sqrt, Tanh};
    for penalty in [L1, Sqrt, Tanh, Recip, HoyerSquare, Freshman, FreshmanRatio] {
        agree(&format!("{penalty:?}"), &TrainSettings { penalty, sparsity: 0.5, ..relu.clone() }, &[], None);
    }
    let power = TrainSettings { penalty: PAnneal, penalty_p: 0.2, sparsity: 0.5, ..relu.clone() };
    agree_at(9, 0.01, "p-anneal", &power, &[], None);
    for penalty in [L1, Sqrt, HoyerSquare, Freshman] {
        let sparse = TrainSettings { penalty, sparsity: 0.5, ..relu.clone() };
        agree_at(1, 0.01, &format!("{penalty:?}, sparse"), &sparse, &[], None);
    }
    agree("fvu", &TrainSettings { reconstruction: Reconstruction::Fvu, ..relu.clone() }, &[], None);
    let nested = TrainSettings { prefixes: vec![5, 11], ..settings(Activation::BatchTopK) };
    agree("matryoshka", &nested, &[], None);
    agree("matryoshka by rank", &TrainSettings { prefixes: vec![5, 11], ..settings(Activation::TopK) }, &[], None);
    agree("transcoder", &relu, &[], Some(&noise(10, N * D)));
}

#[test]
fn dense_steps_do_what_sparse_ones_do() {
    for (activation, penalty, decoder_rows, prefixes) in [
        (Activation::Relu, Penalty::L1, DecoderRows::Free, vec![]),
        (Activation::Relu, Penalty::Freshman, DecoderRows::Unit, vec![]),
        (Activation::JumpRelu, Penalty::L0, DecoderRows::Free, vec![]),
        (Activation::JumpRelu, Penalty::Tanh, DecoderRows::Unit, vec![]),
        (Activation::JumpRelu, Penalty::L0Target, DecoderRows::Unit, vec![]),
        (Activation::JumpRelu, Penalty::L0TargetBatch, DecoderRows::Free, vec![]),
        (Activation::Relu, Penalty::L1, DecoderRows::Free, vec![5, 11]),
        (Activation::JumpRelu, Penalty::L0, DecoderRows::Unit, vec![3]),
        (Activation::Gated, Penalty::L1, DecoderRows::Free, vec![]),
        (Activation::Gated, Penalty::HoyerSquare, DecoderRows::Unit, vec![]),
        (Activation::Gated, Penalty::None, DecoderRows::Free, vec![7]),
    ] {
        let jumps = activation == Activation::JumpRelu;
        let settings = TrainSettings {
            target_l0: if jumps { 5.0 } else { 0.0 },
            pre_act_weight: if jumps { 0.3 } else { 0.0 },
            penalty,
            decoder_rows,
            prefixes: prefixes.clone(),
            bandwidth: 0.4,
            aux_weight: 0.1,
            aux_k: 3,
            dead_after_tokens: 5,
            ..settings(activation)
        };
        // More tokens than a block has, too.
        for x in [noise(9, N * D), noise(9, 700 * D)] {
            compare(&format!("{activation:?} {penalty:?} {prefixes:?}"), &settings, &x);
        }
    }
}

fn compare(name: &str, settings: &TrainSettings, x: &[f32]) {
    let after = |l0: f64| {
        let mut state = TrainState { step: 1, l0, ..start(settings) };
        // Some latents count as dead, so that what revives them is compared too.
        state.since_fired_F.iter_mut().step_by(5).for_each(|since| *since = 100);
        let stats = Trainer::new(settings.clone(), 10).unwrap().step(&mut state, x, None).unwrap();
        (stats, state)
    };
    let ((dense, mut a), (sparse, mut b)) = (after(F as f64), after(0.01));
    assert!((dense.loss / sparse.loss - 1.0).abs() < 1e-5 && dense.n_dead == 5, "{name}: {dense:?} {sparse:?}");
    assert!(dense.l0 == sparse.l0 && a.since_fired_F == b.since_fired_F && dense.aux > 0.0, "{name}");
    let n = x.len() / D;
    let fired = a.fired_F.iter().sum::<u64>() as f64;
    assert!(a.fired_F == b.fired_F && a.counted == n as u64 && fired == (dense.l0 * n as f64).round(), "{name}");
    for (i, (a, b)) in params(&mut a).into_iter().zip(params(&mut b)).enumerate() {
        exegete_testkit::assert_rel_l2(&format!("{name}, parameter {i}"), &a.m, &b.m, 1e-4);
    }
}

#[test]
fn a_trained_state_is_the_dictionary_that_is_saved() {
    for (activation, kth_form) in [
        (Activation::TopK, KthForm::A),
        (Activation::Relu, KthForm::A),
        (Activation::JumpRelu, KthForm::A),
        (Activation::Gated, KthForm::A),
        (Activation::KthLargest, KthForm::B),
        (Activation::KthLargest, KthForm::C),
        (Activation::BatchTopK, KthForm::A),
        (Activation::MatchingPursuit, KthForm::A),
    ] {
        // Nothing but the error is in the loss, which the saved dictionary must have too.
        let settings =
            TrainSettings { kth_form, sparsity: 0.0, reconstruction: Reconstruction::Fvu, ..settings(activation) };
        let (state, x) = (start(&settings), noise(9, N * D));
        let stats = Trainer::new(settings.clone(), 10).unwrap().step(&mut state.clone(), &x, None).unwrap();
        let measured = exegete_sae::metrics::reconstruction(&state.dictionary(&settings), [&x[..]]).unwrap();
        assert!(
            (measured.fvu().value - stats.fvu).abs() < 1e-4,
            "{activation:?}: {} {}",
            measured.fvu().value,
            stats.fvu
        );
        assert!((measured.l0() - stats.l0).abs() < 1e-9, "{activation:?}: {} {}", measured.l0(), stats.l0);
    }
}

#[test]
fn the_largest_of_a_batch_are_found_wherever_the_search_begins() {
    let settings = settings(Activation::BatchTopK);
    let x = noise(9, N * D);
    let after = |reached: f32| {
        let mut state = TrainState { reached, ..start(&settings) };
        let stats = Trainer::new(settings.clone(), 10).unwrap().step(&mut state, &x, None).unwrap();
        assert_eq!(stats.l0, 4.0);
        state
    };
    let known = after(0.0);
    assert!(known.reached > 0.0);
    // From too low, from where it is, and from too high.
    for reached in [1e-3, known.reached, 100.0] {
        assert!(after(reached) == known, "a search from {reached}");
    }
}

#[test]
fn what_steers_the_penalty_brings_the_number_of_active_latents_to_its_target() {
    let x: Vec<Vec<f32>> = (0..8).map(|i| noise(100 + i, 64 * D)).collect();
    for activation in [Activation::Relu, Activation::JumpRelu, Activation::Gated] {
        let settings = TrainSettings {
            target_l0: 5.0,
            bandwidth: 0.5,
            decoder_rows: DecoderRows::Unit,
            reconstruction: Reconstruction::Fvu,
            lr: 3e-3,
            ..settings(activation)
        };
        let mut state = TrainState::init(&settings, D, 1.0, &[0.0; D], 7);
        let mut trainer = Trainer::new(settings, 1500).unwrap();
        let (mut late, mut least) = (0.0, f64::INFINITY);
        for step in 0..1500 {
            let stats = trainer.step(&mut state, &x[step % 8], None).unwrap();
            least = least.min(state.l0);
            late += if step >= 1200 { stats.l0 / 300.0 } else { 0.0 };
        }
        assert!((late / 5.0 - 1.0f64).abs() < 0.05, "{activation:?}: {late} active latents");
        // Where nothing holds it back, the weight is too strong by the time that it works.
        assert!(least > 3.5, "{activation:?}: it fell to {least} active latents");
        assert!(state.since_fired_F.contains(&0));
    }
}

#[test]
fn settings_that_contradict_each_other_name_the_flag() {
    let refused = |settings: TrainSettings| Trainer::new(settings, 10).err().unwrap().to_string();
    let relu = settings(Activation::Relu);
    for (settings, flag) in [
        (TrainSettings { target_l0: 5.0, ..settings(Activation::TopK) }, "--penalty"),
        (TrainSettings { target_l0: 5.0, penalty: Penalty::L1, ..settings(Activation::TopK) }, "--k"),
        (TrainSettings { penalty: Penalty::L0, ..relu.clone() }, "--activation jumprelu"),
        (TrainSettings { penalty: Penalty::L0Target, ..settings(Activation::JumpRelu) }, "--target-l0"),
        (TrainSettings { prefixes: vec![3], ..settings(Activation::MatchingPursuit) }, "--prefixes"),
        (TrainSettings { penalty: Penalty::L1, ..settings(Activation::MatchingPursuit) }, "--penalty"),
        (TrainSettings { ste_to_input: true, ..relu.clone() }, "--ste-to-input"),
        (TrainSettings { pre_act_weight: 1.0, ..relu.clone() }, "--pre-act-weight"),
        (
            TrainSettings { threshold: 0.0, threshold_form: ThresholdForm::Log, ..settings(Activation::JumpRelu) },
            "--threshold",
        ),
        (TrainSettings { penalty: Penalty::Freshman, penalty_p: 1.0, ..relu.clone() }, "--penalty-p"),
        (TrainSettings { penalty: Penalty::PAnneal, ..relu.clone() }, "--penalty-p"),
        (TrainSettings { prefixes: vec![9, 3], ..relu.clone() }, "--prefixes"),
        (TrainSettings { prefixes: vec![F], ..relu.clone() }, "--prefixes"),
        (TrainSettings { bandwidth: f64::NAN, ..relu.clone() }, "--bandwidth"),
        (TrainSettings { beta1: 1.0, ..relu }, "--beta1"),
    ] {
        let error = refused(settings);
        assert!(error.contains(flag), "{error} does not name {flag}");
    }
}

/// Rows of the encoder stay those of the decoder, whatever holds them, and nothing is left of a bias.
#[test]
fn a_trained_pursuit_reads_with_its_decoder() {
    for decoder_rows in [DecoderRows::Unit, DecoderRows::Free] {
        let settings = TrainSettings {
            decoder_rows,
            aux_weight: 0.1,
            dead_after_tokens: 20,
            resample_every: 3,
            lr: 0.01,
            ..settings(Activation::MatchingPursuit)
        };
        let mut state = TrainState::init(&settings, D, 0.7, &[0.0; D], 3);
        let mut trainer = Trainer::new(settings.clone(), 200).unwrap();
        let all: Vec<_> =
            (0..200).map(|i| trainer.step(&mut state, &noise(50 + i % 5, 64 * D), None).unwrap()).collect();
        assert!(state.w_enc.values == state.w_dec.values && state.b_enc.values.iter().all(|b| *b == 0.0));
        assert!(all[199].fvu < 0.7 * all[0].fvu && all[199].l0 <= 4.0, "{:?} {:?}", all[0], all[199]);
        state.dictionary(&settings).check().unwrap();
    }
    let pursuit = settings(Activation::MatchingPursuit);
    let mut state = TrainState { centres: false, ..start(&pursuit) };
    let error = Trainer::new(pursuit, 10).unwrap().step(&mut state, &noise(9, N * D), None).unwrap_err().to_string();
    assert!(error.contains("--activation"), "{error}");
}
