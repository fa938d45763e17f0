//! Run-time choice of instruction set, and the small pieces that kernels are made of.
//!
//! A kernel is written once as an `#[inline(always)]` body over lane arrays, generic over `FMA`; `simd_fn!`
//! compiles it for AVX-512, AVX2 and the baseline (NEON on Arm), and picks one when the program runs.

use std::sync::OnceLock;

/// Instruction sets that kernels are compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, VL, DQ, BW with FMA.
    Avx512,
    /// AVX2 with FMA.
    Avx2,
    /// What the target guarantees: SSE2 on x86-64, NEON on AArch64.
    Baseline,
}

/// The best instruction set of this machine.
pub fn isa() -> Isa {
    static ISA: OnceLock<Isa> = OnceLock::new();
    *ISA.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        {
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512bw")
            {
                return Isa::Avx512;
            }
            if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
                return Isa::Avx2;
            }
        }
        Isa::Baseline
    })
}

/// Whether the baseline has a fused multiply-add of its own; elsewhere `mul_add` would call a slow function.
pub const BASELINE_FMA: bool = cfg!(any(target_arch = "aarch64", target_feature = "fma"));

/// Declares `fn name(args)`, which runs the generic body `name_body::<FMA>` under the best instruction set.
macro_rules! simd_fn {
    ($(#[$meta:meta])* $vis:vis fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)? = $body:ident) => {
        $(#[$meta])*
        #[inline]
        $vis fn $name($($arg: $ty),*) $(-> $ret)? {
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512vl,avx512dq,avx512bw,avx2,fma")]
                fn wide($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn narrow($($arg: $ty),*) $(-> $ret)? {
                    $body::<true>($($arg),*)
                }
                match $crate::cpu::simd::isa() {
                    // SAFETY: `isa` saw these features on this machine.
                    $crate::cpu::simd::Isa::Avx512 => return unsafe { wide($($arg),*) },
                    // SAFETY: as above.
                    $crate::cpu::simd::Isa::Avx2 => return unsafe { narrow($($arg),*) },
                    $crate::cpu::simd::Isa::Baseline => {}
                }
            }
            $body::<{ $crate::cpu::simd::BASELINE_FMA }>($($arg),*)
        }
    };
}
pub(crate) use simd_fn;

/// Lanes of the accumulators; sums are always taken in this order, whatever the machine's vectors are.
pub const LANES: usize = 16;

/// `a * b + c`, fused where the machine can.
#[inline(always)]
pub fn madd<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Sum of lanes by halves.
#[inline(always)]
pub fn sum_lanes(lanes: [f32; LANES]) -> f32 {
    let mut v = lanes;
    let mut width = LANES / 2;
    while width > 0 {
        for i in 0..width {
            v[i] += v[i + width];
        }
        width /= 2;
    }
    v[0]
}

/// Dot product.
#[inline(always)]
pub fn dot_body<const FMA: bool>(a: &[f32], b: &[f32]) -> f32 {
    let mut acc = [[0f32; LANES]; 2];
    let (a_chunks, a_rest) = a.as_chunks::<{ 2 * LANES }>();
    let (b_chunks, b_rest) = b.as_chunks::<{ 2 * LANES }>();
    for (x, y) in a_chunks.iter().zip(b_chunks) {
        for h in 0..2 {
            for i in 0..LANES {
                acc[h][i] = madd::<FMA>(x[h * LANES + i], y[h * LANES + i], acc[h][i]);
            }
        }
    }
    let mut tail = 0.0;
    for (x, y) in a_rest.iter().zip(b_rest) {
        tail = madd::<FMA>(*x, *y, tail);
    }
    // Hides the sum from the compiler, which would otherwise cut the loop above into the pairs of lanes that are added here.
    let mut acc = std::hint::black_box(acc);
    for i in 0..LANES {
        acc[0][i] += acc[1][i];
    }
    sum_lanes(acc[0]) + tail
}

/// `y += a * x`.
#[inline(always)]
pub fn axpy_body<const FMA: bool>(a: f32, x: &[f32], y: &mut [f32]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = madd::<FMA>(a, *x, *y);
    }
}

simd_fn!(
    /// Dot product of two slices of the same length.
    pub fn dot(a: &[f32], b: &[f32]) -> f32 = dot_body
);
simd_fn!(
    /// `y += a * x` over slices of the same length.
    pub fn axpy(a: f32, x: &[f32], y: &mut [f32]) = axpy_body
);

/// e^x with a relative error under 2e-7; 0 below -87.3, held at e^88.3 above 88.3.
///
/// Cody-Waite reduction and a degree-6 polynomial, written without branches so that loops vectorise.
#[inline(always)]
pub fn exp_approx<const FMA: bool>(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 * 2^23: adding it rounds to an integer.
    let clamped = x.clamp(-87.3, 88.3);
    let shifted = madd::<FMA>(clamped, std::f32::consts::LOG2_E, MAGIC);
    let n = shifted - MAGIC;
    let r = madd::<FMA>(n, -0.693_359_4, clamped);
    let r = madd::<FMA>(n, 2.121_944_4e-4, r);
    let mut p = 1.388_888_9e-3;
    for c in [8.333_334e-3, 4.166_666_7e-2, 1.666_666_7e-1, 0.5, 1.0, 1.0] {
        p = madd::<FMA>(p, r, c);
    }
    // The last bits of the shifted value are the integer; a cast of `n` would be done value by value, for its limits.
    let scale = f32::from_bits(shifted.to_bits().wrapping_sub(MAGIC.to_bits()).wrapping_add(127) << 23);
    if x < -87.3 { 0.0 } else { p * scale }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_exact_to_two_units_in_the_last_place() {
        let mut worst = 0f64;
        for i in -8700..=8800 {
            let x = i as f32 / 100.0;
            let want = f64::from(x).exp();
            let got = f64::from(exp_approx::<true>(x));
            worst = worst.max((got - want).abs() / want);
        }
        assert!(worst < 3e-7, "relative error {worst:e}");
        assert_eq!(exp_approx::<true>(-1000.0), 0.0);
        assert_eq!(exp_approx::<true>(0.0), 1.0);
        assert_eq!(exp_approx::<false>(f32::NEG_INFINITY), 0.0);
        assert!(exp_approx::<true>(f32::NAN).is_nan());
        assert!(exp_approx::<true>(f32::INFINITY) > 1e38);
    }

    #[test]
    fn dot_agrees_with_a_plain_loop_at_every_length() {
        for n in 0..100 {
            let a: Vec<f32> = (0..n).map(|i| (i as f32 * 0.37).sin()).collect();
            let b: Vec<f32> = (0..n).map(|i| (i as f32 * 0.11).cos()).collect();
            let want: f64 = a.iter().zip(&b).map(|(x, y)| f64::from(x * y)).sum();
            assert!((f64::from(dot(&a, &b)) - want).abs() < 1e-5);
        }
    }
}
