//! The gradient of a matrix: `dy^T x`, a product whose sums run over rows.
//!
//! The rows of `x` are panels already, but for their order in memory: value k of a panel is a stretch of a row. The matrix
//! unit's product by parts reads them, and the columns of `dy`, where they are. For other kernels they are copied, `dy` is
//! turned, and the product is that of any weights.

use std::ops::Range;

use super::drive::{self, Job, Operand, Weights};
use super::layout;
use super::memory::{Scratch, as_floats_mut, as_units, as_units_mut};
#[cfg(target_arch = "x86_64")]
use super::parts;
use super::tile::PANEL;
use super::{Keep, Path};
use crate::cpu::simd::simd_fn;
use crate::cpu::{Shared, for_chunks};

/// Rows whose products are summed at a time: the turned rows and the panels stay in the outer caches.
const ROWS: usize = 2048;

/// `dw[n, k] = dy[m, n]^T x[m, k]`, its operands rounded to bf16 if that is how the matrix is kept and the machine
/// multiplies it.
pub fn weight_gradient(keep: Option<Keep>, (m, n, k): (usize, usize, usize), dy: &[f32], x: &[f32], dw: &mut [f32]) {
    gradient_with(Path::best(), keep, (m, n, k), dy, x, dw);
}

/// [`weight_gradient`] on kernels that the machine must have.
pub(super) fn gradient_with(
    path: Path,
    keep: Option<Keep>,
    (m, n, k): (usize, usize, usize),
    dy: &[f32],
    x: &[f32],
    dw: &mut [f32],
) {
    assert!(dy.len() == m * n && x.len() == m * k && dw.len() == n * k, "gradient of {n}x{k} over {m} rows");
    if m == 0 {
        dw.fill(0.0);
    }
    #[cfg(target_arch = "x86_64")]
    let rounded = keep == Some(Keep::Bf16) && path == Path::Amx;
    #[cfg(not(target_arch = "x86_64"))]
    let rounded = false;
    let out = Shared(dw.as_mut_ptr());
    let each = match rounded {
        // The kernel of bf16 begins its sums anew.
        true => m.max(1),
        #[cfg(target_arch = "x86_64")]
        false if by_parts(path, n, k) => parts::rows_of_gradient(k),
        false => ROWS,
    };
    for from in (0..m).step_by(each) {
        let shape = (each.min(m - from), n, k);
        let (dy, x) = (&dy[from * n..(from + shape.0) * n], &x[from * k..(from + shape.0) * k]);
        let left = match rounded {
            true => vec![Range { start: 0, end: n }],
            false => left_by_parts(path, shape, dy, x, out, from > 0),
        };
        by_panels((path, rounded), shape, &left, dy, x, out, from > 0);
    }
}

/// Multiplies on the matrix unit by parts where that can be done. The rows of the result that are left.
fn left_by_parts(
    path: Path,
    shape: (usize, usize, usize),
    dy: &[f32],
    x: &[f32],
    out: Shared,
    resume: bool,
) -> Vec<Range<usize>> {
    let (_, n, k) = shape;
    #[cfg(target_arch = "x86_64")]
    if by_parts(path, n, k)
        && let Some(left) = parts::gradient(shape, dy, x, out, resume)
    {
        return left.chunk_by(|a, b| a + 1 == *b).map(|rows| rows[0]..rows[0] + rows.len()).collect();
    }
    let _ = (path, k, dy, x, out, resume);
    vec![Range { start: 0, end: n }]
}

/// Whether products by parts are worth their cost here.
#[cfg(target_arch = "x86_64")]
fn by_parts(path: Path, n: usize, k: usize) -> bool {
    path == Path::Amx && n >= parts::FROM_ROWS && k > 0
}

/// Some rows of the result, as a product like that of weights.
fn by_panels(
    (path, rounded): (Path, bool),
    (m, n, k): (usize, usize, usize),
    left: &[Range<usize>],
    dy: &[f32],
    x: &[f32],
    out: Shared,
    resume: bool,
) {
    if left.is_empty() {
        return;
    }
    let (mut panels, mut scratch) = (Scratch::panels(), Scratch::rows());
    let stride = PANEL * if rounded { m.next_multiple_of(32) / 2 } else { m };
    let units = panels.units(k.div_ceil(PANEL) * stride);
    match rounded {
        true => pairs(x, (m, k), stride, units),
        false => copies(x, (m, k), stride, units),
    }
    let w = Operand { weights: Weights::There { units, stride }, bias: None };
    for rows in left {
        let turned = scratch.floats(rows.len() * m);
        turn(&dy[rows.start..], (m, rows.len(), n), turned);
        // SAFETY: the row is in the output.
        let out = Shared(unsafe { out.at(rows.start * k) });
        let job = Job { m: rows.len(), cols: k, k: m, x: turned, x_stride: m, w, gate: None, out, resume };
        #[cfg(target_arch = "x86_64")]
        if rounded {
            super::amx::product(&job);
            continue;
        }
        drive::product(&job, path.floats());
    }
}

/// `turned[n, m] = dy[m, n]^T`, for `n` columns of rows `stride` apart.
fn turn(dy: &[f32], (m, n, stride): (usize, usize, usize), turned: &mut [f32]) {
    // A block of columns at a time, so that threads have something to share.
    for_chunks(turned, m * PANEL, |c, out| {
        let rows = out.len() / m;
        debug_assert!(c * PANEL + rows <= n);
        layout::transpose((m, rows), &as_units(dy)[c * PANEL..], stride, as_units_mut(out), m);
    });
}

/// The rows of `x` as panels.
fn copies(x: &[f32], (m, k): (usize, usize), stride: usize, units: &mut [u32]) {
    for_chunks(as_floats_mut(units), stride, |panel, out| {
        let cols = PANEL.min(k - panel * PANEL);
        for (out, row) in out.as_chunks_mut::<PANEL>().0[..m].iter_mut().zip(x.chunks_exact(k)) {
            out[..cols].copy_from_slice(&row[panel * PANEL..][..cols]);
            out[cols..].fill(0.0);
        }
    });
}

/// The rows of `x`, rounded, as panels of pairs.
fn pairs(x: &[f32], (m, k): (usize, usize), stride: usize, units: &mut [u32]) {
    for_chunks(units, stride, |panel, out| {
        let cols = PANEL.min(k - panel * PANEL);
        for (pair, out) in out.as_chunks_mut::<PANEL>().0.iter_mut().enumerate() {
            let half = |h: usize| match 2 * pair + h {
                row if row < m => &x[row * k + panel * PANEL..][..cols],
                _ => &[],
            };
            let (low, high) = (half(0), half(1));
            if low.len() == PANEL && high.len() == PANEL {
                round_row_pair(low, high, out);
            } else {
                out.fill(0);
                out.iter_mut().zip(low).for_each(|(unit, v)| *unit = u32::from(layout::to_bf16(*v)));
                out.iter_mut().zip(high).for_each(|(unit, v)| *unit |= u32::from(layout::to_bf16(*v)) << 16);
            }
        }
    });
}

simd_fn!(
    /// Units of two rows' values, those of the first in the low halves.
    fn round_row_pair(low: &[f32], high: &[f32], out: &mut [u32; PANEL]) = round_row_pair_body
);

#[inline(always)]
fn round_row_pair_body<const FMA: bool>(low: &[f32], high: &[f32], out: &mut [u32; PANEL]) {
    for ((unit, low), high) in out.iter_mut().zip(low).zip(high) {
        *unit = u32::from(layout::to_bf16(*low)) | u32::from(layout::to_bf16(*high)) << 16;
    }
}
