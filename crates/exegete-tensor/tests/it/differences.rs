//! Gradients of every op against central differences of its forward pass.

use std::sync::Arc;

use exegete_tensor::cpu::attention::AttentionShape;
use exegete_tensor::cpu::rope::RopeTable;
use exegete_tensor::{KvView, Result, Tape, Value, f32s, tensor};
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

#[test]
fn linear() {
    check(&[&[3, 5, 7], &[4, 7], &[4]], |t, v| t.linear(&v[0], &v[1], Some(&v[2])));
    check(&[&[40, 7], &[4, 7]], |t, v| t.linear(&v[0], &v[1], None));
}

#[test]
fn norms() {
    check(&[&[2, 3, 33], &[33]], |t, v| t.rms_norm(&v[0], &v[1], 1e-5));
    check(&[&[5, 33], &[33], &[33]], |t, v| t.layer_norm(&v[0], &v[1], &v[2], 1e-5));
}

#[test]
fn rope() {
    let table = Arc::new(RopeTable::new(&[1.0, 0.3, 0.01], 20));
    check(&[&[4, 12]], |t, v| t.rope(&v[0], &table, &[0, 5, 19, 2]));
}

#[test]
fn attention() {
    for (past, starts) in [(0, vec![]), (3, vec![0, 2])] {
        let shape = AttentionShape {
            batch: 2,
            n_queries: 5,
            n_heads: 4,
            n_kv_heads: 2,
            d_head: 3,
            past,
            capacity: 9,
            starts_B: starts,
        };
        check(&[&[2, 5, 12], &[2, 9, 6], &[2, 9, 6]], |t, v| {
            t.attention(&v[0], KvView { keys: &v[1], values: &v[2] }, &shape)
        });
    }
}

#[test]
fn elementwise_and_lookup() {
    check(&[&[3, 7], &[3, 7]], |t, v| t.swiglu(&v[0], &v[1]));
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
    let w: Value = tensor(wave(9, 0.1), (3, 3)).unwrap().into();
    tape.linear(&x, &w, None).unwrap();
    assert!(tape.is_empty(), "an op on constants was recorded");
    let y = tape.linear(&tape.watch(&x), &w, None).unwrap();
    assert_eq!(tape.len(), 2);
    assert!(tape.gradients(&y, y.tensor(), &[&w]).is_err(), "a frozen weight has no gradient");
}
