//! Every op, forward and backward, against PyTorch (`refs/ops`).

use std::sync::Arc;

use exegete_tensor::cpu::adam::{AdamStep, update};
use exegete_tensor::cpu::attention::{AttentionRow, AttentionShape};
use exegete_tensor::cpu::mixture::{Routes, route};
use exegete_tensor::cpu::rope::RopeTable;
use exegete_tensor::cpu::topk::row_topk;
use exegete_tensor::{Act, Keep, KeySource, Matrix, Result, Stack, Tape, Value, f32s, tensor};
use exegete_testkit::{Golden, assert_close, assert_rel_l2};

/// Runs `op` on the case's inputs and compares its output and its gradients.
#[track_caller]
fn check(case: &str, inputs: &[&str], op: impl Fn(&Tape, &[Value]) -> Result<Value>) {
    check_in("ops", case, inputs, op);
}

#[track_caller]
fn check_in(file: &str, case: &str, inputs: &[&str], op: impl Fn(&Tape, &[Value]) -> Result<Value>) {
    let golden = Golden::load(format!("{file}/out.safetensors"));
    let load = |name: &str| {
        let name = format!("{case}/{name}");
        tensor(golden.f32(&name).to_vec(), golden.shape(&name)).unwrap()
    };
    let tape = Tape::new();
    let values: Vec<Value> = inputs.iter().map(|name| tape.watch(&load(name).into())).collect();
    let out = op(&tape, &values).unwrap();
    assert_close(&format!("{case}/out"), &f32s(out.tensor()).unwrap(), golden.f32(&format!("{case}/out")), 1e-5);
    let seed = load("grad_out").reshape(out.tensor().dims()).unwrap();
    let grads = tape.gradients(&out, &seed, &values.iter().collect::<Vec<_>>()).unwrap();
    for (name, grad) in inputs.iter().zip(&grads) {
        let key = format!("{case}/grad_{name}");
        assert_rel_l2(&key, &f32s(grad).unwrap(), golden.f32(&key), 1e-5);
    }
}

fn ids(case: &str, name: &str) -> Vec<u32> {
    Golden::load("ops/out.safetensors").i32(&format!("{case}/{name}")).iter().map(|i| *i as u32).collect()
}

/// A value as packed weights.
fn packed(w: &Value) -> Matrix {
    let (n, k) = w.tensor().dims2().unwrap();
    let mut stack = Stack::new(Keep::F32, 1, n, k);
    stack.fill(0, 0, &f32s(w.tensor()).unwrap());
    Matrix::new(Arc::new(stack), 0)
}

#[test]
fn linear() {
    check("linear", &["x", "w"], |t, v| t.linear(&v[0], &packed(&v[1]), Some(&v[1]), None));
    check("linear_bias", &["x", "w", "b"], |t, v| t.linear(&v[0], &packed(&v[1]), Some(&v[1]), Some(&v[2])));
}

#[test]
fn norms() {
    check("rmsnorm", &["x", "gain"], |t, v| t.rms_norm(&v[0], &v[1], 1e-5));
    check("layernorm", &["x", "gain", "bias"], |t, v| t.layer_norm(&v[0], &v[1], &v[2], 1e-5));
}

#[test]
fn rope() {
    let inv_freq: Vec<f32> = (0..6).map(|i| 1.0 / 10_000f32.powf(2.0 * i as f32 / 12.0)).collect();
    let table = Arc::new(RopeTable::new(&inv_freq, 12, 1.0, 64));
    let positions: Vec<usize> = ids("rope", "positions").repeat(2).iter().map(|p| *p as usize).collect();
    check("rope", &["x"], |t, v| {
        let rotated = t.rope(&t.reshape(&v[0], &[2, 7, 36])?, &table, &positions)?;
        t.reshape(&rotated, &[2, 7, 3, 12])
    });
}

/// Rows of these lengths, one behind the other.
fn shape(lens: &[usize]) -> AttentionShape {
    let first = |b: usize| lens[..b].iter().sum();
    let rows = (0..lens.len()).map(|b| AttentionRow { first: first(b), n: lens[b], past: 0 }).collect();
    AttentionShape { rows, n_heads: 6, n_kv_heads: 2, d_head: 16, scale: 0.25, soft_cap: None, window: None }
}

