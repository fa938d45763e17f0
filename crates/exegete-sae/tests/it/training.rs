//! Training against PyTorch (`refs/sae_topk`) and against itself.

use exegete_base::sampling::pair_hash;
use exegete_base::settings::TrainSettings;
use exegete_sae::metrics::reconstruction;
use exegete_sae::train::{TrainState, Trainer};
use exegete_sae::{Codes, Dictionary};
use exegete_testkit::{Golden, assert_close, assert_rel_l2};

const D: usize = 32;
const N_TRAIN: usize = 4096;
const BATCH: usize = 128;

fn settings() -> TrainSettings {
    TrainSettings {
        latents: 128,
        k: 6,
        epochs: 12,
        batch: BATCH,
        lr: 1e-3,
        warmup: 0.05,
        decay: 0.2,
        aux_weight: 1.0 / 32.0,
        aux_k: 16,
        dead_after_tokens: 2048,
        ..TrainSettings::default()
    }
}

fn start(golden: &Golden) -> TrainState {
    let w_dec = golden.f32("W_dec_init").to_vec();
    let (scale, b_dec) = (golden.f32("scale")[0], golden.f32("b_dec_init").to_vec());
    TrainState::from_parts(&settings(), D, scale, w_dec.clone(), w_dec, b_dec)
}

/// Rows of an epoch in the order of their hashes.
fn order(epoch: u64) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..N_TRAIN).collect();
    rows.sort_by_key(|row| pair_hash(17, epoch, *row as u64));
    rows
}

fn batches(golden: &Golden) -> Vec<Vec<f32>> {
    let x = golden.f32("x_train");
    let gather = |rows: &[usize]| rows.iter().flat_map(|r| x[r * D..(r + 1) * D].iter().copied()).collect();
    (0..12).flat_map(|epoch| order(epoch).chunks_exact(BATCH).map(gather).collect::<Vec<_>>()).collect()
}

#[test]
fn a_whole_run_follows_pytorch() {
    let golden = Golden::load("sae_topk/golden.safetensors");
    let batches = batches(&golden);
    let mut state = start(&golden);
    let mut trainer = Trainer::new(settings(), batches.len() as u64).unwrap();
    for (step, batch) in batches.iter().enumerate() {
        let stats = trainer.step(&mut state, batch, None).unwrap();
        if step < 20 {
            let want = &golden.f32("losses")[step * 3..step * 3 + 3];
            let got = [stats.loss as f32, stats.fvu as f32, stats.aux as f32];
            assert_close(&format!("losses of step {step}"), &got, want, 2e-5);
        }
        assert_eq!(stats.n_dead, golden.i32("n_dead_before")[step] as usize, "dead latents before step {step}");
    }
    let dictionary = state.dictionary(&settings());
    let measured = reconstruction(&dictionary, [golden.f32("x_held")]).unwrap();
    let (got, want) = (measured.fvu().value, f64::from(golden.f32("final/fvu")[0]));
    eprintln!("held-out FVU {got:.6}, PyTorch {want:.6}");
    assert!((got / want - 1.0).abs() < 0.01, "FVU {got} against PyTorch's {want}");
    assert_close("L0", &[measured.l0() as f32], golden.f32("final/l0"), 0.01);
    for row in dictionary.w_dec_FD.chunks(D) {
        assert!((row.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-5, "decoder rows keep unit length");
    }
}

/// Adam's first moment after one step from zero moments is 0.1 times the gradient: that is how gradients are read.
#[test]
fn gradients_agree_with_pytorch_with_and_without_dead_latents() {
    let golden = Golden::load("sae_topk/golden.safetensors");
    for case in ["first", "aux_few", "aux_many"] {
        let get = |name: &str| golden.f32(&format!("{case}/{name}")).to_vec();
        let mut state = start(&golden);
        state.w_enc.values = get("W_enc");
        state.w_dec.values = get("W_dec");
        state.b_enc.values = get("b_enc");
        state.b_dec.values = get("b_dec");
        for (since, dead) in state.since_fired_F.iter_mut().zip(golden.i32(&format!("{case}/dead"))) {
            *since = if *dead != 0 { 1_000_000 } else { 0 };
        }
        let x = golden.f32("x_train");
        let rows = golden.i32(&format!("{case}/rows"));
        let batch: Vec<f32> =
            rows.iter().flat_map(|r| x[*r as usize * D..(*r as usize + 1) * D].iter().copied()).collect();
        let mut after = state.clone();
        let stats = Trainer::new(settings(), 384).unwrap().step(&mut after, &batch, None).unwrap();
        assert_close(case, &[stats.loss as f32, stats.fvu as f32, stats.aux as f32], &get("losses"), 1e-5);
        let from_moment = |m: &[f32]| -> Vec<f32> { m.iter().map(|m| m / 0.1).collect() };
        assert_rel_l2(&format!("{case}/W_enc"), &from_moment(&after.w_enc.m), &get("grad_W_enc"), 1e-4);
        assert_rel_l2(&format!("{case}/b_enc"), &from_moment(&after.b_enc.m), &get("grad_b_enc"), 1e-4);
        assert_rel_l2(&format!("{case}/b_dec"), &from_moment(&after.b_dec.m), &get("grad_b_dec"), 1e-4);
        // The decoder's gradient is taken without its part along each row.
        let mut want = get("grad_W_dec");
        for (g, w) in want.chunks_mut(D).zip(state.w_dec.values.chunks(D)) {
            let along: f32 = g.iter().zip(w).map(|(g, w)| g * w).sum();
            g.iter_mut().zip(w).for_each(|(g, w)| *g -= along * w);
        }
        assert_rel_l2(&format!("{case}/W_dec"), &from_moment(&after.w_dec.m), &want, 1e-4);
        if case != "first" {
            let dead = golden.i32(&format!("{case}/dead")).iter().position(|d| *d != 0).unwrap();
            let reached = (0..128).filter(|f| golden.i32(&format!("{case}/dead"))[*f] != 0);
            let reached = reached.flat_map(|f| after.w_enc.m[f * D..(f + 1) * D].iter()).any(|m| *m != 0.0);
            assert!(reached, "AuxK reaches the encoder of dead latents (first dead: {dead})");
        }
    }
}

#[test]
fn a_run_is_the_same_on_any_number_of_threads() {
    let golden = Golden::load("sae_topk/golden.safetensors");
    let batches = batches(&golden);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| {
            let mut state = start(&golden);
            let mut trainer = Trainer::new(settings(), batches.len() as u64).unwrap();
            for batch in &batches[..80] {
                trainer.step(&mut state, batch, None).unwrap();
            }
            state
        })
    };
    let one = run(1);
    assert!(one == run(2) && one == run(3), "training depends on the number of threads");
}

