//! Softmax, log-sum-exp and cross-entropy over the last axis.

use super::simd::{LANES, exp_approx, simd_fn, sum_lanes};
use super::{Shared, for_chunks, for_rows};

#[inline(always)]
fn exp_sum_body<const FMA: bool>(x: &[f32], max: f32) -> f32 {
    let mut acc = [0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for c in chunks {
        for i in 0..LANES {
            acc[i] += exp_approx::<FMA>(c[i] - max);
        }
    }
    sum_lanes(acc) + rest.iter().map(|v| exp_approx::<FMA>(v - max)).sum::<f32>()
}
simd_fn!(fn exp_sum(x: &[f32], max: f32) -> f32 = exp_sum_body);

#[inline(always)]
fn max_body<const FMA: bool>(x: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for c in chunks {
        for i in 0..LANES {
            acc[i] = if c[i] > acc[i] { c[i] } else { acc[i] };
        }
    }
    acc.iter().chain(rest).fold(f32::NEG_INFINITY, |a, b| a.max(*b))
}
simd_fn!(
    /// Largest value.
    pub fn max(x: &[f32]) -> f32 = max_body
);

#[inline(always)]
fn softmax_in_place_body<const FMA: bool>(x: &mut [f32], max: f32) -> f32 {
    let mut acc = [0f32; LANES];
    let (chunks, rest) = x.as_chunks_mut::<LANES>();
    for c in chunks {
        for i in 0..LANES {
            c[i] = exp_approx::<FMA>(c[i] - max);
            acc[i] += c[i];
        }
    }
    let mut tail = 0.0;
    for v in rest {
        *v = exp_approx::<FMA>(*v - max);
        tail += *v;
    }
    let sum = sum_lanes(acc) + tail;
    let scale = 1.0 / sum;
    x.iter_mut().for_each(|v| *v *= scale);
    sum
}
simd_fn!(fn softmax_in_place_of(x: &mut [f32], max: f32) -> f32 = softmax_in_place_body);

#[inline(always)]
fn exp_less_body<const FMA: bool>(x: &mut [f32], by: f32) {
    for v in x {
        *v = exp_approx::<FMA>(*v - by);
    }
}
simd_fn!(
    /// `x = exp(x - by)`, in place.
    pub fn exp_less(x: &mut [f32], by: f32) = exp_less_body
);

/// Softmax in place, with one exponential a value; returns the log-sum-exp.
pub fn softmax_in_place(x: &mut [f32]) -> f32 {
    let max = max(x);
    max + softmax_in_place_of(x, max).ln()
}

#[inline(always)]
fn softmax_scaled_body<const FMA: bool>(x: &[f32], lse: f32, scale: f32, out: &mut [f32]) {
    for (o, x) in out.iter_mut().zip(x) {
        *o = exp_approx::<FMA>(x - lse) * scale;
    }
}
simd_fn!(
    /// `out = exp(x - lse) * scale`.
    pub fn softmax_scaled(x: &[f32], lse: f32, scale: f32, out: &mut [f32]) = softmax_scaled_body
);

/// log(sum(exp(x))).
pub fn log_sum_exp(x: &[f32]) -> f32 {
    let max = max(x);
    max + exp_sum(x, max).ln()
}

/// Softmax of rows of `width` values; a row of -inf alone becomes zeros.
pub fn softmax_rows(x: &[f32], width: usize, out: &mut [f32]) {
    for_rows(out, width, |r, out| {
        let row = &x[r * width..(r + 1) * width];
        match log_sum_exp(row) {
            lse if lse == f32::NEG_INFINITY || (lse.is_nan() && row.iter().all(|x| *x == f32::NEG_INFINITY)) => {
                out.fill(0.0);
            }
            lse => softmax_scaled(row, lse, 1.0, out),
        }
    });
}

/// Gradient of [`softmax_rows`], from its result.
pub fn softmax_rows_back(p: &[f32], width: usize, dp: &[f32], dx: &mut [f32]) {
    for_rows(dx, width, |r, dx| {
        let (p, dp) = (&p[r * width..(r + 1) * width], &dp[r * width..(r + 1) * width]);
        let inner = super::simd::dot(p, dp);
        dx.iter_mut().zip(p).zip(dp).for_each(|((dx, p), dp)| *dx = p * (dp - inner));
    });
}

/// Cross-entropy of each row of `logits [N, V]` against its target, in nats, and each row's log-sum-exp.
pub fn cross_entropy(logits: &[f32], vocab: usize, targets_N: &[u32], loss_N: &mut [f32], lse_N: &mut [f32]) {
    let lse = Shared(lse_N.as_mut_ptr());
    // A row is long (a vocabulary), so rows are handed out one by one whatever their number.
    for_chunks(loss_N, 1, |r, loss| {
        let row = &logits[r * vocab..(r + 1) * vocab];
        let value = log_sum_exp(row);
        loss[0] = value - row[targets_N[r] as usize];
        // SAFETY: one task writes one row's scalar.
        unsafe { lse.range(r, 1)[0] = value };
    });
}

/// Gradient of the weighted sum of row losses: `dlogits = (softmax - onehot) * dloss_N`.
pub fn cross_entropy_back(
    logits: &[f32],
    vocab: usize,
    targets_N: &[u32],
    lse_N: &[f32],
    dloss_N: &[f32],
    dlogits: &mut [f32],
) {
    for_rows(dlogits, vocab, |r, out| {
        softmax_scaled(&logits[r * vocab..(r + 1) * vocab], lse_N[r], dloss_N[r], out);
        out[targets_N[r] as usize] -= dloss_N[r];
    });
}
