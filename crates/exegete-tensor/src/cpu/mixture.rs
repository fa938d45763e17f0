//! Mixtures of experts: which experts a token is sent to, and how their outputs are mixed.

use super::for_rows;

/// For each token the experts of largest weight, heaviest first (of equals the first), `[N, n_used]`.
pub fn route(weights: &[f32], n_experts: usize, n_used: usize) -> Vec<u32> {
    let mut chosen = Vec::with_capacity(weights.len() / n_experts.max(1) * n_used);
    for row in weights.chunks_exact(n_experts) {
        let mut order: Vec<u32> = (0..n_experts as u32).collect();
        order.sort_by(|a, b| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b)));
        chosen.extend_from_slice(&order[..n_used]);
    }
    chosen
}

/// The weights of the chosen experts, made to sum to one if asked for.
pub fn chosen_weights(weights: &[f32], n_experts: usize, chosen: &[u32], n_used: usize, normalise: bool) -> Vec<f32> {
    let mut out: Vec<f32> =
        chosen.iter().enumerate().map(|(i, e)| weights[i / n_used * n_experts + *e as usize]).collect();
    if normalise {
        for row in out.chunks_exact_mut(n_used) {
            let sum: f32 = row.iter().sum();
            row.iter_mut().for_each(|w| *w /= sum);
        }
    }
    out
}

/// Gradient of [`chosen_weights`] with respect to all weights.
pub fn chosen_weights_back(
    weights: &[f32],
    n_experts: usize,
    (chosen, n_used): (&[u32], usize),
    normalise: bool,
    dchosen: &[f32],
    dweights: &mut [f32],
) {
    dweights.fill(0.0);
    for (t, (experts, d)) in chosen.chunks_exact(n_used).zip(dchosen.chunks_exact(n_used)).enumerate() {
        let row = &weights[t * n_experts..(t + 1) * n_experts];
        let (mut sum, mut inner) = (1.0, 0.0);
        if normalise {
            sum = experts.iter().map(|e| row[*e as usize]).sum();
            inner = experts.iter().zip(d).map(|(e, d)| row[*e as usize] * d).sum::<f32>() / sum;
        }
        for (e, d) in experts.iter().zip(d) {
            // An edit of the routes may name an expert twice, so gradients add.
            dweights[t * n_experts + *e as usize] += (d - inner) / sum;
        }
    }
}

/// Where the rows of the experts' stacked outputs go: row r belongs to slot `slots[r]` (token * n_used + place).
pub struct Routes {
    /// Slot of each stacked row, `[N * n_used]`, in the order of experts.
    pub slots: Vec<usize>,
    /// Stacked row of each slot.
    pub rows: Vec<usize>,
    /// Rows of each expert.
    pub counts: Vec<usize>,
}

impl Routes {
    /// Sorts the slots by expert.
    pub fn new(chosen: &[u32], n_experts: usize) -> Self {
        let mut slots: Vec<usize> = (0..chosen.len()).collect();
        slots.sort_by_key(|s| (chosen[*s], *s));
        let mut rows = vec![0; slots.len()];
        slots.iter().enumerate().for_each(|(row, slot)| rows[*slot] = row);
        let mut counts = vec![0; n_experts];
        chosen.iter().for_each(|e| counts[*e as usize] += 1);
        Self { slots, rows, counts }
    }
}

/// `out[t] = sum over places of weight * y[row of (t, place)]`.
pub fn combine(routes: &Routes, n_used: usize, d: usize, weights: &[f32], y: &[f32], out: &mut [f32]) {
    for_rows(out, d, |t, out| {
        out.fill(0.0);
        for slot in t * n_used..(t + 1) * n_used {
            super::simd::axpy(weights[slot], &y[routes.rows[slot] * d..][..d], out);
        }
    });
}

/// Gradients of [`combine`] with respect to weights and outputs.
pub fn combine_back(
    routes: &Routes,
    n_used: usize,
    d: usize,
    (weights, y): (&[f32], &[f32]),
    dout: &[f32],
    (dweights, dy): (&mut [f32], &mut [f32]),
) {
    for (row, slot) in routes.slots.iter().enumerate() {
        let (dout, y) = (&dout[slot / n_used * d..][..d], &y[row * d..(row + 1) * d]);
        dweights[*slot] = super::simd::dot(dout, y);
        dy[row * d..(row + 1) * d].iter_mut().zip(dout).for_each(|(dy, o)| *dy = weights[*slot] * o);
    }
}
