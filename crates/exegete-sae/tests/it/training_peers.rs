//! Training beside SAELens and dictionary_learning (`refs/sae_training`): the same start, the same batches.

use exegete_base::settings::{Activation, DecoderRows, Penalty, Reconstruction, TrainSettings};
use exegete_sae::metrics::reconstruction;
use exegete_sae::train::{TrainState, Trainer};
use exegete_testkit::Golden;

const D: usize = 32;
const BATCH: usize = 128;
const EPOCHS: usize = 6;

fn settings(activation: Activation) -> TrainSettings {
    let ranked = matches!(activation, Activation::TopK | Activation::BatchTopK | Activation::MatchingPursuit);
    TrainSettings {
        latents: 128,
        activation,
        k: 6,
        penalty: Penalty::Auto,
        sparsity: if ranked { 0.0 } else { 0.3 },
        sparsity_warmup: 0.0,
        threshold: 0.5,
        bandwidth: 0.4,
        decoder_rows: DecoderRows::Free,
        reconstruction: Reconstruction::Mse,
        batch: BATCH,
        lr: 1e-3,
        warmup: 0.0,
        decay: 0.0,
        aux_weight: 0.0,
        ..TrainSettings::default()
    }
}

#[test]
fn the_same_start_and_batches_give_the_dictionaries_of_saelens_and_dictionary_learning() {
    let (start, golden) =
        (Golden::load("sae_topk/golden.safetensors"), Golden::load("sae_training/golden.safetensors"));
    let unit = |activation| TrainSettings { decoder_rows: DecoderRows::Unit, ..settings(activation) };
    let jump = TrainSettings { sparsity: 0.05, ..settings(Activation::JumpRelu) };
    let anthropic = TrainSettings {
        penalty: Penalty::Tanh,
        sparsity: 0.3,
        ste_to_input: true,
        pre_act_weight: 0.1,
        dead_after_tokens: 1024,
        ..settings(Activation::JumpRelu)
    };
    let quadratic =
        TrainSettings { penalty: Penalty::L0Target, target_l0: 8.0, sparsity: 0.01, ..settings(Activation::JumpRelu) };
    let nested = TrainSettings { prefixes: vec![16, 48], ..settings(Activation::BatchTopK) };
    for (name, settings) in [
        ("lens_standard", settings(Activation::Relu)),
        ("lens_topk", settings(Activation::TopK)),
        ("lens_batchtopk", settings(Activation::BatchTopK)),
        ("lens_matryoshka", nested),
        ("lens_jumprelu", jump),
        ("lens_anthropic", anthropic),
        ("lens_quadratic", quadratic),
        ("lens_matching_pursuit", settings(Activation::MatchingPursuit)),
        ("dl_standard", settings(Activation::Relu)),
        ("dl_topk", unit(Activation::TopK)),
        ("dl_batchtopk", unit(Activation::BatchTopK)),
    ] {
        let get = |key: &str| golden.f32(&format!("{name}/{key}"));
        let w = start.f32("W_dec_init").to_vec();
        let mut state = TrainState::from_parts(&settings, D, start.f32("scale")[0], w.clone(), w, vec![0.0; D]);
        let x: Vec<&[f32]> = start.f32("x_train").chunks(BATCH * D).collect();
        let mut trainer = Trainer::new(settings.clone(), (EPOCHS * x.len()) as u64).unwrap();
        // SAELens sums the errors of prefixes, of which we take the mean: to Adam the same.
        let times = settings.prefixes.len() as f64 + 1.0;
        let mut raised = 0;
        for (step, batch) in (0..EPOCHS).flat_map(|_| &x).enumerate() {
            let stats = trainer.step(&mut state, batch, None).unwrap();
            raised += usize::from(stats.pre_act > 0.0);
            let (loss, l0) = (f64::from(get("losses")[step]), f64::from(get("l0s")[step]));
            let close = |a: f64, b: f64, off: f64| (a / b - 1.0).abs() < off;
            assert!(
                step >= 8 || close(times * stats.loss, loss, 2e-4),
                "{name}, step {step}: {stats:?}, theirs {loss}"
            );
            assert!(step >= 8 || close(stats.l0, l0, 5e-3), "{name}, step {step}: {stats:?}, theirs {l0}");
        }
        assert!(raised > 0 || settings.pre_act_weight == 0.0, "{name}: no latent was dead");
        let measured = reconstruction(&state.dictionary(&settings), [start.f32("x_held")]).unwrap();
        let (fvu, l0) = (measured.fvu().value / f64::from(get("fvu")[0]), measured.l0() / f64::from(get("l0")[0]));
        eprintln!(
            "{name}: FVU {:.5}, {fvu:.5} of theirs; L0 {:.3}, {l0:.5} of theirs",
            measured.fvu().value,
            measured.l0()
        );
        // One choice that falls otherwise changes all that follow it.
        let off = if settings.activation == Activation::MatchingPursuit { 0.02 } else { 0.005 };
        assert!(fvu < 1.0 + off && (l0 - 1.0).abs() < 0.005, "{name}: FVU {fvu} and L0 {l0} of theirs");
    }
}
