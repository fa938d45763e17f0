//! Swaps: neurons of a layer change places where that shortens the wiring. The function that the network computes
//! stays the same; only the order of its sums changes.

use super::cost::place;
use super::net::Net;

/// Neurons of a layer that look for better places in a round.
pub const MOVERS: usize = 5;
/// A gain below this is rounding and moves nothing.
const LEAST_GAIN: f64 = 1e-9;

/// Exchanges places `j` and `k` of layer `layer` of neurons (0 is the input), in the parameters and in whatever else is
/// laid out like them (moments of an optimiser).
pub fn swap(net: &mut Net, others: &mut [&mut [f32]], layer: usize, j: usize, k: usize) {
    if j == k {
        return;
    }
    let depth = net.depth();
    let width = net.shape()[layer];
    if layer > 0 {
        let n_in = net.shape()[layer - 1];
        let (weights, biases) = net.offsets(layer - 1);
        let exchange = |values: &mut [f32]| {
            (0..n_in).for_each(|i| values.swap(weights + j * n_in + i, weights + k * n_in + i));
            values.swap(biases + j, biases + k);
        };
        exchange(&mut net.params);
        others.iter_mut().for_each(|values| exchange(values));
    } else {
        net.in_perm.swap(j, k);
    }
    if layer < depth {
        let (weights, biases) = net.offsets(layer);
        let exchange = |values: &mut [f32]| {
            (weights..biases).step_by(width).for_each(|row| values.swap(row + j, row + k));
        };
        exchange(&mut net.params);
        others.iter_mut().for_each(|values| exchange(values));
    } else {
        net.out_perm.swap(j, k);
    }
}

/// One round over all layers: the [`MOVERS`] neurons of largest `sum |W_in| + sum |W_out|` each go where the connection
/// cost becomes least, the neuron there taking their place. Gives the number of swaps.
pub fn round(net: &mut Net, others: &mut [&mut [f32]]) -> usize {
    let mut swaps = 0;
    for layer in 0..net.shape().len() {
        let mut movers = strongest(net, layer);
        while let Some(j) = movers.pop() {
            let k = best_place(net, layer, j);
            if k != j {
                swap(net, others, layer, j, k);
                // A mover that was moved aside is looked for where it is now.
                movers.iter_mut().filter(|m| **m == k).for_each(|m| *m = j);
                swaps += 1;
            }
        }
    }
    swaps
}

/// The neurons of most weight, the strongest last.
fn strongest(net: &Net, layer: usize) -> Vec<usize> {
    let strength = |j: usize| links(net, layer, j).map(|(_, weight)| weight).sum::<f64>();
    let mut all: Vec<(f64, usize)> = (0..net.shape()[layer]).map(|j| (strength(j), j)).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(b.1.cmp(&a.1)));
    all.split_off(all.len().saturating_sub(MOVERS)).into_iter().map(|(_, j)| j).collect()
}

/// Places at the other end of a neuron's connections, and their magnitudes.
fn links(net: &Net, layer: usize, j: usize) -> impl Iterator<Item = (f64, f64)> + '_ {
    let width = net.shape()[layer];
    let below = (layer > 0).then(|| {
        let n_in = net.shape()[layer - 1];
        let row = &net.weights(layer - 1)[j * n_in..(j + 1) * n_in];
        row.iter().enumerate().map(move |(i, w)| (place(i, n_in), f64::from(w.abs())))
    });
    let above = (layer < net.depth()).then(|| {
        let n_out = net.shape()[layer + 1];
        let column = net.weights(layer)[j..].iter().step_by(width);
        column.enumerate().map(move |(o, w)| (place(o, n_out), f64::from(w.abs())))
    });
    below.into_iter().flatten().chain(above.into_iter().flatten())
}

fn best_place(net: &Net, layer: usize, j: usize) -> usize {
    let width = net.shape()[layer];
    let mine: Vec<_> = links(net, layer, j).collect();
    let length = |links: &[(f64, f64)], at: usize| -> f64 {
        links.iter().map(|(end, weight)| weight * (end - place(at, width)).abs()).sum()
    };
    let here = length(&mine, j);
    let gain = |k: usize| {
        let theirs: Vec<_> = links(net, layer, k).collect();
        here + length(&theirs, k) - length(&mine, k) - length(&theirs, j)
    };
    let mut best = (LEAST_GAIN, j);
    for k in (0..width).filter(|&k| k != j) {
        let gain = gain(k);
        if gain > best.0 {
            best = (gain, k);
        }
    }
    best.1
}
