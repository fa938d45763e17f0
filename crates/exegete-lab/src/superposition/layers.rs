//! Layers for the probe: built ones, where the place of superposition is known, and trained ones, where it is not.
//!
//! All of them meet boolean inputs of `d` features and widen them to `4 d` neurons. Features of a layer are ANDs of pairs
//! of inputs: an AND has to be computed, so it is new in the hidden layer and not handed on from before.

use exegete_base::stats::Estimate;
use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::geometry::mean;
use super::mlp::{Mlp, train};
use super::probe::{Probe, and_atom, probe};
use crate::Result;

/// Hidden neurons for each input.
pub const WIDENING: usize = 4;
/// Inputs that are on, on average.
const MEAN_ACTIVE: f64 = 3.0;
/// Inputs on which it is seen which neurons are active together, and on which losses are measured.
const N_INPUTS: usize = 4096;
/// Neurons from which an AND is read in the layer built with superposed neurons, on average.
const NEURONS_PER_AND: f64 = 8.0;

/// Two inputs whose AND is a feature.
type Pair = (usize, usize);

/// One neuron for each of `4 d` ANDs, and random unit columns of `W_out`, which must overlap: four to a dimension.
pub fn one_hot(d: usize, draws: &mut Draws) -> (Mlp, Vec<Pair>) {
    let m = WIDENING * d;
    let pairs: Vec<_> = pairs(d, draws).into_iter().take(m).collect();
    let w_out_DM = transposed(&units(m, d, draws), d);
    (Mlp { d, w_in_MD: wired(&pairs, d), b_in_M: vec![-1.0; m], w_out_DM }, pairs)
}

/// All pairs of inputs on `4 d` neurons, each wired to random inputs with weight 1 and a bias of -1 (the `subset`
/// construction of [`super::uand`]), so that an AND lies on several neurons and a neuron carries several.
pub fn superposed(d: usize, draws: &mut Draws) -> (Mlp, Vec<Pair>) {
    let m = WIDENING * d;
    let q = (NEURONS_PER_AND / m as f64).sqrt();
    let w_in_MD = (0..m * d).map(|_| if draws.unit() < q { 1.0 } else { 0.0 }).collect();
    let w_out_DM = transposed(&units(m, d, draws), d);
    (Mlp { d, w_in_MD, b_in_M: vec![-1.0; m], w_out_DM }, pairs(d, draws))
}

/// `d` ANDs, each with a neuron and an output of its own; the other neurons are not wired. Nothing is superposed.
pub fn separate(d: usize, draws: &mut Draws) -> (Mlp, Vec<Pair>) {
    let m = WIDENING * d;
    let pairs: Vec<_> = pairs(d, draws).into_iter().take(d).collect();
    let mut w_in_MD = wired(&pairs, d);
    w_in_MD.resize(m * d, 0.0);
    let w_out_DM = (0..d * m).map(|i| if i / m == i % m { 1.0 } else { 0.0 }).collect();
    (Mlp { d, w_in_MD, b_in_M: vec![-1.0; m], w_out_DM }, pairs)
}

/// Atoms of the ANDs of pairs.
pub fn atoms(mlp: &Mlp, pairs: &[Pair]) -> Vec<Vec<f32>> {
    pairs.iter().map(|(a, b)| and_atom(mlp, *a, *b)).collect()
}

/// A layer under the probe.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Case {
    /// What it is.
    pub name: String,
    /// Where superposition begins, if that is known: the probe's verdict should say so.
    pub truth: Option<String>,
    /// What the probe found.
    pub probe: Probe,
    /// What the probe found before training.
    pub untrained: Option<Probe>,
    /// Squared error `|y - target|^2` of a trained layer on fresh inputs, the unit being the input.
    pub loss: Option<Estimate>,
    /// The expected error of the best linear map, which computes no AND: an AND less its best linear part is the product
    /// of two independent deviations, of variance `p^2 (1 - p)^2`, and those of different pairs do not correlate.
    pub linear_loss: Option<f64>,
    /// The squared error of one AND per neuron: as many ANDs as there are neurons exactly, the others' mean for the rest.
    pub naive_loss: Option<Estimate>,
}

/// The built layers, with their truth.
pub fn built(d: usize, seed: u64) -> Vec<Case> {
    type Build = fn(usize, &mut Draws) -> (Mlp, Vec<Pair>);
    let cases: [(&str, &str, Build); 3] = [
        ("built: superposed neurons", "hidden", superposed),
        ("built: one-hot neurons, overlapping outputs", "output", one_hot),
        ("built: separate neurons and outputs", "none", separate),
    ];
    let of = |(number, (name, truth, build)): (usize, (&str, &str, Build))| {
        let mut draws = Draws::new(seed, "built", number as u64);
        let (mlp, pairs) = build(d, &mut draws);
        let inputs_ND = inputs(N_INPUTS, d, &mut draws);
        let probe = probe(&mlp, &atoms(&mlp, &pairs), &inputs_ND, &mut draws);
        let (name, truth) = (name.to_owned(), Some(truth.to_owned()));
        Case { name, truth, probe, untrained: None, loss: None, linear_loss: None, naive_loss: None }
    };
    cases.into_iter().enumerate().map(of).collect()
}

