//! Gradients of every op against central differences of its forward pass.

use std::rc::Rc;
use std::sync::Arc;

use exegete_tensor::cpu::attention::{AttentionRow, AttentionShape};
use exegete_tensor::cpu::mixture::Routes;
use exegete_tensor::cpu::rope::RopeTable;
use exegete_tensor::{Act, Keep, KeySource, Matrix, Result, Stack, Tape, Value, f32s, tensor};
use exegete_testkit::rel_l2;

fn wave(len: usize, seed: f32) -> Vec<f32> {
    (0..len).map(|i| ((i as f32 + 1.3) * (0.37 + seed)).sin() * 1.5).collect()
}

/// Checks d(sum(op * seed))/d(input) for each input against central differences.
#[track_caller]
fn check(shapes: &[&[usize]], op: impl Fn(&Tape, &[Value]) -> Result<Value>) {
    let inputs: Vec<Vec<f32>> =
        shapes.iter().enumerate().map(|(i, s)| wave(s.iter().product(), 0.11 * i as f32)).collect();
    let tensors = |data: &[Vec<f32>]| -> Vec<Value> {
        data.iter().zip(shapes).map(|(d, s)| tensor(d.clone(), *s).unwrap().into()).collect()
    };
    let tape = Tape::new();
    let watched: Vec<Value> = tensors(&inputs).iter().map(|v| tape.watch(v)).collect();
    let out = op(&tape, &watched).unwrap();
    let seed = wave(out.tensor().elem_count(), 0.29);
    let seed_tensor = tensor(seed.clone(), out.tensor().dims()).unwrap();
    let refs: Vec<&Value> = watched.iter().collect();
    let grads = tape.gradients(&out, &seed_tensor, &refs).unwrap();
    let again = tape.gradients(&out, &seed_tensor, &refs).unwrap();
    let objective = |data: &[Vec<f32>]| -> f64 {
        let out = op(&Tape::new(), &tensors(data)).unwrap();
        f32s(out.tensor()).unwrap().iter().zip(&seed).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    let step = 1e-2f32;
    for (i, grad) in grads.iter().enumerate() {
        assert_eq!(&*f32s(grad).unwrap(), &*f32s(&again[i]).unwrap(), "a second backward pass differs");
        let numeric: Vec<f32> = (0..inputs[i].len())
            .map(|j| {
                let mut moved = inputs.clone();
                moved[i][j] += step;
                let up = objective(&moved);
                moved[i][j] -= 2.0 * step;
                ((up - objective(&moved)) / f64::from(2.0 * step)) as f32
            })
            .collect();
        let error = rel_l2(&f32s(grad).unwrap(), &numeric);
        assert!(error < 3e-3, "input {i}: relative error {error:e}");
    }
}

/// A matrix of waves `[n, k]`, second of a stack of two, and the same as a value.
fn matrix(n: usize, k: usize) -> (Matrix, Value) {
    let mut stack = Stack::new(Keep::F32, 2, n, k);
    stack.fill(1, 0, &wave(n * k, 0.2));
    (Matrix::new(Arc::new(stack), 1), tensor(wave(n * k, 0.2), (n, k)).unwrap().into())
}

#[test]
fn linear() {
    for rows in [3, 40] {
        let (w, _) = matrix(4, 7);
        check(&[&[rows, 7], &[4]], |t, v| t.linear(&v[0], &w, None, Some(&v[1])));
    }
    // The gradient of a watched matrix is dy^T x.
    let (w, value) = matrix(4, 7);
    let tape = Tape::new();
    let (x, watched): (Value, Value) = (tensor(wave(21, 0.4), (3, 7)).unwrap().into(), tape.watch(&value));
    let y = tape.linear(&x, &w, Some(&watched), None).unwrap();
    let seed = wave(12, 0.3);
    let grad = tape.gradients(&y, &tensor(seed.clone(), (3, 4)).unwrap(), &[&watched]).unwrap().remove(0);
    let x = wave(21, 0.4);
    let outer = |o: usize, i: usize| (0..3).map(|t| seed[t * 4 + o] * x[t * 7 + i]).sum::<f32>();
    for (at, got) in f32s(&grad).unwrap().iter().enumerate() {
        assert!((got - outer(at / 7, at % 7)).abs() < 1e-5);
    }
}

#[test]
fn norms() {
    check(&[&[2, 3, 33], &[33]], |t, v| t.rms_norm(&v[0], &v[1], 1e-5));
    check(&[&[5, 33], &[33], &[33]], |t, v| t.layer_norm(&v[0], &v[1], &v[2], 1e-5));
}

#[test]
fn rope() {
    let table = Arc::new(RopeTable::new(&[1.0, 0.3, 0.01], 6, 1.0, 20));
    check(&[&[4, 12]], |t, v| t.rope(&v[0], &table, &[0, 5, 19, 2]));
    // A part of each head, with scaled cosines.
    let table = Arc::new(RopeTable::new(&[1.0, 0.3], 6, 1.5, 20));
    check(&[&[4, 12]], |t, v| t.rope(&v[0], &table, &[0, 5, 19, 2]));
}

fn shape(window: Option<usize>, soft_cap: Option<f32>) -> AttentionShape {
    let rows = vec![AttentionRow { first: 0, n: 5, past: 0 }, AttentionRow { first: 5, n: 3, past: 0 }];
    AttentionShape { rows, n_heads: 4, n_kv_heads: 2, d_head: 3, scale: 0.6, soft_cap, window }
}

#[test]
fn attention_fused_and_in_steps() {
    for s in [shape(None, None), shape(Some(2), None), shape(None, Some(1.5)), shape(Some(3), Some(2.0))] {
        let source = |v: &'_ [Value]| -> (Value, Value) { (v[1].clone(), v[2].clone()) };
        check(&[&[8, 12], &[8, 6], &[8, 6]], |t, v| {
            let (keys, values) = source(v);
            t.attention(&v[0], &KeySource::Run { keys: &keys, values: &values }, &s)
        });
        check(&[&[8, 12], &[8, 6], &[8, 6]], |t, v| {
            let source = KeySource::Run { keys: &v[1], values: &v[2] };
            let pattern = t.softmax(&t.attention_scores(&v[0], &source, &s)?, s.n_keys())?;
            t.attention_mix(&pattern, &source, &s)
        });
    }
}

#[test]
fn mixtures() {
    let chosen = [2u32, 0, 1, 2, 0, 1];
    for normalise in [true, false] {
        check(&[&[3, 4]], |t, v| t.chosen_weights(&t.softmax(&v[0], 4)?, &chosen, 2, normalise));
    }
    let routes = Arc::new(Routes::new(&chosen, 3));
    check(&[&[2, 5], &[2, 5], &[2, 5], &[3, 2]], |t, v| t.combine(&v[..3], &v[3], &routes));
}

#[test]
fn recomputation_and_packed_rows() {
    let (w, _) = matrix(4, 7);
    check(&[&[3, 7], &[3, 4]], |t, v| {
        let w = w.clone();
        let part = Rc::new(move |t: &Tape, v: &[Value]| t.gated(Act::Silu, &t.linear(&v[0], &w, None, None)?, &v[1]));
        t.add(&t.recompute(&[&v[0], &v[1]], part)?, &v[1])
    });
    let rows = Tape::new().embedding_of(&w, None, &[3, 0]).unwrap();
    assert_eq!(f32s(rows.tensor()).unwrap()[..7], wave(28, 0.2)[21..]);
}

#[test]
fn elementwise_and_lookup() {
    for act in [Act::Silu, Act::Gelu, Act::GeluTanh, Act::QuickGelu] {
        check(&[&[3, 7], &[3, 7]], |t, v| t.gated(act, &v[0], &v[1]));
        check(&[&[3, 7]], |t, v| t.activate(act, &v[0]));
    }
    check(&[&[3, 7]], |t, v| t.soft_cap(&v[0], 1.2));
    check(&[&[3, 7]], |t, v| t.scale(&v[0], -0.7));
    check(&[&[3, 7], &[7], &[7]], |t, v| t.affine(&v[0], &v[1], Some(&v[2])));
    check(&[&[3, 7], &[3, 7]], |t, v| t.add(&v[0], &t.add(&v[0], &v[1])?));
    check(&[&[3, 8]], |t, v| t.reshape(&v[0], &[2, 12]));
    check(&[&[6, 4]], |t, v| t.embedding(&v[0], &[1, 5, 1, 0]));
}

#[test]
fn cross_entropy() {
    check(&[&[4, 9]], |t, v| t.cross_entropy(&v[0], &[0, 8, 3, 3]));
}

#[test]
fn what_nobody_asked_for_costs_nothing() {
    let tape = Tape::new();
    let x: Value = tensor(wave(6, 0.0), (2, 3)).unwrap().into();
    let (w, value) = matrix(3, 3);
    tape.linear(&x, &w, None, None).unwrap();
    assert!(tape.is_empty(), "an op on constants was recorded");
    let y = tape.linear(&tape.watch(&x), &w, None, None).unwrap();
    assert_eq!(tape.len(), 2);
    assert!(tape.gradients(&y, y.tensor(), &[&value]).is_err(), "a frozen weight has no gradient");
}