fn attend(t: &Tape, v: &[Value], s: &AttentionShape) -> Result<Value> {
    t.attention(&v[0], &KeySource::Run { keys: &v[1], values: &v[2] }, s)
}

#[test]
fn attention() {
    check("attention", &["q", "k", "v"], |t, v| attend(t, v, &shape(&[11, 11])));
    // The reference pads the second row on its left and leaves the padding 0; here the row is as long as it is.
    let starts: Vec<usize> = ids("attention_padded", "starts").iter().map(|s| *s as usize).collect();
    let golden = Golden::load("ops/out.safetensors");
    let real = |name: &str, width: usize| -> Vec<f32> {
        let all = golden.f32(&format!("attention_padded/{name}"));
        starts.iter().enumerate().flat_map(|(b, s)| all[(b * 11 + s) * width..(b + 1) * 11 * width].to_vec()).collect()
    };
    let n = 22 - starts.iter().sum::<usize>();
    let load = |name: &str, width: usize| tensor(real(name, width), (n, width)).unwrap();
    let tape = Tape::new();
    let v: Vec<Value> = [("q", 96), ("k", 32), ("v", 32)].map(|(x, w)| tape.watch(&load(x, w).into())).to_vec();
    let lens: Vec<usize> = starts.iter().map(|s| 11 - s).collect();
    let out = attend(&tape, &v, &shape(&lens)).unwrap();
    assert_close("ragged out", &f32s(out.tensor()).unwrap(), &real("out", 96), 1e-5);
    let grads = tape.gradients(&out, &load("grad_out", 96), &v.iter().collect::<Vec<_>>()).unwrap();
    for ((name, width), grad) in [("grad_q", 96), ("grad_k", 32), ("grad_v", 32)].into_iter().zip(&grads) {
        assert_rel_l2(name, &f32s(grad).unwrap(), &real(name, width), 1e-5);
    }
}

#[test]
fn attention_with_windows_and_caps() {
    let s = AttentionShape { d_head: 8, scale: 0.4, soft_cap: Some(1.5), window: Some(4), ..shape(&[9, 4]) };
    check_in("ops_model", "attention_window_cap", &["q", "k", "v"], |t, v| attend(t, v, &s));
    check_in("ops_model", "attention_window_cap", &["q", "k", "v"], |t, v| {
        let source = KeySource::Run { keys: &v[1], values: &v[2] };
        let scores = t.attention_scores(&v[0], &source, &s)?;
        t.attention_mix(&t.softmax(&scores, s.n_keys())?, &source, &s)
    });
    let golden = Golden::load("ops_model/out.safetensors");
    let load = |n: &str| {
        tensor(golden.f32(&format!("attention_scores/{n}")).to_vec(), golden.shape(&format!("attention_scores/{n}")))
            .unwrap()
    };
    let tape = Tape::new();
    let (q, k) = (tape.watch(&load("q").into()), tape.watch(&load("k").into()));
    let out = tape.attention_scores(&q, &KeySource::Run { keys: &k, values: &k }, &s).unwrap();
    // Masked scores are -inf here and 0 there.
    let seen: Vec<f32> = f32s(out.tensor()).unwrap().iter().map(|x| if x.is_finite() { *x } else { 0.0 }).collect();
    assert_close("scores", &seen, golden.f32("attention_scores/out"), 1e-5);
    let grads = tape.gradients(&out, &load("grad_out"), &[&q, &k]).unwrap();
    for (name, grad) in ["grad_q", "grad_k"].iter().zip(&grads) {
        assert_rel_l2(name, &f32s(grad).unwrap(), golden.f32(&format!("attention_scores/{name}")), 1e-5);
    }
}

