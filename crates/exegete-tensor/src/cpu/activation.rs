//! Activation functions, alone and as gates, forward and backward.

use super::simd::{exp_approx, madd, simd_fn};
use super::{Shared, for_rows};

/// An activation function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub enum Act {
    /// `x sigmoid(x)`
    Silu,
    /// `x Phi(x)`, with the error function (Hendrycks & Gimpel 2016)
    Gelu,
    /// `x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2`
    GeluTanh,
    /// `x sigmoid(1.702 x)`
    QuickGelu,
    /// `max(x, 0)`
    Relu,
}

impl Act {
    /// Names that [`Act::by_name`] knows.
    pub const NAMES: &[&str] =
        &["silu", "swish", "gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast", "quick_gelu", "relu"];

    /// By the name that transformers gives it.
    pub fn by_name(name: &str) -> Option<Self> {
        Some(match name {
            "silu" | "swish" => Self::Silu,
            "gelu" => Self::Gelu,
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Self::GeluTanh,
            "quick_gelu" => Self::QuickGelu,
            "relu" => Self::Relu,
            _ => return None,
        })
    }
}

/// The error function, to two units in the last place: a polynomial near 0, one minus an exponential beyond.
#[inline(always)]
pub fn erf<const FMA: bool>(x: f32) -> f32 {
    let (t, s) = (x.abs(), x * x);
    let mut near = -5.967_617e-4f32;
    for c in [4.991_194_2e-3, -2.676_813_5e-2, 1.128_199_3e-1, -3.761_253_4e-1, 1.283_791_7e-1] {
        near = madd::<FMA>(near, s, c);
    }
    near = madd::<FMA>(near, x, x);
    let u = madd::<FMA>(-3.883_964_4e-3, t, 2.425_462_2e-2);
    let mut far = madd::<FMA>(madd::<FMA>(-1.728_534_7e-5, t, 3.831_971_3e-4), s, u);
    for c in [-1.067_778_8e-1, -6.348_465e-1, -1.287_175_1e-1] {
        far = madd::<FMA>(far, t, c);
    }
    far = (1.0 - exp_approx::<FMA>(madd::<FMA>(far, t, -t))).copysign(x);
    if t > 0.927_734_4 { far } else { near }
}

/// The hyperbolic tangent, to two units in the last place.
#[inline(always)]
pub fn tanh<const FMA: bool>(x: f32) -> f32 {
    let s = x * x;
    let mut near = -5.704_988_7e-3f32;
    for c in [2.063_908_8e-2, -5.373_971_5e-2, 1.333_144_2e-1, -0.333_332_83] {
        near = madd::<FMA>(near, s, c);
    }
    near = madd::<FMA>(near * s, x, x);
    let far = (1.0 - 2.0 / (exp_approx::<FMA>(2.0 * x.abs()) + 1.0)).copysign(x);
    if x.abs() < 0.625 { near } else { far }
}

#[inline(always)]
fn sigmoid<const FMA: bool>(x: f32) -> f32 {
    1.0 / (1.0 + exp_approx::<FMA>(-x))
}

/// `x sigmoid(f(x))` and its derivative, of `f(x) = a x + b x^3`: what SiLU and both GELUs by sigmoid are.
#[inline(always)]
fn by_sigmoid<const FMA: bool>(x: f32, a: f32, b: f32) -> (f32, f32) {
    let s = sigmoid::<FMA>(x * madd::<FMA>(b * x, x, a));
    (x * s, s + x * s * (1.0 - s) * madd::<FMA>(3.0 * b * x, x, a))
}

/// Twice the root of 2 / pi: the tanh form of GELU is `x sigmoid(2 u)`.
const GELU_A: f32 = 1.595_769;
const GELU_B: f32 = GELU_A * 0.044_715;

