//! Sparse products for dictionaries: rows of codes, with k entries each or as many as each has.
//!
//! A code is `(values, idx)`, the entries of all tokens behind each other. The transposed view (by latent) is a counting
//! sort of the entries, so each latent's gradient is summed by one task in the order of the tokens.

use std::ops::Range;

use super::simd::{axpy_body, dot_body, simd_fn};
use super::{Shared, for_rows, team};

/// Where the entries of each token are.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// So many for each token.
    Each(usize),
    /// Those of token n are `starts[n]..starts[n + 1]`.
    Starts(&'a [usize]),
}

impl Rows<'_> {
    /// The entries of some tokens.
    fn of(self, tokens: Range<usize>) -> Range<usize> {
        match self {
            Self::Each(k) => tokens.start * k..tokens.end * k,
            Self::Starts(starts) => starts[tokens.start]..starts[tokens.end],
        }
    }
}

/// Entries of a sparse code grouped by latent.
#[derive(Debug, Default)]
pub struct ByLatent {
    /// Entries of latent f are `entries[starts[f]..starts[f + 1]]`.
    pub starts: Vec<u32>,
    /// Entry numbers, ascending within a latent.
    pub entries: Vec<u32>,
    /// The token of each of them.
    pub tokens: Vec<u32>,
}

impl ByLatent {
    /// Groups the entries that are wanted.
    pub fn build(&mut self, n_latents: usize, idx: &[u32], starts_N1: &[usize], wanted: impl Fn(usize) -> bool) {
        self.starts.clear();
        self.starts.resize(n_latents + 2, 0);
        for (e, f) in idx.iter().enumerate() {
            if wanted(e) {
                self.starts[*f as usize + 2] += 1;
            }
        }
        for f in 2..n_latents + 2 {
            self.starts[f] += self.starts[f - 1];
        }
        for grouped in [&mut self.entries, &mut self.tokens] {
            grouped.clear();
            grouped.resize(self.starts[n_latents + 1] as usize, 0);
        }
        for (n, range) in starts_N1.windows(2).enumerate() {
            for e in range[0]..range[1] {
                if wanted(e) {
                    let at = &mut self.starts[idx[e] as usize + 1];
                    self.entries[*at as usize] = e as u32;
                    self.tokens[*at as usize] = n as u32;
                    *at += 1;
                }
            }
        }
        self.starts.pop();
    }

    fn range(&self, latent: usize) -> Range<usize> {
        self.starts[latent] as usize..self.starts[latent + 1] as usize
    }

    /// Entries of one latent.
    pub fn of(&self, latent: usize) -> &[u32] {
        &self.entries[self.range(latent)]
    }

    /// `out += sum over a latent's entries of weight * x[token]`: one row of a weight gradient.
    pub fn sum_rows(&self, latent: usize, weights: &[f32], x_ND: &[f32], out: &mut [f32]) {
        let range = self.range(latent);
        sum_rows(&self.entries[range.clone()], &self.tokens[range], weights, x_ND, out);
    }
}

#[inline(always)]
fn decode_row_body<const FMA: bool>(values: &[f32], idx: &[u32], of: Range<u32>, w_dec_FD: &[f32], out: &mut [f32]) {
    let d = out.len();
    for (v, f) in values.iter().zip(idx) {
        if *v != 0.0 && of.contains(f) {
            axpy_body::<FMA>(*v, &w_dec_FD[*f as usize * d..][..d], out);
        }
    }
}
simd_fn!(fn decode_row(values: &[f32], idx: &[u32], of: Range<u32>, w_dec_FD: &[f32], out: &mut [f32]) = decode_row_body);

/// `out[n] = bias + sum over the token's entries of value * w_dec[idx]`.
pub fn decode(values: &[f32], idx: &[u32], rows: Rows, w_dec_FD: &[f32], bias_D: &[f32], out_ND: &mut [f32]) {
    for_rows(out_ND, bias_D.len(), |_, row| row.copy_from_slice(bias_D));
    decode_onto(values, (idx, 0..u32::MAX), rows, w_dec_FD, bias_D.len(), out_ND);
}

/// `out[n] += sum over the token's entries of value * w_dec[idx]`, of entries whose latents are in `of`.
pub fn decode_onto(
    values: &[f32],
    (idx, of): (&[u32], Range<u32>),
    rows: Rows,
    w_dec_FD: &[f32],
    d: usize,
    out_ND: &mut [f32],
) {
    for_rows(out_ND, d, |n, row| {
        let entries = rows.of(n..n + 1);
        decode_row(&values[entries.clone()], &idx[entries], of.clone(), w_dec_FD, row);
    });
}

