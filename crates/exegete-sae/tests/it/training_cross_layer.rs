//! Training cross-layer transcoders: gradients through the sum of what layers write.

use exegete_base::settings::{Activation, DecoderRows, Penalty, Reconstruction, TrainSettings};
use exegete_sae::Dictionary;
use exegete_sae::train::{CrossLayerTrainer, Side, TrainState};

const L: usize = 3;
const D: usize = 5;
const N: usize = 40;

fn numbers(n: usize, salt: u64) -> Vec<f32> {
    let one =
        |i: u64| (0..4).map(|j| exegete_base::sampling::pair_hash(salt, i, j) as f32 / u64::MAX as f32 - 0.5).sum();
    (0..n as u64).map(one).collect()
}

fn start(settings: &TrainSettings, x: &[f32], y: &[f32]) -> Vec<TrainState> {
    let mean = |v: &[f32]| -> Vec<f32> {
        (0..L * D).map(|c| v.chunks(L * D).map(|row| row[c]).sum::<f32>() / N as f32).collect()
    };
    let (reads, writes) = (mean(x), mean(y));
    let sides: Vec<Side> = reads.chunks(D).map(|mean_D| Side { scale: 1.3, mean_D }).collect();
    CrossLayerTrainer::init(settings, &sides, Side { scale: 0.7, mean_D: &writes }, 5)
}

/// The loss as it is defined, from the dictionary in its own units.
fn loss(states: &[TrainState], settings: &TrainSettings, x: &[f32], y: &[f32]) -> f64 {
    let dictionary = CrossLayerTrainer::dictionary(states, settings);
    let codes = dictionary.encode(x).unwrap();
    let mut recon = vec![0f32; y.len()];
    dictionary.reconstruct(x, &codes, &mut recon).unwrap();
    let column = |v: &[f32], c: usize| -> Vec<f64> { v.iter().skip(c).step_by(L * D).map(|x| f64::from(*x)).collect() };
    let mut sum = 0.0;
    for layer in 0..L {
        let (mut square, mut spread) = (0.0, 0.0);
        for c in layer * D..(layer + 1) * D {
            let (y, r) = (column(y, c), column(&recon, c));
            let mean = y.iter().sum::<f64>() / N as f64;
            square += y.iter().zip(&r).map(|(y, r)| (y - r).powi(2)).sum::<f64>();
            spread += y.iter().map(|y| (y - mean).powi(2)).sum::<f64>();
        }
        sum += match settings.reconstruction {
            Reconstruction::Fvu => square / spread / L as f64,
            // In scaled units.
            _ => 0.49 * square / N as f64,
        };
    }
    sum
}

#[test]
fn a_first_step_goes_against_the_slope_of_the_loss() {
    let (x, y) = (numbers(N * L * D, 1), numbers(N * L * D, 2));
    for reconstruction in [Reconstruction::Fvu, Reconstruction::Mse] {
        let settings = TrainSettings {
            latents: 9,
            activation: Activation::Relu,
            penalty: Penalty::None,
            decoder_rows: DecoderRows::Free,
            reconstruction,
            batch: N,
            lr: 1e-3,
            warmup: 0.0,
            decay: 0.0,
            aux_weight: 0.0,
            ..TrainSettings::default()
        };
        let before = start(&settings, &x, &y);
        let (mut after, mut trainer) = (before.clone(), CrossLayerTrainer::new(&settings, L, 100).unwrap());
        let stats = trainer.step(&mut after, &x, &y).unwrap();
        let at = loss(&before, &settings, &x, &y);
        assert!((stats.loss / at - 1.0).abs() < 1e-4, "{reconstruction:?}: {} told, {at} by definition", stats.loss);
        let (mut seen, mut right) = (0, 0);
        for layer in 0..L {
            let params = |states: &mut [TrainState], which: usize| -> *mut Vec<f32> {
                let state = &mut states[layer];
                [&mut state.w_enc.values, &mut state.w_dec.values, &mut state.b_enc.values, &mut state.b_dec.values]
                    [which]
            };
            for which in 0..4 {
                let mut moved = before.clone();
                // SAFETY: the states live on, and nothing else touches them meanwhile.
                let (values, stepped) = unsafe { (&mut *params(&mut moved, which), &*params(&mut after, which)) };
                let first = values.clone();
                for i in (0..values.len()).step_by(3) {
                    let slope = |delta: f32| {
                        let mut near = before.clone();
                        // SAFETY: as above.
                        let values = unsafe { &mut *params(&mut near, which) };
                        values[i] += delta;
                        loss(&near, &settings, &x, &y)
                    };
                    let slope = (slope(2e-3) - slope(-2e-3)) / 4e-3;
                    if slope.abs() > 1e-4 * at {
                        seen += 1;
                        right += usize::from((stepped[i] < first[i]) == (slope > 0.0) && stepped[i] != first[i]);
                    }
                }
            }
        }
        // A latent that begins or ends at a step of the difference may hide a sign.
        assert!(seen > 60 && right as f64 > 0.97 * seen as f64, "{reconstruction:?}: {right} of {seen} go downhill");
    }
}

#[test]
fn training_lowers_the_error_and_what_is_not_finite_is_refused_whole() {
    let (x, y) = (numbers(N * L * D, 3), numbers(N * L * D, 4));
    let settings = TrainSettings { latents: 24, k: 3, lr: 3e-3, aux_weight: 0.0, ..TrainSettings::default() };
    let mut states = start(&settings, &x, &y);
    let mut trainer = CrossLayerTrainer::new(&settings, L, 400).unwrap();
    let first = trainer.step(&mut states, &x, &y).unwrap();
    let last = (0..300).map(|_| trainer.step(&mut states, &x, &y).unwrap()).last().unwrap();
    assert!(last.fvu < 0.8 * first.fvu, "FVU {} to {}", first.fvu, last.fvu);
    assert!((last.l0 - 9.0).abs() < 0.5, "k of each layer: {}", last.l0);
    let before = states.clone();
    let mut bad = y.clone();
    bad[7] = f32::INFINITY;
    let error = trainer.step(&mut states, &x, &bad).unwrap_err().to_string();
    assert!(error.contains("not finite") && states == before, "{error}");
    // An output that is the same everywhere has no variance to explain.
    let flat: Vec<f32> = y.chunks(L * D).flat_map(|row| [&row[..2 * D], &[1.0; D]].concat()).collect();
    assert!(trainer.step(&mut states, &x, &flat).is_err() && states == before);
}