/// The value and the derivative.
#[inline(always)]
fn both<const FMA: bool>(act: Act, x: f32) -> (f32, f32) {
    match act {
        Act::Silu => by_sigmoid::<FMA>(x, 1.0, 0.0),
        Act::GeluTanh => by_sigmoid::<FMA>(x, GELU_A, GELU_B),
        Act::QuickGelu => by_sigmoid::<FMA>(x, 1.702, 0.0),
        Act::Gelu => {
            let cdf = 0.5 * (1.0 + erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2));
            (x * cdf, cdf + x * exp_approx::<FMA>(-0.5 * x * x) * 0.398_942_3)
        }
        Act::Relu => (x.max(0.0), if x > 0.0 { 1.0 } else { 0.0 }),
    }
}

/// Runs `$loop!(act)` with the activation known at compile time, so that the loop over values has no branch.
macro_rules! each_act {
    ($act:expr, $run:ident) => {
        match $act {
            Act::Silu => $run!(Act::Silu),
            Act::Gelu => $run!(Act::Gelu),
            Act::GeluTanh => $run!(Act::GeluTanh),
            Act::QuickGelu => $run!(Act::QuickGelu),
            Act::Relu => $run!(Act::Relu),
        }
    };
}

#[inline(always)]
fn plain_body<const FMA: bool>(act: Act, x: &[f32], out: &mut [f32]) {
    macro_rules! run {
        ($act:expr) => {
            for (o, x) in out.iter_mut().zip(x) {
                *o = both::<FMA>($act, *x).0;
            }
        };
    }
    each_act!(act, run);
}
simd_fn!(fn plain_chunk(act: Act, x: &[f32], out: &mut [f32]) = plain_body);

#[inline(always)]
fn plain_back_body<const FMA: bool>(act: Act, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    macro_rules! run {
        ($act:expr) => {
            for ((d, x), dy) in dx.iter_mut().zip(x).zip(dy) {
                *d = dy * both::<FMA>($act, *x).1;
            }
        };
    }
    each_act!(act, run);
}
simd_fn!(fn plain_back_chunk(act: Act, x: &[f32], dy: &[f32], dx: &mut [f32]) = plain_back_body);

#[inline(always)]
pub(super) fn gated_body<const FMA: bool>(act: Act, gate: &[f32], up: &[f32], out: &mut [f32]) {
    macro_rules! run {
        ($act:expr) => {
            for ((o, g), u) in out.iter_mut().zip(gate).zip(up) {
                *o = both::<FMA>($act, *g).0 * u;
            }
        };
    }
    each_act!(act, run);
}
simd_fn!(fn gated_chunk(act: Act, gate: &[f32], up: &[f32], out: &mut [f32]) = gated_body);

#[inline(always)]
fn gated_back_body<const FMA: bool>(
    act: Act,
    gate: &[f32],
    up: &[f32],
    dy: &[f32],
    dgate: &mut [f32],
    dup: &mut [f32],
) {
    let n = dgate.len();
    let (gate, up, dy, dup) = (&gate[..n], &up[..n], &dy[..n], &mut dup[..n]);
    macro_rules! run {
        ($act:expr) => {
            for i in 0..n {
                let (value, slope) = both::<FMA>($act, gate[i]);
                dup[i] = dy[i] * value;
                dgate[i] = dy[i] * up[i] * slope;
            }
        };
    }
    each_act!(act, run);
}
simd_fn!(
    fn gated_back_chunk(
        act: Act,
        gate: &[f32],
        up: &[f32],
        dy: &[f32],
        dgate: &mut [f32],
        dup: &mut [f32],
    ) = gated_back_body
);

#[inline(always)]
fn soft_cap_body<const FMA: bool>(cap: f32, x: &mut [f32]) {
    for x in x {
        *x = cap * tanh::<FMA>(*x / cap);
    }
}
simd_fn!(
    /// `x = cap tanh(x / cap)`, in place, on the calling thread.
    pub fn soft_cap_in_place(cap: f32, x: &mut [f32]) = soft_cap_body
);

/// `out = act(x)`.
pub fn activate(act: Act, x: &[f32], out: &mut [f32]) {
    chunks(out, |from, out| plain_chunk(act, &x[from..from + out.len()], out));
}