#[inline(always)]
fn rows_dot_body<const FMA: bool>(x: &[f32], idx: &[u32], of: Range<u32>, w_FD: &[f32], out: &mut [f32]) {
    let d = x.len();
    for (o, f) in out.iter_mut().zip(idx) {
        if of.contains(f) {
            *o = dot_body::<FMA>(x, &w_FD[*f as usize * d..][..d]);
        }
    }
}
simd_fn!(fn rows_dot(x: &[f32], idx: &[u32], of: Range<u32>, w_FD: &[f32], out: &mut [f32]) = rows_dot_body);

/// `out[e] = x[n] . w[idx[e]]` for the entries e of each token n whose latents are in `of`: the gradient of the codes, given
/// that of the reconstruction.
pub fn gather_dots(x_ND: &[f32], d: usize, (idx, of): (&[u32], Range<u32>), rows: Rows, w_FD: &[f32], out: &mut [f32]) {
    let n = x_ND.len() / d;
    assert!(rows.of(0..n).len() == out.len() && idx.len() == out.len(), "entries of other tokens");
    let each = (super::PARALLEL_FROM * n / (d * out.len()).max(1)).clamp(1, n.max(1));
    let out = Shared(out.as_mut_ptr());
    team::for_tasks(n.div_ceil(each), |task| {
        for n in task * each..n.min((task + 1) * each) {
            let entries = rows.of(n..n + 1);
            // SAFETY: the entries of this token, which no other task touches.
            let out = unsafe { out.range(entries.start, entries.len()) };
            rows_dot(&x_ND[n * d..(n + 1) * d], &idx[entries], of.clone(), w_FD, out);
        }
    });
}

#[inline(always)]
fn sum_rows_body<const FMA: bool>(entries: &[u32], tokens: &[u32], weights: &[f32], x_ND: &[f32], out: &mut [f32]) {
    let d = out.len();
    for (e, n) in entries.iter().zip(tokens) {
        axpy_body::<FMA>(weights[*e as usize], &x_ND[*n as usize * d..][..d], out);
    }
}
simd_fn!(fn sum_rows(entries: &[u32], tokens: &[u32], weights: &[f32], x_ND: &[f32], out: &mut [f32]) = sum_rows_body);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sparse_products_agree_with_dense_ones() {
        let (n, k, f, d) = (13, 3, 29, 37);
        let idx: Vec<u32> = (0..n * k).map(|e| ((e * 7 + e / k) % f) as u32).collect();
        let values: Vec<f32> = (0..n * k).map(|e| if e % 5 == 0 { 0.0 } else { (e as f32).sin() }).collect();
        let w: Vec<f32> = (0..f * d).map(|i| (i as f32 * 0.3).cos()).collect();
        let bias: Vec<f32> = (0..d).map(|i| i as f32 * 0.01).collect();
        let mut out = vec![0.0; n * d];
        decode(&values, &idx, Rows::Each(k), &w, &bias, &mut out);
        let mut dots = vec![0.0; n * k];
        gather_dots(&out, d, (&idx, 0..f as u32), Rows::Each(k), &w, &mut dots);
        let starts: Vec<usize> = (0..=n).map(|n| n * k).collect();
        let mut again = (vec![0.0; n * d], vec![0.0; n * k]);
        decode(&values, &idx, Rows::Starts(&starts), &w, &bias, &mut again.0);
        gather_dots(&out, d, (&idx, 0..9), Rows::Starts(&starts), &w, &mut again.1);
        gather_dots(&out, d, (&idx, 9..f as u32), Rows::Starts(&starts), &w, &mut again.1);
        assert_eq!(again, (out.clone(), dots.clone()));
        let mut by = ByLatent::default();
        by.build(f, &idx, &starts, |e| values[e] != 0.0);
        for row in 0..n {
            for c in 0..d {
                let want: f32 =
                    bias[c] + (0..k).map(|j| values[row * k + j] * w[idx[row * k + j] as usize * d + c]).sum::<f32>();
                assert!((out[row * d + c] - want).abs() < 1e-5);
            }
            for j in 0..k {
                let want: f32 = (0..d).map(|c| out[row * d + c] * w[idx[row * k + j] as usize * d + c]).sum();
                assert!((dots[row * k + j] - want).abs() < 1e-3);
            }
        }
        for latent in 0..f {
            let mut got = vec![0.0; d];
            by.sum_rows(latent, &values, &out, &mut got);
            for c in 0..d {
                let want: f32 =
                    (0..n * k).filter(|e| idx[*e] as usize == latent).map(|e| values[e] * out[e / k * d + c]).sum();
                assert!((got[c] - want).abs() < 1e-4);
            }
        }
    }
}
