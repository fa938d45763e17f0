//! Rows into panels and back.
//!
//! A panel is `[units][32]`, a unit one `f32` or a pair of bf16 along k. Seen as units, a panel is the transpose of
//! 32 rows, for both kinds.

use super::tile::PANEL;
use crate::cpu::simd::{Isa, isa, simd_fn};

/// Rounds to the nearest bf16, ties to even; a NaN stays one.
#[inline(always)]
pub(super) fn to_bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet = (bits >> 16) | 0x40;
    (if value.is_nan() { quiet } else { rounded }) as u16
}

/// The value of a bf16.
#[inline(always)]
pub(super) fn from_bf16(value: u16) -> f32 {
    f32::from_bits(u32::from(value) << 16)
}

/// The two values of a bf16 unit, the one of smaller k first.
#[inline(always)]
pub(super) fn halves(unit: u32) -> [f32; 2] {
    [from_bf16(unit as u16), from_bf16((unit >> 16) as u16)]
}

#[inline(always)]
fn round_pairs_body<const FMA: bool>(src: &[[f32; 2]], dst: &mut [u32]) {
    for (unit, [low, high]) in dst.iter_mut().zip(src) {
        *unit = u32::from(to_bf16(*low)) | u32::from(to_bf16(*high)) << 16;
    }
}
simd_fn!(fn round_pairs(src: &[[f32; 2]], dst: &mut [u32]) = round_pairs_body);

/// Rounds a row to bf16 units; units beyond the row are zero.
pub(super) fn encode_bf16(row: &[f32], units: &mut [u32]) {
    let n_units = row.len().div_ceil(2);
    assert!(n_units <= units.len(), "{} values into {} units", row.len(), units.len());
    let mut done = 0;
    #[cfg(target_arch = "x86_64")]
    if has_avx512_bf16() {
        // SAFETY: the instructions are there, the units were counted.
        done = unsafe { super::avx512::round_bf16(row, units.as_mut_ptr()) };
    }
    let (pairs, last) = row[done..].as_chunks::<2>();
    round_pairs(pairs, &mut units[done / 2..]);
    if let [last] = last {
        units[n_units - 1] = u32::from(to_bf16(*last));
    }
    units[n_units..].fill(0);
}

