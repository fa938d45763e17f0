//! Rotary position embedding, "half" convention (Hugging Face): dimension i turns with dimension i + C/2.

use super::for_rows;

/// Cosines and sines for positions `0..n_positions`.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// Half the head width.
    pub half: usize,
    /// `[n_positions, half]`.
    pub cos: Vec<f32>,
    /// `[n_positions, half]`.
    pub sin: Vec<f32>,
}

impl RopeTable {
    /// A table from the inverse frequencies of the `half` planes; angles are computed as transformers does, in f32.
    pub fn new(inv_freq: &[f32], n_positions: usize) -> Self {
        let angle = |p: usize, f: f32| p as f32 * f;
        let all =
            |g: fn(f32) -> f32| (0..n_positions).flat_map(|p| inv_freq.iter().map(move |f| g(angle(p, *f)))).collect();
        Self { half: inv_freq.len(), cos: all(f32::cos), sin: all(f32::sin) }
    }

    /// Number of positions in the table.
    pub fn n_positions(&self) -> usize {
        self.cos.len() / self.half
    }
}

/// Rotates every head of every row: `out` and `x` are `[N, heads * C]`, `positions_N` gives each row's position.
///
/// `inverse` turns the other way, which is the gradient.
pub fn rotate(table: &RopeTable, positions_N: &[usize], row_len: usize, x: &[f32], out: &mut [f32], inverse: bool) {
    let half = table.half;
    for_rows(out, row_len, |r, out| {
        let p = positions_N[r];
        let (cos, sin) = (&table.cos[p * half..(p + 1) * half], &table.sin[p * half..(p + 1) * half]);
        let sign = if inverse { -1.0 } else { 1.0 };
        let x = &x[r * row_len..(r + 1) * row_len];
        for (out, x) in out.chunks_exact_mut(2 * half).zip(x.chunks_exact(2 * half)) {
            let (out_a, out_b) = out.split_at_mut(half);
            let (a, b) = x.split_at(half);
            for i in 0..half {
                let s = sin[i] * sign;
                out_a[i] = a[i] * cos[i] - b[i] * s;
                out_b[i] = b[i] * cos[i] + a[i] * s;
            }
        }
    });
}
