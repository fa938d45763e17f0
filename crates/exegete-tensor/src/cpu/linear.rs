//! Matrix products: `gemm` for many rows, our own kernel for few rows against weights stored `[out, in]`.

use rayon::prelude::*;

use super::simd::{LANES, dot_body, madd, simd_fn};
use super::{Shared, buffer};

/// A matrix inside a slice: element (r, c) is `data[r * row_stride + c * col_stride]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    /// The slice, starting at element (0, 0).
    pub data: &'a [f32],
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix of `cols` columns.
    pub fn rows(data: &'a [f32], cols: usize) -> Self {
        Self { data, row_stride: cols, col_stride: 1 }
    }

    /// The transpose, without a copy.
    pub fn t(self) -> Self {
        Self { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.data.len()
    }
}

/// What becomes of the old content of a product's destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// It is overwritten.
    Overwrite,
    /// The product is added to it.
    Add,
}

/// `dst[m, n] = alpha * lhs[m, k] rhs[k, n]`, or added to it. `dst` is row-major with the given row stride.
///
/// `threads` asks for all threads (true) or the calling one alone. The sum over k is never split.
pub fn gemm(
    (m, n, k): (usize, usize, usize),
    dst: &mut [f32],
    dst_row_stride: usize,
    into: Into,
    alpha: f32,
    lhs: Mat,
    rhs: Mat,
    threads: bool,
) {
    assert!(m == 0 || n == 0 || (m - 1) * dst_row_stride + n <= dst.len(), "gemm destination too small");
    // SAFETY: the destination holds the product, and is borrowed for the call.
    unsafe { gemm_at((m, n, k), dst.as_mut_ptr(), dst_row_stride, into, alpha, lhs, rhs, threads) }
}

