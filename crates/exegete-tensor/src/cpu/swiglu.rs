//! SwiGLU: `silu(gate) * up`, forward and backward.

use super::simd::{exp_approx, simd_fn};
use super::{Shared, for_rows};

/// Values that one task handles.
const CHUNK: usize = 4096;

#[inline(always)]
fn forward_body<const FMA: bool>(gate: &[f32], up: &[f32], out: &mut [f32]) {
    for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
        *o = g / (1.0 + exp_approx::<FMA>(-g)) * u;
    }
}
simd_fn!(fn forward(gate: &[f32], up: &[f32], out: &mut [f32]) = forward_body);

#[inline(always)]
fn backward_body<const FMA: bool>(gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    for i in 0..gate.len().min(up.len()).min(dy.len()).min(dgate.len()).min(dup.len()) {
        let sigmoid = 1.0 / (1.0 + exp_approx::<FMA>(-gate[i]));
        let silu = gate[i] * sigmoid;
        dup[i] = dy[i] * silu;
        dgate[i] = dy[i] * up[i] * (sigmoid + silu * (1.0 - sigmoid));
    }
}
simd_fn!(fn backward(gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) = backward_body);

/// `out = silu(gate) * up`, element by element.
pub fn swiglu(gate: &[f32], up: &[f32], out: &mut [f32]) {
    chunks(out, |from, out| forward(&gate[from..from + out.len()], &up[from..from + out.len()], out));
}

/// Gradients of [`swiglu`] with respect to gate and up.
pub fn swiglu_back(gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let dup = Shared(dup.as_mut_ptr());
    chunks(dgate, |from, dgate| {
        let to = from + dgate.len();
        // SAFETY: chunks are disjoint and lie within `dup`, which has the length of `dgate`.
        let dup = unsafe { dup.range(from, dgate.len()) };
        backward(&gate[from..to], &up[from..to], &dy[from..to], dgate, dup);
    });
}

/// Runs `f(offset, chunk)` over chunks of `out`, the last of which may be short.
fn chunks(out: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    let whole = out.len() / CHUNK * CHUNK;
    let (head, tail) = out.split_at_mut(whole);
    for_rows(head, CHUNK, |i, chunk| f(i * CHUNK, chunk));
    f(whole, tail);
}