#[test]
fn a_tokens_code_depends_on_nothing_but_the_token() {
    let golden = Golden::load("sae_topk/golden.safetensors");
    let dictionary = start(&golden).dictionary(&settings());
    let x = &golden.f32("x_train")[..1500 * D];
    let all = dictionary.encode(x).unwrap();
    let one = |codes: &Codes, t: usize| codes.of(t).collect::<Vec<_>>();
    for t in [0usize, 1, 511, 512, 700, 1499] {
        let alone = dictionary.encode(&x[t * D..(t + 1) * D]).unwrap();
        assert_eq!(one(&all, t), one(&alone, 0), "token {t}");
        let shifted = dictionary.encode(&x[t.saturating_sub(3) * D..(t + 1) * D]).unwrap();
        assert_eq!(one(&all, t), one(&shifted, t.min(3)), "token {t}, shifted");
    }
}

#[test]
fn the_gradient_of_the_reconstruction_is_right() {
    let golden = Golden::load("sae_topk/golden.safetensors");
    let dictionary = start(&golden).dictionary(&settings());
    let x = golden.f32("x_train")[..4 * D].to_vec();
    let seed: Vec<f32> = (0..4 * D).map(|i| (i as f32).cos()).collect();
    let objective = |x: &[f32]| -> f64 {
        let codes = dictionary.encode(x).unwrap();
        let mut out = vec![0.0; x.len()];
        dictionary.decode(&codes, &mut out).unwrap();
        out.iter().zip(&seed).map(|(a, b)| f64::from(a * b)).sum()
    };
    let grad = dictionary.backward(&x, &seed, None).unwrap();
    let numeric: Vec<f32> = (0..x.len())
        .map(|i| {
            let moved = |by: f32| {
                let mut x = x.clone();
                x[i] += by;
                objective(&x)
            };
            ((moved(1e-3) - moved(-1e-3)) / 2e-3) as f32
        })
        .collect();
    assert_rel_l2("gradient", &grad, &numeric, 1e-2);
}

#[test]
fn bad_batches_and_settings_are_refused() {
    let golden = Golden::load("sae_topk/golden.safetensors");
    let mut state = start(&golden);
    let mut trainer = Trainer::new(settings(), 10).unwrap();
    assert!(trainer.step(&mut state, &[1.0; 33], None).is_err());
    assert!(trainer.step(&mut state, &[f32::NAN; 64], None).unwrap_err().to_string().contains("not finite"));
    let error = Trainer::new(TrainSettings { k: 129, ..settings() }, 10).err().unwrap().to_string();
    assert!(error.contains("--k"), "{error}");
}