/// How a layer is trained.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Training {
    /// ANDs that are asked for; more than there are pairs means all pairs.
    pub n_ands: usize,
    /// Steps.
    pub steps: u64,
    /// Rows of a batch.
    pub batch: usize,
    /// Learning rate.
    pub lr: f64,
}

/// Trains a layer to give `y = sum_f AND_f(x) p_f`, with a random unit vector `p_f` for each AND, and probes it.
///
/// # Errors
/// The array engine's.
pub fn trained(d: usize, training: Training, seed: u64) -> Result<Case> {
    let mut draws = Draws::new(seed, "trained", training.n_ands as u64);
    let pairs: Vec<_> = pairs(d, &mut draws).into_iter().take(training.n_ands).collect();
    let outputs_FD = units(pairs.len(), d, &mut draws);
    let add = |y: &mut [f32], f: usize, weight: f32| {
        y.iter_mut().zip(&outputs_FD[f * d..]).for_each(|(y, p)| *y += weight * p);
    };
    let target = |x: &[f32]| {
        let mut y = vec![0f32; d];
        let on = pairs.iter().enumerate().filter(|(_, (a, b))| x[*a] * x[*b] > 0.0);
        on.for_each(|(f, _)| add(&mut y, f, 1.0));
        y
    };
    let start = Mlp::random(d, WIDENING * d, &mut draws);
    let mut on_the_way = draws.clone();
    let layer = train(start.clone(), training.steps, training.lr, || {
        let x_ND = inputs(training.batch, d, &mut on_the_way);
        let target_ND = x_ND.chunks_exact(d).flat_map(target).collect();
        (x_ND, target_ND)
    })?;
    let mut fresh = Draws::new(seed, "trained-fresh", training.n_ands as u64);
    let inputs_ND = inputs(N_INPUTS, d, &mut fresh);
    let squares = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>();
    let loss: Vec<f64> =
        inputs_ND.chunks_exact(d).map(|x| squares(&layer.project(&layer.hidden(x)), &target(x))).collect();
    // An AND of two independent inputs is on with probability p^2, whatever the pair.
    let p = MEAN_ACTIVE / d as f64;
    let rate = (p * p) as f32;
    let naive: Vec<f64> = inputs_ND
        .chunks_exact(d)
        .map(|x| {
            let mut left = vec![0f32; d];
            for (f, (a, b)) in pairs.iter().enumerate().skip(layer.n_neurons()) {
                add(&mut left, f, x[*a] * x[*b] - rate);
            }
            squares(&left, &vec![0.0; d])
        })
        .collect();
    Ok(Case {
        name: format!("trained: {} ANDs on {} neurons", pairs.len(), layer.n_neurons()),
        truth: None,
        probe: probe(&layer, &atoms(&layer, &pairs), &inputs_ND, &mut fresh),
        untrained: Some(probe(&start, &atoms(&start, &pairs), &inputs_ND, &mut fresh)),
        loss: Some(mean(&loss)),
        linear_loss: Some(pairs.len() as f64 * (p * (1.0 - p)).powi(2)),
        naive_loss: Some(mean(&naive)),
    })
}

/// All pairs of `d` inputs, in a random order.
fn pairs(d: usize, draws: &mut Draws) -> Vec<Pair> {
    let mut pairs: Vec<_> = (0..d).flat_map(|a| (a + 1..d).map(move |b| (a, b))).collect();
    let n = pairs.len();
    draws.pick_first(&mut pairs, n);
    pairs
}

/// Neurons that are wired to the two inputs of a pair each, `[F, D]`.
fn wired(pairs: &[Pair], d: usize) -> Vec<f32> {
    let mut rows = vec![0f32; pairs.len() * d];
    for (row, (a, b)) in rows.chunks_exact_mut(d).zip(pairs) {
        (row[*a], row[*b]) = (1.0, 1.0);
    }
    rows
}

fn inputs(n: usize, d: usize, draws: &mut Draws) -> Vec<f32> {
    let p = MEAN_ACTIVE / d as f64;
    (0..n * d).map(|_| if draws.unit() < p { 1.0 } else { 0.0 }).collect()
}

/// `n` random unit vectors of `d`, `[n, d]`.
fn units(n: usize, d: usize, draws: &mut Draws) -> Vec<f32> {
    let mut rows: Vec<f32> = (0..n * d).map(|_| draws.normal() as f32).collect();
    for row in rows.chunks_exact_mut(d) {
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        row.iter_mut().for_each(|v| *v /= length);
    }
    rows
}

fn transposed(rows: &[f32], width: usize) -> Vec<f32> {
    (0..width).flat_map(|c| rows.iter().skip(c).step_by(width).copied()).collect()
}
