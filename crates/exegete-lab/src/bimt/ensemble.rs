//! The ensemble index: whether the layers above a layer merely add up what its units contribute, or combine it.
//!
//! Take a set S of units of one hidden layer, each unit with probability one half. Let `d_S` be the change of the
//! outputs, over the test inputs, when the units of S are held at their means, and `d_i` that of one unit alone. An
//! ensemble of features that are only summed has `d_S = sum_i d_i`. The index is
//! `E = 2 sum <d_S, sum d_i> / sum (|d_S|^2 + |sum d_i|^2)` over [`SETS`] sets of every hidden layer but the last, where
//! it is 1 by construction. E is 1 for an ensemble, 0 where joint effects have nothing to do with the single ones, -1
//! where they undo them. The definition is ours.

use exegete_base::sampling::pair_hash;

use super::formula::Samples;
use super::net::{Net, Pass};

/// Sets of units that are held in each layer; sets of fewer than two units tell nothing and are passed over.
pub const SETS: u64 = 64;

/// Sums of the index, to which layers are added one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Additivity {
    agreement: f64,
    size: f64,
}

impl Additivity {
    /// Adds a layer of `n_units` units: `outputs(held)` are the outputs with these units held at their means.
    pub fn add_layer(&mut self, n_units: usize, mut outputs: impl FnMut(&[usize]) -> Vec<f32>) {
        let base = outputs(&[]);
        let mut change = |held: &[usize]| -> Vec<f64> {
            outputs(held).iter().zip(&base).map(|(a, b)| f64::from(*a) - f64::from(*b)).collect()
        };
        let single: Vec<Vec<f64>> = (0..n_units).map(|i| change(&[i])).collect();
        for set in 0..SETS {
            let is_in = |unit: &usize| pair_hash(set, *unit as u64, 0xe5e) & 1 == 1;
            let held: Vec<usize> = (0..n_units).filter(is_in).collect();
            if held.len() < 2 {
                continue;
            }
            for (at, joint) in change(&held).into_iter().enumerate() {
                let sum: f64 = held.iter().map(|&unit| single[unit][at]).sum();
                self.agreement += 2.0 * joint * sum;
                self.size += joint * joint + sum * sum;
            }
        }
    }

    /// The index; nothing where no set has an effect.
    pub fn index(&self) -> Option<f64> {
        (self.size > 0.0).then(|| self.agreement / self.size)
    }
}

/// The ensemble index of a network on given inputs; nothing for fewer than two hidden layers.
pub fn ensemble_index(net: &Net, samples: &Samples) -> Option<f64> {
    let mut sums = Additivity::default();
    let mut pass = Pass::new(net, samples.n);
    for layer in 1..net.depth().saturating_sub(1) {
        pass.forward(net, &samples.x);
        let kept = pass.acts[layer].clone();
        sums.add_layer(net.shape()[layer], |held| {
            pass.acts[layer].copy_from_slice(&kept);
            for unit in held {
                let row = &mut pass.acts[layer][unit * samples.n..(unit + 1) * samples.n];
                let mean = row.iter().sum::<f32>() / samples.n as f32;
                row.fill(mean);
            }
            pass.forward_from(net, layer);
            pass.outputs(net)
        });
    }
    sums.index()
}
