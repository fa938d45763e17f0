//! The connection cost: what wiring costs where neurons have places.
//!
//! Neuron `j` of a layer with `n` neurons sits at `(j + 0.5) / n`. Then
//! `CC = sum_layers [ sum_ij |W_ij| (w |x_i - x_j| + l0) + sum_i |b_i| l0 ]`, `l0` being the distance between layers,
//! `w` the weight of the distance within them (Liu, Gan & Tegmark 2023, arXiv 2305.08746, and their code).

use super::net::Net;

/// Distance between neighbouring layers in the formula experiments.
pub const LAYER_DISTANCE: f64 = 0.1;

/// Place of neuron `j` of `n`.
pub fn place(j: usize, n: usize) -> f64 {
    (j as f64 + 0.5) / n as f64
}

/// What a unit of magnitude of each parameter costs, in the order of [`Net::params`].
pub fn prices(net: &Net, weight: f64, with_biases: bool) -> Vec<f32> {
    let mut prices = Vec::with_capacity(net.params.len());
    for pair in net.shape().windows(2) {
        for i in 0..pair[1] {
            let length = |j| (place(i, pair[1]) - place(j, pair[0])).abs();
            prices.extend((0..pair[0]).map(|j| (weight * length(j) + LAYER_DISTANCE) as f32));
        }
        prices.extend(std::iter::repeat_n(if with_biases { LAYER_DISTANCE as f32 } else { 0.0 }, pair[1]));
    }
    prices
}

/// The connection cost under given prices.
pub fn connection_cost(net: &Net, prices: &[f32]) -> f64 {
    net.params.iter().zip(prices).map(|(value, price)| f64::from(value.abs()) * f64::from(*price)).sum()
}

/// Adds the gradient of `lambda` times the connection cost. At zero the slope is taken as 0, as PyTorch does.
pub fn add_gradient(net: &Net, prices: &[f32], lambda: f64, grad: &mut [f32]) {
    let lambda = lambda as f32;
    for ((slot, value), price) in grad.iter_mut().zip(&net.params).zip(prices) {
        let sign = f32::from(u8::from(*value > 0.0)) - f32::from(u8::from(*value < 0.0));
        *slot += lambda * price * sign;
    }
}

/// Mean distance within layers that the weights bridge, `sum |W| d / sum |W|`; 0 without weights.
pub fn mean_length(net: &Net) -> f64 {
    let (mut total, mut weight) = (0.0, 0.0);
    for layer in 0..net.depth() {
        let (n_in, n_out) = (net.shape()[layer], net.shape()[layer + 1]);
        for (idx, value) in net.weights(layer).iter().enumerate() {
            let magnitude = f64::from(value.abs());
            total += magnitude * (place(idx / n_in, n_out) - place(idx % n_in, n_in)).abs();
            weight += magnitude;
        }
    }
    if weight > 0.0 { total / weight } else { 0.0 }
}