/// Whether the machine multiplies pairs of bf16.
pub(super) fn has_avx512_bf16() -> bool {
    #[cfg(target_arch = "x86_64")]
    return isa() == Isa::Avx512 && is_x86_feature_detected!("avx512bf16");
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// `dst[c][r] = src[r][c]` for `rows` by `cols` units.
pub(super) fn transpose(
    (rows, cols): (usize, usize),
    src: &[u32],
    src_stride: usize,
    dst: &mut [u32],
    dst_stride: usize,
) {
    if rows == 0 || cols == 0 {
        return;
    }
    assert!((rows - 1) * src_stride + cols <= src.len() && (cols - 1) * dst_stride + rows <= dst.len());
    const BLOCK: usize = 16;
    for c in (0..cols).step_by(BLOCK) {
        for r in (0..rows).step_by(BLOCK) {
            let (down, across) = (BLOCK.min(rows - r), BLOCK.min(cols - c));
            let (src, dst) = (&src[r * src_stride + c..], &mut dst[c * dst_stride + r..]);
            #[cfg(target_arch = "x86_64")]
            if down == BLOCK && across == BLOCK && isa() == Isa::Avx512 {
                // SAFETY: the instructions are there, and both hold the block as asserted.
                unsafe { super::avx512::transpose16(src.as_ptr(), src_stride, dst.as_mut_ptr(), dst_stride) };
                continue;
            }
            for c in 0..across {
                for r in 0..down {
                    dst[c * dst_stride + r] = src[r * src_stride + c];
                }
            }
        }
    }
}

/// Column `column` of an `f32` panel, which is a row of the matrix.
pub(super) fn unpack_f32(panel: &[u32], column: usize, out: &mut [f32]) {
    for (out, units) in out.iter_mut().zip(panel.chunks_exact(PANEL)) {
        *out = f32::from_bits(units[column]);
    }
}

/// Column `column` of a bf16 panel.
pub(super) fn unpack_bf16(panel: &[u32], column: usize, out: &mut [f32]) {
    for (out, units) in out.chunks_mut(2).zip(panel.chunks_exact(PANEL)) {
        for (out, value) in out.iter_mut().zip(halves(units[column])) {
            *out = value;
        }
    }
}

/// A bf16 panel as an `f32` one of `k` values: `panel` has at least half as many units.
pub(super) fn widen(k: usize, panel: &[u32], out: &mut [f32]) {
    for (out, units) in out[..k * PANEL].chunks_mut(2 * PANEL).zip(panel.chunks_exact(PANEL)) {
        for (h, out) in out.chunks_exact_mut(PANEL).enumerate() {
            for (out, unit) in out.iter_mut().zip(units) {
                *out = halves(*unit)[h];
            }
        }
    }
}

/// Block of the transposed matrix: `cols` columns of k from `from` (at most 32, beginning at a multiple of 32) for
/// the `rows` first columns of an `f32` panel, as `[rows][32]`. Columns that do not exist are zero.
pub(super) fn turn_f32(panel: &[u32], from: usize, (rows, cols): (usize, usize), out: &mut [f32]) {
    if cols < PANEL {
        out[..rows * PANEL].fill(0.0);
    }
    let out = super::memory::as_units_mut(out);
    transpose((cols, rows), &panel[from * PANEL..], PANEL, out, PANEL);
}

/// [`turn_f32`] of a bf16 panel, whose k is padded to a multiple of 32.
pub(super) fn turn_bf16(panel: &[u32], from: usize, rows: usize, out: &mut [f32]) {
    let mut pairs = [0u32; PANEL / 2 * PANEL];
    transpose((PANEL / 2, rows), &panel[from / 2 * PANEL..], PANEL, &mut pairs, PANEL / 2);
    for (out, pairs) in out.as_chunks_mut::<PANEL>().0[..rows].iter_mut().zip(pairs.chunks_exact(PANEL / 2)) {
        for (out, pair) in out.as_chunks_mut::<2>().0.iter_mut().zip(pairs) {
            *out = halves(*pair);
        }
    }
}

/// Block of the transposed matrix, `[16][32]` pairs along its rows, for 32 values of k of a bf16 panel from its beginning:
/// rows that do not exist are zero, as in the panel.
pub(super) fn turn_pairs(panel: &[u32], out: &mut [u32]) {
    let (rows, _) = panel.as_chunks::<PANEL>();
    for (i, out) in out.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
        for (out, pairs) in out.as_chunks_mut::<2>().0.iter_mut().zip(rows) {
            let (first, second) = (pairs[2 * i], pairs[2 * i + 1]);
            *out = [first & 0xffff | second << 16, first >> 16 | second & 0xffff_0000];
        }
    }
}

/// Between these, the largest of a row's values has parts of bf16 and products with parts that lose nothing at the ends
/// of the range, where the matrix unit knows no denormals.
pub(super) const SPLIT_FROM: f32 = 8.881_784e-16; // 2^-50
/// See [`SPLIT_FROM`].
pub(super) const SPLIT_TO: f32 = 1.125_899_9e15; // 2^50

/// Whether values of which the largest has these bits, without its sign, [can be split](can_split). Sizes are in the order
/// of their bits, with infinities and NaNs above all; so whole numbers are compared, which is done in vectors.
#[inline(always)]
pub(super) fn splits_up_to(max: u32) -> bool {
    max == 0 || (SPLIT_FROM.to_bits()..=SPLIT_TO.to_bits()).contains(&max)
}

#[inline(always)]
fn can_split_body<const FMA: bool>(row: &[f32]) -> bool {
    splits_up_to(row.iter().fold(0, |max, v| v.abs().to_bits().max(max)))
}
simd_fn!(
    /// Whether a row can be multiplied by parts of bf16 without loss: it is zero, or of a middling size.
    pub(super) fn can_split(row: &[f32]) -> bool = can_split_body
);