/// [`gemm`](fn@gemm) into a matrix that lies between others' columns, where a slice would overlap theirs.
///
/// # Safety
/// `dst` points at `m` rows of `n` values, `dst_row_stride` apart, that nothing else touches during the call.
pub unsafe fn gemm_at(
    (m, n, k): (usize, usize, usize),
    dst: *mut f32,
    dst_row_stride: usize,
    into: Into,
    alpha: f32,
    lhs: Mat,
    rhs: Mat,
    threads: bool,
) {
    assert!(lhs.holds(m, k) && rhs.holds(k, n), "gemm operands do not hold {m}x{k} and {k}x{n}");
    let parallelism = if threads { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: the operands were checked above, the destination is the caller's promise. In gemm's own terms
    // `alpha` scales the old destination and `beta` the product.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            dst_row_stride as isize,
            into == Into::Add,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

/// Rows up to which [`linear`] uses the kernel for few rows.
///
/// Measured on two Zen 4 cores with weights `[out, in]`: see `cargo xtask bench runtime`, `decode_b16_f32`.
pub const FEW_ROWS: usize = 32;

/// `out[m, n] = x[m, k] w[n, k]^T (+ bias[n])`.
pub fn linear(m: usize, n: usize, k: usize, x: &[f32], w: &[f32], bias: Option<&[f32]>, out: &mut [f32]) {
    assert!(x.len() == m * k && w.len() == n * k && out.len() == m * n, "linear {m}x{k} by {n}x{k}");
    if m <= FEW_ROWS {
        few_rows(m, n, k, x, w, out);
    } else {
        gemm((m, n, k), out, n, Into::Overwrite, 1.0, Mat::rows(x, k), Mat::rows(w, k).t(), true);
    }
    if let Some(bias) = bias {
        super::for_rows(out, n, |_, row| row.iter_mut().zip(bias).for_each(|(o, b)| *o += b));
    }
}

/// Output features that one task computes.
const FEATURES_PER_TASK: usize = 64;

/// The product for few rows: the weights are read once, from memory, in their own order.
///
/// One row: dot products. More rows: the rows are transposed to `[k, 16]` lanes, so that a weight is broadcast
/// against 16 rows at a time and no sum across lanes is needed.
fn few_rows(m: usize, n: usize, k: usize, x: &[f32], w: &[f32], out: &mut [f32]) {
    let shared = Shared(out.as_mut_ptr());
    let run = |body: &(dyn Fn(usize, usize) + Sync)| {
        let n_tasks = n.div_ceil(FEATURES_PER_TASK);
        let task = |t: usize| body(t * FEATURES_PER_TASK, ((t + 1) * FEATURES_PER_TASK).min(n));
        if n * k < super::PARALLEL_FROM {
            (0..n_tasks).for_each(task);
        } else {
            (0..n_tasks)
                .into_par_iter()
                .with_min_len(n_tasks.div_ceil(8 * rayon::current_num_threads()))
                .for_each(task);
        }
    };
    if m == 1 {
        run(&|from, to| {
            // SAFETY: tasks own disjoint ranges of output features.
            let out = unsafe { shared.range(from, to - from) };
            matvec(k, x, &w[from * k..to * k], out);
        });
        return;
    }
    let n_groups = m.div_ceil(LANES);
    let mut lanes = buffer(n_groups * k * LANES);
    for g in 0..n_groups {
        let block = &mut lanes[g * k * LANES..(g + 1) * k * LANES];
        for (lane, row) in (g * LANES..(g + 1) * LANES).enumerate() {
            for i in 0..k {
                block[i * LANES + lane] = if row < m { x[row * k + i] } else { 0.0 };
            }
        }
    }
    run(&|from, to| {
        let mut tile = [[0f32; LANES]; TILE];
        for g in 0..n_groups {
            let block = &lanes[g * k * LANES..(g + 1) * k * LANES];
            for first in (from..to).step_by(TILE) {
                let count = TILE.min(to - first);
                broadcast_tile(k, block, &w[first * k..(first + count) * k], &mut tile);
                for lane in 0..LANES.min(m - g * LANES) {
                    // SAFETY: rows times this task's features: disjoint between tasks.
                    let row = unsafe { shared.range((g * LANES + lane) * n + first, count) };
                    for (o, acc) in row.iter_mut().zip(&tile) {
                        *o = acc[lane];
                    }
                }
            }
        }
    });
}

/// Weight rows that one tile of the broadcast kernel holds.
const TILE: usize = 8;

#[inline(always)]
fn matvec_body<const FMA: bool>(k: usize, x: &[f32], w: &[f32], out: &mut [f32]) {
    for (o, row) in out.iter_mut().zip(w.chunks_exact(k)) {
        *o = dot_body::<FMA>(row, x);
    }
}
simd_fn!(fn matvec(k: usize, x: &[f32], w: &[f32], out: &mut [f32]) = matvec_body);

/// Products of the weight rows in `w` with the rows in `lanes`; a whole tile takes the machine's own kernel if it
/// has one.
fn broadcast_tile(k: usize, lanes: &[f32], w: &[f32], tile: &mut [[f32; LANES]; TILE]) {
    #[cfg(target_arch = "x86_64")]
    if super::simd::isa() == super::simd::Isa::Avx512 && w.len() == TILE * k {
        assert!(lanes.len() >= k * LANES);
        // SAFETY: `isa` saw the instructions, and both operands hold what the kernel reads.
        unsafe { broadcast_tile_avx512(k, lanes, w, tile) };
        return;
    }
    broadcast_tile_portable(k, lanes, w, tile);
}

/// The whole tile in registers, weights broadcast from memory inside the multiply-add: one load for each.
///
/// Written out, because the portable loop is compiled to twice the loads with a bounds check on each weight: on
/// one Zen 4 core and weights in memory it reaches 46 GFLOP/s, this one 98 (77 without the prefetch), of 115.
///
/// # Safety
/// AVX-512 F is there; `lanes` holds `k * LANES` values and `w` holds `TILE * k`.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn broadcast_tile_avx512(k: usize, lanes: &[f32], w: &[f32], tile: &mut [[f32; LANES]; TILE]) {
    use std::arch::x86_64::*;
    /// Values in a cache line.
    const LINE: usize = 16;
    let mut acc = [_mm512_setzero_ps(); TILE];
    for i in 0..k {
        if i % LINE == 0 {
            for r in TILE..2 * TILE {
                // The next tile's weights. The last tile has none; a prefetch of any address is harmless.
                let next = w.as_ptr().wrapping_add(r * k + i).cast();
                _mm_prefetch::<_MM_HINT_T0>(next);
            }
        }
        // SAFETY: i < k, and by the caller's promise.
        let xs = unsafe { _mm512_loadu_ps(lanes.as_ptr().add(i * LANES)) };
        for r in 0..TILE {
            // SAFETY: r < TILE, i < k, and by the caller's promise.
            let weight = unsafe { *w.get_unchecked(r * k + i) };
            acc[r] = _mm512_fmadd_ps(_mm512_set1_ps(weight), xs, acc[r]);
        }
    }
    for (to, acc) in tile.iter_mut().zip(acc) {
        // SAFETY: the row has LANES values.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), acc) };
    }
}

#[inline(always)]
fn broadcast_tile_body<const FMA: bool>(k: usize, lanes: &[f32], w: &[f32], tile: &mut [[f32; LANES]; TILE]) {
    if w.len() == TILE * k {
        let rows: [&[f32]; TILE] = std::array::from_fn(|r| &w[r * k..(r + 1) * k]);
        let mut acc = [[0f32; LANES]; TILE];
        let (lanes, _) = lanes.as_chunks::<LANES>();
        for i in 0..k {
            let xs = &lanes[i];
            for r in 0..TILE {
                let weight = rows[r][i];
                for l in 0..LANES {
                    acc[r][l] = madd::<FMA>(weight, xs[l], acc[r][l]);
                }
            }
        }
        *tile = acc;
    } else {
        for (acc, row) in tile.iter_mut().zip(w.chunks_exact(k)) {
            *acc = [0.0; LANES];
            for (weight, xs) in row.iter().zip(lanes.chunks_exact(LANES)) {
                for l in 0..LANES {
                    acc[l] = madd::<FMA>(*weight, xs[l], acc[l]);
                }
            }
        }
    }
}
simd_fn!(
    fn broadcast_tile_portable(k: usize, lanes: &[f32], w: &[f32], tile: &mut [[f32; LANES]; TILE]) = broadcast_tile_body
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_of_rows_agrees_with_the_naive_product() {
        for (n, k) in [(1, 1), (7, 5), (70, 33), (130, 64), (65, 100)] {
            for m in [1, 2, 5, 15, 16, 17, 31, 32, 33, 50] {
                let x: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
                let w: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.3).cos()).collect();
                let bias: Vec<f32> = (0..n).map(|i| i as f32).collect();
                let mut out = vec![f32::NAN; m * n];
                linear(m, n, k, &x, &w, Some(&bias), &mut out);
                for r in 0..m {
                    for c in 0..n {
                        let want: f64 = (0..k).map(|i| f64::from(x[r * k + i]) * f64::from(w[c * k + i])).sum::<f64>()
                            + f64::from(bias[c]);
                        let got = f64::from(out[r * n + c]);
                        assert!((got - want).abs() < 1e-4, "{m}x{k} by {n}: ({r},{c}) {got} {want}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_tile_of_this_machine_equals_the_portable_one() {
        for k in [1, 15, 16, 17, 64, 100] {
            let lanes: Vec<f32> = (0..k * LANES).map(|i| (i as f32 * 0.7).sin()).collect();
            let w: Vec<f32> = (0..k * TILE).map(|i| (i as f32 * 0.3).cos()).collect();
            let mut tiles = [[[f32::NAN; LANES]; TILE]; 2];
            broadcast_tile(k, &lanes, &w, &mut tiles[0]);
            broadcast_tile_portable(k, &lanes, &w, &mut tiles[1]);
            for (got, want) in tiles[0].iter().flatten().zip(tiles[1].iter().flatten()) {
                assert_eq!(got, want, "k = {k}");
            }
        }
    }
}
