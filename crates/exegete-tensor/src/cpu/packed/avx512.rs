//! Tile kernels and the transposition for AVX-512.

use std::arch::x86_64::*;

use super::tile::{Kernel, PANEL, SLICE, Tile};

/// Rows of a tile: with two vectors of columns they take 28 of the 32 registers, two hold the weights and one the
/// broadcast value.
const ROWS: usize = 14;
/// The most rows of a tile with two panels.
const PAIR_ROWS: usize = 4;

/// `f32` panels.
pub(super) const F32: Kernel = Kernel { rows: ROWS, pair_rows: PAIR_ROWS, per_unit: 1, run: f32_tile };

/// bf16 panels, with the products of pairs that AVX512-BF16 has.
pub(super) const BF16: Kernel = Kernel { rows: ROWS, pair_rows: PAIR_ROWS, per_unit: 2, run: bf16_tile };

macro_rules! tile_kernel {
    ($(#[$meta:meta])* $name:ident, $rows:ident, $features:literal, $step:expr) => {
        $(#[$meta])*
        ///
        /// # Safety
        /// As for [`Kernel::run`].
        #[target_feature(enable = $features)]
        unsafe fn $name(t: &Tile) {
            // SAFETY: by the caller's promise, in each.
            unsafe {
                match (t.panels, t.rows) {
                    (2, 1) => $rows::<1, 2>(t),
                    (2, 2) => $rows::<2, 2>(t),
                    (2, 3) => $rows::<3, 2>(t),
                    (2, _) => $rows::<PAIR_ROWS, 2>(t),
                    (_, 1) => $rows::<1, 1>(t),
                    (_, 2) => $rows::<2, 1>(t),
                    (_, 3) => $rows::<3, 1>(t),
                    (_, 4) => $rows::<4, 1>(t),
                    (_, 5) => $rows::<5, 1>(t),
                    (_, 6) => $rows::<6, 1>(t),
                    (_, 7) => $rows::<7, 1>(t),
                    (_, 8) => $rows::<8, 1>(t),
                    (_, 9) => $rows::<9, 1>(t),
                    (_, 10) => $rows::<10, 1>(t),
                    (_, 11) => $rows::<11, 1>(t),
                    (_, 12) => $rows::<12, 1>(t),
                    (_, 13) => $rows::<13, 1>(t),
                    _ => $rows::<ROWS, 1>(t),
                }
            }
        }

        /// # Safety
        /// As for [`Kernel::run`], with `t.rows == R` and `t.panels == P`.
        #[target_feature(enable = $features)]
        unsafe fn $rows<const R: usize, const P: usize>(t: &Tile) {
            let mut acc = [[[_mm512_setzero_ps(); 2]; P]; R];
            let (mut x, mut w, mut ahead) = (t.x, t.w, t.ahead.map(|a| a.cast::<i8>()));
            for _ in 0..t.units {
                // A prefetch of any address is harmless.
                for i in 0..2 {
                    for line in 0..P {
                        _mm_prefetch::<_MM_HINT_T1>(ahead[i].wrapping_add(line * 64));
                    }
                    ahead[i] = ahead[i].wrapping_add(t.ahead_step[i]);
                }
                // SAFETY: a panel has PANEL columns at each unit, a row `units` values.
                unsafe {
                    let mut weights = [[_mm512_setzero_si512(); 2]; P];
                    for p in 0..P {
                        for h in 0..2 {
                            weights[p][h] = _mm512_loadu_si512(w.add(p * t.w_stride + h * 16).cast());
                        }
                    }
                    for r in 0..R {
                        let value = _mm512_set1_epi32(*x.add(r * SLICE) as i32);
                        for p in 0..P {
                            for h in 0..2 {
                                acc[r][p][h] = $step(acc[r][p][h], value, weights[p][h]);
                            }
                        }
                    }
                }
                x = x.wrapping_add(1);
                w = w.wrapping_add(PANEL);
            }
            for r in 0..R {
                for p in 0..P {
                    for h in 0..2 {
                        // SAFETY: each panel of the tile has R rows of PANEL sums.
                        unsafe {
                            let to = t.sums.add((p * R + r) * PANEL + h * 16);
                            let sum = acc[r][p][h];
                            let sum = if t.resume { _mm512_add_ps(_mm512_loadu_ps(to), sum) } else { sum };
                            _mm512_storeu_ps(to, sum);
                        }
                    }
                }
            }
        }
    };
}

tile_kernel!(
    /// A tile of `f32`.
    f32_tile,
    f32_rows,
    "avx512f",
    |acc, x, w| _mm512_fmadd_ps(_mm512_castsi512_ps(x), _mm512_castsi512_ps(w), acc)
);
tile_kernel!(
    /// A tile of bf16 pairs, summed in `f32`.
    bf16_tile,
    bf16_rows,
    "avx512f,avx512bf16",
    // SAFETY: vectors of the same size, of which every bit pattern is valid.
    |acc, x, w| _mm512_dpbf16_ps(
        acc,
        std::mem::transmute::<__m512i, __m512bh>(x),
        std::mem::transmute::<__m512i, __m512bh>(w)
    )
);

/// Transposes 16 by 16 units.
///
/// # Safety
/// AVX-512 F is there; `src` and `dst` hold 16 rows of 16 units at their strides, and do not overlap.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn transpose16(src: *const u32, src_stride: usize, dst: *mut u32, dst_stride: usize) {
    // SAFETY: by the caller's promise.
    let v: [__m512i; 16] = std::array::from_fn(|i| unsafe { _mm512_loadu_si512(src.add(i * src_stride).cast()) });
    // Rows 4g..4g+4 become, in each quarter of a vector, one column of a 4x4 block.
    let mut q = [_mm512_setzero_si512(); 16];
    for g in 0..4 {
        let [a, b, c, d] = [v[4 * g], v[4 * g + 1], v[4 * g + 2], v[4 * g + 3]];
        let (ab_lo, ab_hi) = (_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
        let (cd_lo, cd_hi) = (_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
        q[4 * g] = _mm512_unpacklo_epi64(ab_lo, cd_lo);
        q[4 * g + 1] = _mm512_unpackhi_epi64(ab_lo, cd_lo);
        q[4 * g + 2] = _mm512_unpacklo_epi64(ab_hi, cd_hi);
        q[4 * g + 3] = _mm512_unpackhi_epi64(ab_hi, cd_hi);
    }
    // Quarter z of q[4g + c] holds column 4z + c of rows 4g..4g+4: gather each column's four quarters.
    for c in 0..4 {
        let even = _mm512_shuffle_i32x4::<0x88>(q[c], q[4 + c]);
        let odd = _mm512_shuffle_i32x4::<0xdd>(q[c], q[4 + c]);
        let even_down = _mm512_shuffle_i32x4::<0x88>(q[8 + c], q[12 + c]);
        let odd_down = _mm512_shuffle_i32x4::<0xdd>(q[8 + c], q[12 + c]);
        let columns = [
            _mm512_shuffle_i32x4::<0x88>(even, even_down),
            _mm512_shuffle_i32x4::<0x88>(odd, odd_down),
            _mm512_shuffle_i32x4::<0xdd>(even, even_down),
            _mm512_shuffle_i32x4::<0xdd>(odd, odd_down),
        ];
        for (z, column) in columns.into_iter().enumerate() {
            // SAFETY: by the caller's promise.
            unsafe { _mm512_storeu_si512(dst.add((4 * z + c) * dst_stride).cast(), column) };
        }
    }
}

/// Rounds values to bf16, two to a unit, 32 at a time; the rest is the caller's. Returns how many were rounded.
///
/// # Safety
/// AVX512-BF16 is there, and `dst` holds half as many units as `src` values.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn round_bf16(src: &[f32], dst: *mut u32) -> usize {
    let whole = src.len() / 32 * 32;
    // SAFETY: by the caller's promise.
    unsafe { round_bf16_steps(&src[..whole], dst, 16) };
    whole
}

/// Rounds a row to bf16 in steps of 32 values, written `step_units` apart; the last step is filled with zeros.
///
/// # Safety
/// AVX512-BF16 is there, and at `dst` there are 16 units for each step.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) unsafe fn round_bf16_steps(src: &[f32], dst: *mut u32, step_units: usize) {
    let (whole, rest) = src.as_chunks::<32>();
    // SAFETY: the step has 32 values, or as many as the masks say, and its units are there.
    unsafe {
        let write = |step: usize, low: __m512, high: __m512| {
            let pairs = std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low));
            _mm512_storeu_si512(dst.add(step * step_units).cast(), pairs);
        };
        for (step, values) in whole.iter().enumerate() {
            write(step, _mm512_loadu_ps(values.as_ptr()), _mm512_loadu_ps(values.as_ptr().add(16)));
        }
        if !rest.is_empty() {
            let all = (1u32 << rest.len()) - 1;
            let low = _mm512_maskz_loadu_ps(all as u16, rest.as_ptr());
            let high = _mm512_maskz_loadu_ps((all >> 16) as u16, rest.as_ptr().wrapping_add(16));
            write(whole.len(), low, high);
        }
    }
}
