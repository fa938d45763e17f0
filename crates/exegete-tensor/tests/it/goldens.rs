//! Every op, forward and backward, against PyTorch (`refs/ops`).

use std::sync::Arc;

use exegete_tensor::cpu::adam::{AdamStep, update};
use exegete_tensor::cpu::attention::AttentionShape;
use exegete_tensor::cpu::rope::RopeTable;
use exegete_tensor::cpu::topk::row_topk;
use exegete_tensor::{KvView, Result, Tape, Value, f32s, tensor};
use exegete_testkit::{Golden, assert_close, assert_rel_l2};

/// Runs `op` on the case's inputs and compares its output and its gradients.
#[track_caller]
fn check(case: &str, inputs: &[&str], op: impl Fn(&Tape, &[Value]) -> Result<Value>) {
    let golden = Golden::load("ops/out.safetensors");
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

#[test]
fn linear() {
    check("linear", &["x", "w"], |t, v| t.linear(&v[0], &v[1], None));
    check("linear_bias", &["x", "w", "b"], |t, v| t.linear(&v[0], &v[1], Some(&v[2])));
}

#[test]
fn norms() {
    check("rmsnorm", &["x", "gain"], |t, v| t.rms_norm(&v[0], &v[1], 1e-5));
    check("layernorm", &["x", "gain", "bias"], |t, v| t.layer_norm(&v[0], &v[1], &v[2], 1e-5));
}

#[test]
fn rope() {
    let inv_freq: Vec<f32> = (0..6).map(|i| 1.0 / 10_000f32.powf(2.0 * i as f32 / 12.0)).collect();
    let table = Arc::new(RopeTable::new(&inv_freq, 64));
    let positions: Vec<usize> = ids("rope", "positions").repeat(2).iter().map(|p| *p as usize).collect();
    check("rope", &["x"], |t, v| {
        let rotated = t.rope(&t.reshape(&v[0], &[2, 7, 36])?, &table, &positions)?;
        t.reshape(&rotated, &[2, 7, 3, 12])
    });
}

#[test]
fn attention() {
    let shape = |starts_B| AttentionShape {
        batch: 2,
        n_queries: 11,
        n_heads: 6,
        n_kv_heads: 2,
        d_head: 16,
        past: 0,
        capacity: 11,
        starts_B,
    };
    let run = |t: &Tape, v: &[Value], s: &AttentionShape| t.attention(&v[0], KvView { keys: &v[1], values: &v[2] }, s);
    check("attention", &["q", "k", "v"], |t, v| run(t, v, &shape(vec![])));
    // Rows before a sequence's start see nothing: the reference leaves them 0, and so does a zero seed here.
    let starts: Vec<usize> = ids("attention_padded", "starts").iter().map(|s| *s as usize).collect();
    let golden = Golden::load("ops/out.safetensors");
    let load = |name: &str| {
        tensor(
            golden.f32(&format!("attention_padded/{name}")).to_vec(),
            golden.shape(&format!("attention_padded/{name}")),
        )
        .unwrap()
    };
    let tape = Tape::new();
    let v: Vec<Value> = ["q", "k", "v"].iter().map(|n| tape.watch(&load(n).into())).collect();
    let out = run(&tape, &v, &shape(starts.clone())).unwrap();
    let mut seed = golden.f32("attention_padded/grad_out").to_vec();
    let (mut got, mut want) = (Vec::new(), Vec::new());
    for (b, start) in starts.iter().enumerate() {
        seed[b * 11 * 96..(b * 11 + start) * 96].fill(0.0);
        let rows = (b * 11 + start) * 96..(b + 1) * 11 * 96;
        got.extend_from_slice(&f32s(out.tensor()).unwrap()[rows.clone()]);
        want.extend_from_slice(&golden.f32("attention_padded/out")[rows]);
    }
    assert_close("padded out", &got, &want, 1e-5);
    let grads = tape.gradients(&out, &tensor(seed, (2, 11, 96)).unwrap(), &v.iter().collect::<Vec<_>>()).unwrap();
    for (name, grad) in ["q", "k", "v"].iter().zip(&grads) {
        assert_rel_l2(name, &f32s(grad).unwrap(), golden.f32(&format!("attention_padded/grad_{name}")), 1e-5);
    }
}

#[test]
fn swiglu_and_embedding() {
    check("swiglu", &["gate", "up"], |t, v| t.swiglu(&v[0], &v[1]));
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
