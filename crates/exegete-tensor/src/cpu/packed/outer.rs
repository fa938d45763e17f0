//! The gradient of a matrix: `dy^T x`, a product whose sums run over rows.
//!
//! The rows of `x` are panels already, but for their order in memory: value k of a panel is a stretch of a row. So they
//! are copied, `dy` is turned, and the product is that of any weights.

use super::drive::{Job, Operand, Weights};
use super::layout;
use super::memory::{Scratch, as_floats_mut, as_units, as_units_mut};
use super::tile::PANEL;
use super::{Keep, Path, product_of_floats};
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
    let panels = k.div_ceil(PANEL);
    let out = Shared(dw.as_mut_ptr());
    // The kernel of bf16 begins its sums anew.
    let each = if rounded { m.max(1) } else { ROWS };
    let (mut scratch, mut turned) = (Scratch::panels(), Scratch::rows());
    for from in (0..m).step_by(each) {
        let count = each.min(m - from);
        let (dy, x) = (&dy[from * n..(from + count) * n], &x[from * k..(from + count) * k]);
        let turned = turned.floats(n * count);
        turn(dy, (count, n), turned);
        let stride = PANEL * if rounded { count.next_multiple_of(32) / 2 } else { count };
        let units = scratch.units(panels * stride);
        let can_split = match rounded {
            true => pairs(x, (count, k), stride, units),
            false => copies(x, (count, k), stride, units),
        };
        let w = Operand { weights: Weights::There { units, stride }, bias: None };
        let job = Job { m: n, cols: k, k: count, x: turned, x_stride: count, w, gate: None, out, resume: from > 0 };
        #[cfg(target_arch = "x86_64")]
        if rounded {
            super::amx::product(&job);
            continue;
        }
        product_of_floats(path, &job, can_split);
    }
}

/// `turned[n, m] = dy[m, n]^T`
fn turn(dy: &[f32], (m, n): (usize, usize), turned: &mut [f32]) {
    // A block of columns at a time, so that threads have something to share.
    for_chunks(turned, m * PANEL, |c, out| {
        let rows = out.len() / m;
        layout::transpose((m, rows), &as_units(dy)[c * PANEL..], n, as_units_mut(out), m);
    });
}

/// The rows of `x` as panels; whether all their columns can be split.
fn copies(x: &[f32], (m, k): (usize, usize), stride: usize, units: &mut [u32]) -> bool {
    let all = std::sync::atomic::AtomicBool::new(true);
    for_chunks(as_floats_mut(units), stride, |panel, out| {
        let cols = PANEL.min(k - panel * PANEL);
        let mut max = [0u32; PANEL];
        for (out, row) in out.as_chunks_mut::<PANEL>().0[..m].iter_mut().zip(x.chunks_exact(k)) {
            let row = &row[panel * PANEL..][..cols];
            out[..cols].copy_from_slice(row);
            out[cols..].fill(0.0);
            max.iter_mut().zip(out.iter()).for_each(|(max, v)| *max = v.abs().to_bits().max(*max));
        }
        if !max.iter().all(|max| layout::can_split(&[f32::from_bits(*max)])) {
            all.store(false, std::sync::atomic::Ordering::Relaxed);
        }
    });
    all.into_inner()
}

/// The rows of `x`, rounded, as panels of pairs.
fn pairs(x: &[f32], (m, k): (usize, usize), stride: usize, units: &mut [u32]) -> bool {
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
    true
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
