//! RMSNorm and LayerNorm over the last axis, forward and backward.

use super::simd::{LANES, madd, simd_fn, sum_lanes};
use super::{Shared, for_rows};

#[inline(always)]
fn sum_body<const FMA: bool>(x: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let (chunks, rest) = x.as_chunks::<LANES>();
    for c in chunks {
        for i in 0..LANES {
            acc[i] += c[i];
        }
    }
    sum_lanes(acc) + rest.iter().sum::<f32>()
}

/// Sum of a*b*c over three slices.
#[inline(always)]
fn dot3_body<const FMA: bool>(a: &[f32], b: &[f32], c: &[f32]) -> f32 {
    let mut acc = [0f32; LANES];
    let n = a.len() / LANES * LANES;
    for i in (0..n).step_by(LANES) {
        let (a, b, c) = (&a[i..i + LANES], &b[i..i + LANES], &c[i..i + LANES]);
        for l in 0..LANES {
            acc[l] = madd::<FMA>(a[l] * b[l], c[l], acc[l]);
        }
    }
    let tail: f32 = (n..a.len()).map(|i| a[i] * b[i] * c[i]).sum();
    sum_lanes(acc) + tail
}

#[inline(always)]
fn rms_row_body<const FMA: bool>(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) -> f32 {
    let mean_square = super::simd::dot_body::<FMA>(x, x) / x.len() as f32;
    let inv = 1.0 / (mean_square + eps).sqrt();
    for ((o, x), g) in out.iter_mut().zip(x).zip(gain) {
        *o = x * inv * g;
    }
    inv
}
simd_fn!(fn rms_row(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32]) -> f32 = rms_row_body);

#[inline(always)]
fn rms_row_back_body<const FMA: bool>(x: &[f32], gain: &[f32], inv: f32, dy: &[f32], dx: &mut [f32]) {
    let proj = dot3_body::<FMA>(dy, gain, x) * inv * inv * inv / x.len() as f32;
    for (((dx, x), g), dy) in dx.iter_mut().zip(x).zip(gain).zip(dy) {
        *dx = madd::<FMA>(dy * g, inv, -x * proj);
    }
}
simd_fn!(fn rms_row_back(x: &[f32], gain: &[f32], inv: f32, dy: &[f32], dx: &mut [f32]) = rms_row_back_body);

/// RMSNorm: `out = x / sqrt(mean(x^2) + eps) * gain`; returns each row's inverse root in `inv_N`.
pub fn rms_norm(x: &[f32], gain: &[f32], eps: f32, out: &mut [f32], inv_N: &mut [f32]) {
    let d = gain.len();
    let inv = Shared(inv_N.as_mut_ptr());
    for_rows(out, d, |r, row| {
        let value = rms_row(&x[r * d..(r + 1) * d], gain, eps, row);
        // SAFETY: one task writes one row's scalar.
        unsafe { inv.range(r, 1)[0] = value };
    });
}

/// Gradient of RMSNorm with respect to `x`.
pub fn rms_norm_back(x: &[f32], gain: &[f32], inv_N: &[f32], dy: &[f32], dx: &mut [f32]) {
    let d = gain.len();
    for_rows(dx, d, |r, row| rms_row_back(&x[r * d..(r + 1) * d], gain, inv_N[r], &dy[r * d..(r + 1) * d], row));
}

/// Gradient of RMSNorm with respect to the gain.
pub fn rms_norm_back_gain(x: &[f32], inv_N: &[f32], dy: &[f32], dgain: &mut [f32]) {
    let d = dgain.len();
    dgain.fill(0.0);
    for (r, inv) in inv_N.iter().enumerate() {
        for i in 0..d {
            dgain[i] += dy[r * d + i] * x[r * d + i] * inv;
        }
    }
}

#[inline(always)]
fn layer_row_body<const FMA: bool>(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) -> (f32, f32) {
    let n = x.len() as f32;
    let mean = sum_body::<FMA>(x) / n;
    for (o, x) in out.iter_mut().zip(x) {
        *o = x - mean;
    }
    let inv = 1.0 / (super::simd::dot_body::<FMA>(out, out) / n + eps).sqrt();
    for ((o, g), b) in out.iter_mut().zip(gain).zip(bias) {
        *o = madd::<FMA>(*o * inv, *g, *b);
    }
    (mean, inv)
}
simd_fn!(fn layer_row(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32]) -> (f32, f32) = layer_row_body);

/// LayerNorm: `out = (x - mean) / sqrt(var + eps) * gain + bias`; returns each row's (mean, inverse deviation).
pub fn layer_norm(x: &[f32], gain: &[f32], bias: &[f32], eps: f32, out: &mut [f32], stats_N2: &mut [f32]) {
    let d = gain.len();
    let stats = Shared(stats_N2.as_mut_ptr());
    for_rows(out, d, |r, row| {
        let (mean, inv) = layer_row(&x[r * d..(r + 1) * d], gain, bias, eps, row);
        // SAFETY: one task writes one row's pair.
        unsafe { stats.range(2 * r, 2).copy_from_slice(&[mean, inv]) };
    });
}

/// Gradient of LayerNorm with respect to `x`.
pub fn layer_norm_back(x: &[f32], gain: &[f32], stats_N2: &[f32], dy: &[f32], dx: &mut [f32]) {
    let d = gain.len();
    for_rows(dx, d, |r, row| {
        let (x, dy) = (&x[r * d..(r + 1) * d], &dy[r * d..(r + 1) * d]);
        let (mean, inv) = (stats_N2[2 * r], stats_N2[2 * r + 1]);
        let (mut sum, mut proj) = (0f32, 0f32);
        for i in 0..d {
            sum += dy[i] * gain[i];
            proj += dy[i] * gain[i] * (x[i] - mean) * inv;
        }
        let n = d as f32;
        for i in 0..d {
            row[i] = inv * (dy[i] * gain[i] - sum / n - (x[i] - mean) * inv * proj / n);
        }
    });
}

/// Gradients of LayerNorm with respect to gain and bias.
pub fn layer_norm_back_params(x: &[f32], stats_N2: &[f32], dy: &[f32], dgain: &mut [f32], dbias: &mut [f32]) {
    let d = dgain.len();
    dgain.fill(0.0);
    dbias.fill(0.0);
    for r in 0..x.len() / d {
        let (mean, inv) = (stats_N2[2 * r], stats_N2[2 * r + 1]);
        for i in 0..d {
            dgain[i] += dy[r * d + i] * (x[r * d + i] - mean) * inv;
            dbias[i] += dy[r * d + i];
        }
    }
}
