//! Rotary position embedding, "half" convention (Hugging Face): of the rotated dimensions, i turns with i + half.

use super::for_rows;

/// Cosines and sines for positions `0..n_positions`.
#[derive(Debug, Clone)]
pub struct RopeTable {
    /// Rotated planes of a head: half of the dimensions that turn.
    pub half: usize,
    /// Width of a head; dimensions from `2 * half` on stay as they are.
    pub d_head: usize,
    /// `[n_positions, half]`.
    pub cos: Vec<f32>,
    /// `[n_positions, half]`.
    pub sin: Vec<f32>,
}

impl RopeTable {
    /// A table from the inverse frequencies of the planes, cosines and sines multiplied by `factor`; angles are
    /// computed as transformers does, in f32.
    pub fn new(inv_freq: &[f32], d_head: usize, factor: f32, n_positions: usize) -> Self {
        let angle = |p: usize, f: f32| p as f32 * f;
        let all = |g: fn(f32) -> f32| {
            (0..n_positions).flat_map(|p| inv_freq.iter().map(move |f| g(angle(p, *f)) * factor)).collect()
        };
        Self { half: inv_freq.len(), d_head, cos: all(f32::cos), sin: all(f32::sin) }
    }

    /// Number of positions in the table.
    pub fn n_positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }
}

/// Rotates every head of every row: `out` and `x` are `[N, heads * C]`, `positions_N` gives each row's position.
///
/// `inverse` turns the other way, which is the gradient (the factor of cosines and sines stays).
pub fn rotate(table: &RopeTable, positions_N: &[usize], row_len: usize, x: &[f32], out: &mut [f32], inverse: bool) {
    let (half, d_head) = (table.half, table.d_head);
    for_rows(out, row_len, |r, out| {
        let p = positions_N[r];
        let (cos, sin) = (&table.cos[p * half..(p + 1) * half], &table.sin[p * half..(p + 1) * half]);
        let sign = if inverse { -1.0 } else { 1.0 };
        let x = &x[r * row_len..(r + 1) * row_len];
        for (out, x) in out.chunks_exact_mut(d_head).zip(x.chunks_exact(d_head)) {
            out[2 * half..].copy_from_slice(&x[2 * half..]);
            let (out_a, out_b) = out[..2 * half].split_at_mut(half);
            let (a, b) = x[..2 * half].split_at(half);
            for i in 0..half {
                let s = sin[i] * sign;
                out_a[i] = a[i] * cos[i] - b[i] * s;
                out_b[i] = b[i] * cos[i] + a[i] * s;
            }
        }
    });
}
