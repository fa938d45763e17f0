//! Clamped latents: identities and gradients.

use std::sync::Arc;

use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, Edit, Hooks, Logits, Model};
use exegete_sae::kinds::{Rule, TopK};
use exegete_sae::{Clamp, Dictionary, Sae};
use exegete_tensor::{SiteFn, Tape, f32s, tensor};
use exegete_testkit::{assert_close, refs_dir};

fn wave(n: usize, by: f32) -> Vec<f32> {
    (0..n).map(|i| (i as f32 * by + 0.3).sin()).collect()
}

/// A dictionary that was never trained; its identities hold all the same.
pub(crate) fn dictionary(d: usize) -> Arc<dyn Dictionary> {
    let f = 2 * d;
    Arc::new(Sae {
        w_enc_FD: wave(f * d, 0.71),
        b_enc_F: wave(f, 0.13),
        w_dec_FD: wave(f * d, 0.37),
        b_dec_D: wave(d, 0.9),
        centres_input: true,
        ..Sae::zeros(d, d, 0, Rule::TopK(TopK { k: 4 }))
    })
}

#[test]
fn clamping_to_the_present_value_changes_nothing_and_to_another_moves_along_the_decoder_row() {
    let (d, n) = (6, 5);
    let dictionary = dictionary(d);
    let x = tensor(wave(n * d, 1.3), (n, d)).unwrap();
    let codes = dictionary.encode(&f32s(&x).unwrap()).unwrap();
    let (latent, value) = codes.of(0).next().unwrap();
    let place = vec![exegete_tensor::Place { row: 0, position: 0 }; n];
    let same = Clamp::new(dictionary.clone(), vec![(latent as usize, value)], d).unwrap();
    let out = same.forward(&x, &place).unwrap();
    assert_close("own value", &f32s(&out).unwrap()[..d], &f32s(&x).unwrap()[..d], 1e-6);
    let moved = Clamp::new(dictionary.clone(), vec![(latent as usize, value + 2.0)], d).unwrap();
    let out = moved.forward(&x, &place).unwrap();
    let want: Vec<f32> =
        f32s(&x).unwrap().iter().zip(dictionary.decoder_row(latent as usize)).map(|(x, w)| x + 2.0 * w).collect();
    assert_close("moved", &f32s(&out).unwrap()[..d], &want, 1e-5);
    let refused = |latents: Vec<(usize, f32)>, width: usize| {
        Clamp::new(dictionary.clone(), latents, width).err().unwrap().to_string()
    };
    assert!(refused(vec![(0, 1.0)], 7).contains("width 6 does not fit a site of width 7"));
    assert!(refused(vec![(12, 1.0)], 6).contains("latent 12 does not exist"));
}

#[test]
fn its_gradient_predicts_its_change() {
    let (d, n) = (6, 5);
    let clamp = Clamp::new(dictionary(d), vec![(2, 1.5), (7, 0.0)], d).unwrap();
    let place = vec![exegete_tensor::Place { row: 0, position: 0 }; n];
    let x = wave(n * d, 1.3);
    let (seed, along) = (wave(n * d, 0.21), wave(n * d, 0.77));
    let forward = |x: Vec<f32>| -> f64 {
        let out = clamp.forward(&tensor(x, (n, d)).unwrap(), &place).unwrap();
        f32s(&out).unwrap().iter().zip(&seed).map(|(a, b)| f64::from(a * b)).sum()
    };
    let step = |s: f32| x.iter().zip(&along).map(|(x, u)| x + s * u).collect::<Vec<f32>>();
    let numeric = (forward(step(1e-3)) - forward(step(-1e-3))) / 2e-3;
    let tensors = [x.clone(), seed.clone()].map(|v| tensor(v, (n, d)).unwrap());
    let grad = clamp.backward(&tensors[0], &place, &tensors[1]).unwrap();
    let exact: f64 = f32s(&grad).unwrap().iter().zip(&along).map(|(g, u)| f64::from(g * u)).sum();
    assert!((exact - numeric).abs() < 1e-2 * numeric.abs().max(1.0), "{exact} {numeric}");
}

#[test]
fn a_clamp_in_a_model_changes_what_it_says() {
    let model = Model::open(&refs_dir().join("families/llama2")).unwrap();
    let site = Site::at(SiteKind::ResidPost, 0);
    let batch = Batch::one(&[7, 9, 12, 30]);
    let run = |hooks: &mut Hooks| {
        let out = model.run(&Tape::new(), &batch, None, hooks, Logits::All).unwrap().unwrap();
        f32s(out.tensor()).unwrap().to_vec()
    };
    let plain = run(&mut Hooks::none());
    let clamp = Clamp::new(dictionary(24), vec![(3, 4.0)], 24).unwrap();
    assert_ne!(run(&mut Hooks::none().edit(Edit::everywhere(site, Arc::new(clamp)))), plain);
}
