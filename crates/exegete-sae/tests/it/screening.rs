//! Codes of many tokens, where active latents are told by rounded products on machines where that pays, against those of few,
//! which come of whole products everywhere.

use exegete_sae::kinds::{Gated, JumpRelu, KthLargest, Relu, Rule, TopK};
use exegete_sae::{Codes, Dictionary, InputNorm, Sae};

const D: usize = 48;
const F: usize = 2048;
/// Tokens: more than are looked through at once.
const N: usize = 4096 + 300;

/// Numbers by their places, about normal.
fn numbers(n: usize, salt: u64) -> Vec<f32> {
    let part = |i: u64| exegete_base::sampling::pair_hash(salt, i, 1) as f32 / u64::MAX as f32 - 0.5;
    (0..n as u64).map(|i| (0..6).map(|j| part(6 * i + j)).sum()).collect()
}

fn dictionary(rule: Rule) -> Sae {
    let mut sae = Sae::zeros(D, D, F, rule);
    sae.w_enc_FD = numbers(F * D, 1);
    sae.w_dec_FD = numbers(F * D, 2);
    sae.b_dec_D = numbers(D, 3);
    // Few are above 0, and one always.
    sae.b_enc_F = numbers(F, 4).iter().map(|b| 0.3 * b - 7.0).collect();
    sae.b_enc_F[9] = 100.0;
    sae.centres_input = true;
    sae
}

#[test]
fn many_tokens_are_encoded_as_few() {
    let mut x = numbers(N * D, 5);
    x.iter_mut().step_by(D).for_each(|x| *x *= 6.0);
    x[7 * D..8 * D].fill(0.0);
    // One token far longer than the others, and one so short that no product can be told from rounding.
    x[8 * D..9 * D].iter_mut().for_each(|x| *x *= 1e4);
    x[4200 * D..4201 * D].iter_mut().for_each(|x| *x *= 1e-25);
    let threshold_F = numbers(F, 6).iter().map(|t| 2.0 * t).collect();
    for (rule, norm) in [
        (Rule::Relu(Relu), InputNorm::None),
        (Rule::TopK(TopK { k: 12 }), InputNorm::None),
        (Rule::TopK(TopK { k: 40 }), InputNorm::LayerNorm),
        (Rule::JumpRelu(JumpRelu { threshold_F }), InputNorm::None),
        (Rule::KthLargest(KthLargest { is_gate: false, k: 12, eps: 0.5 }), InputNorm::None),
        (Rule::KthLargest(KthLargest { is_gate: true, k: 12, eps: 2.0 }), InputNorm::None),
        (Rule::Gated(Gated::new(&numbers(F, 7), &numbers(F, 8), &numbers(F, 8))), InputNorm::None),
    ] {
        let sae = Sae { norm, ..dictionary(rule.clone()) };
        sae.check().unwrap();
        let many = sae.encode(&x).unwrap();
        let mut few = Codes::default();
        for x in x.chunks(100 * D) {
            let part = sae.encode(x).unwrap();
            (0..part.n_tokens()).for_each(|token| few.push(part.of(token)));
        }
        assert_eq!(many.n_tokens(), N);
        assert!(many.n_active() > 2 * N, "{rule:?}: {} are active", many.n_active());
        // Products of nearly the same size as a bound may be on either side of it.
        let differ = (0..N).filter(|token| !many.of(*token).map(|e| e.0).eq(few.of(*token).map(|e| e.0))).count();
        assert!(differ <= 2, "{}: other latents of {differ} tokens", rule.name());
        for token in (0..N).filter(|token| many.of(*token).map(|e| e.0).eq(few.of(*token).map(|e| e.0))) {
            let length = x[token * D..(token + 1) * D].iter().map(|x| x * x).sum::<f32>().sqrt();
            for ((latent, a), (_, b)) in many.of(token).zip(few.of(token)) {
                assert!(
                    (a - b).abs() < 2e-5 * (20.0 + length),
                    "{rule:?}: token {token}, latent {latent}: {a} and {b}"
                );
            }
        }
    }
}