#[test]
fn activations_and_what_bends_logits() {
    for name in ["silu", "gelu", "gelu_new", "quick_gelu", "relu"] {
        let act = Act::by_name(name).unwrap();
        check_in("ops_model", &format!("activate_{name}"), &["x"], |t, v| t.activate(act, &v[0]));
        check_in("ops_model", &format!("gated_{name}"), &["gate", "up"], |t, v| t.gated(act, &v[0], &v[1]));
    }
    check_in("ops_model", "soft_cap", &["x"], |t, v| t.soft_cap(&v[0], 2.5));
    check_in("ops_model", "affine", &["x", "gain", "bias"], |t, v| t.affine(&v[0], &v[1], Some(&v[2])));
    check_in("ops_model", "softmax", &["x"], |t, v| t.softmax(&v[0], 11));
}

#[test]
fn mixtures() {
    for (case, normalise) in [("mixture_normalised", true), ("mixture_raw", false)] {
        let golden = Golden::load("ops_model/out.safetensors");
        let w = golden.f32(&format!("{case}/w"));
        check_in("ops_model", case, &["x", "logits"], |t, v| {
            let probs = t.softmax(&v[1], 4)?;
            let chosen = route(&f32s(probs.tensor())?, 4, 2);
            let weights = t.chosen_weights(&probs, &chosen, 2, normalise)?;
            let routes = Arc::new(Routes::new(&chosen, 4));
            let (mut outputs, mut from) = (Vec::new(), 0);
            for e in 0..4 {
                let tokens: Vec<u32> =
                    routes.slots[from..from + routes.counts[e]].iter().map(|s| (s / 2) as u32).collect();
                from += tokens.len();
                if !tokens.is_empty() {
                    let expert: Value = tensor(w[e * 15..(e + 1) * 15].to_vec(), (3, 5))?.into();
                    outputs.push(t.linear(&t.rows(&v[0], &tokens)?, &packed(&expert), None, None)?);
                }
            }
            t.combine(&outputs, &weights, &routes)
        });
    }
}

#[test]
fn swiglu_and_embedding() {
    check("swiglu", &["gate", "up"], |t, v| t.gated(Act::Silu, &v[0], &v[1]));
    let tokens = ids("embedding", "tokens");
    check("embedding", &["w"], |t, v| t.reshape(&t.embedding(&v[0], &tokens)?, &[2, 4, 10]));
}

#[test]
fn cross_entropy() {
    let golden = Golden::load("ops/out.safetensors");
    let targets = ids("cross_entropy", "targets");
    let tape = Tape::new();
    let logits = tensor(golden.f32("cross_entropy/logits").to_vec(), (9, 37)).unwrap();
    let logits = tape.watch(&logits.into());
    let loss = tape.cross_entropy(&logits, &targets).unwrap();
    let mean = f32s(loss.tensor()).unwrap().iter().sum::<f32>() / 9.0;
    assert_close("loss", &[mean], golden.f32("cross_entropy/out"), 1e-5);
    let seed = tensor(vec![golden.f32("cross_entropy/grad_out")[0] / 9.0; 9], 9).unwrap();
    let grads = tape.gradients(&loss, &seed, &[&logits]).unwrap();
    assert_rel_l2("grad", &f32s(&grads[0]).unwrap(), golden.f32("cross_entropy/grad_logits"), 1e-5);
}

#[test]
fn topk_and_adam() {
    let golden = Golden::load("ops/out.safetensors");
    let (mut values, mut idx) = (vec![0f32; 35], vec![0u32; 35]);
    row_topk(golden.f32("row_topk/x"), 101, 7, &mut values, &mut idx);
    assert_eq!(values, golden.f32("row_topk/values"));
    assert_eq!(idx, ids("row_topk", "indices"));
    let mut w = golden.f32("adam/w").to_vec();
    let (mut m, mut v) = (vec![0f32; 13], vec![0f32; 13]);
    for t in 0..3u64 {
        let step = AdamStep::new(1e-2, (0.9, 0.999), 1e-8, t + 1);
        update(step, &mut w, &mut m, &mut v, golden.f32(&format!("adam/grad_{t}")));
        assert_close("adam", &w, golden.f32(&format!("adam/w_{t}")), 1e-6);
    }
}