/// Gradient of [`activate`].
pub fn activate_back(act: Act, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    chunks(dx, |from, dx| plain_back_chunk(act, &x[from..from + dx.len()], &dy[from..from + dx.len()], dx));
}

/// `out = act(gate) * up`.
pub fn gated(act: Act, gate: &[f32], up: &[f32], out: &mut [f32]) {
    chunks(out, |from, out| gated_chunk(act, &gate[from..from + out.len()], &up[from..from + out.len()], out));
}

/// Gradients of [`gated`] with respect to gate and up.
pub fn gated_back(act: Act, gate: &[f32], up: &[f32], dy: &[f32], dgate: &mut [f32], dup: &mut [f32]) {
    let dup = Shared(dup.as_mut_ptr());
    chunks(dgate, |from, dgate| {
        let to = from + dgate.len();
        // SAFETY: chunks are disjoint and lie within `dup`, which has the length of `dgate`.
        let dup = unsafe { dup.range(from, dgate.len()) };
        gated_back_chunk(act, &gate[from..to], &up[from..to], &dy[from..to], dgate, dup);
    });
}

/// `x = cap tanh(x / cap)`, in place.
pub fn soft_cap(cap: f32, x: &mut [f32]) {
    chunks(x, |_, x| soft_cap_in_place(cap, x));
}

/// Values that one task handles.
const CHUNK: usize = 4096;

/// Runs `f(offset, chunk)` over chunks of `out`, the last of which may be short.
pub(crate) fn chunks(out: &mut [f32], f: impl Fn(usize, &mut [f32]) + Sync) {
    let whole = out.len() / CHUNK * CHUNK;
    let (head, tail) = out.split_at_mut(whole);
    for_rows(head, CHUNK, |i, chunk| f(i * CHUNK, chunk));
    f(whole, tail);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// erf by its series and its continued fraction, in f64.
    fn erf64(x: f64) -> f64 {
        if x.abs() < 3.0 {
            let (mut term, mut sum) = (x, x);
            for n in 1..80 {
                term *= -x * x / f64::from(n);
                sum += term / f64::from(2 * n + 1);
            }
            return sum * 2.0 / std::f64::consts::PI.sqrt();
        }
        let t = (1..60).rev().fold(0.0, |acc, n| f64::from(n) / 2.0 / (x.abs() + acc));
        (1.0 - (-x * x).exp() / std::f64::consts::PI.sqrt() / (x.abs() + t)) * x.signum()
    }

    #[test]
    fn erf_and_tanh_are_exact_to_a_few_units_in_the_last_place() {
        let mut worst = (0f64, 0f64);
        for i in -6000..=6000 {
            let x = i as f32 / 1000.0;
            let (e, t) = (f64::from(erf::<true>(x)), f64::from(tanh::<true>(x)));
            let (want_e, want_t) = (erf64(f64::from(x)), f64::from(x).tanh());
            worst.0 = worst.0.max((e - want_e).abs() / want_e.abs().max(1e-30));
            worst.1 = worst.1.max((t - want_t).abs() / want_t.abs().max(1e-30));
        }
        assert!(worst.0 < 3e-7 && worst.1 < 3e-7, "{worst:?}");
        assert_eq!((erf::<true>(9.0), tanh::<true>(-60.0)), (1.0, -1.0));
    }

    #[test]
    fn slopes_are_those_of_the_values() {
        for act in [Act::Silu, Act::Gelu, Act::GeluTanh, Act::QuickGelu, Act::Relu] {
            for i in -40..40 {
                let x = i as f32 * 0.1 + 0.03;
                let h = 1e-2;
                let value = |x: f32| f64::from(both::<true>(act, x).0);
                let slope = (value(x - 2.0 * h) - 8.0 * value(x - h) + 8.0 * value(x + h) - value(x + 2.0 * h))
                    / (12.0 * f64::from(h));
                let got = f64::from(both::<true>(act, x).1);
                let near_kink = act == Act::Relu && x.abs() < 0.05;
                assert!(near_kink || (got - slope).abs() < 1e-4, "{act:?} at {x}: {got} {slope}");
            }
        }
    }
}
