//! The kernel that everything else feeds: a tile of output, some rows by one panel of 32 columns, summed over one
//! slice of k. Here its portable form; `avx512` has the form for that machine.
//!
//! One accumulator for one output takes a slice of k in order and is then added to what earlier slices gave: an output
//! is a sum of chains of [`SLICE`] multiply-adds, whatever the tile, the blocking or the number of threads. One chain
//! over all of k would be as fast and less exact: over the 49,152 outputs of an unembedding, the backward pass of a
//! model of 30 layers ended 2e-4 off (relative L2), with slices below 1e-5.

use crate::cpu::simd::{BASELINE_FMA, Isa, madd};

/// Columns of a panel.
pub(super) const PANEL: usize = 32;

/// Units of k in one slice: a slice of a panel (24 KiB) and the rows of a tile (10.5 KiB) stay in the first-level
/// cache together.
pub(super) const SLICE: usize = 192;

/// What a tile kernel works on. A unit is an `f32`, or a pair of bf16 along k.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Rows, at most the kernel's.
    pub(super) rows: usize,
    /// Units of k.
    pub(super) units: usize,
    /// The rows, [`SLICE`] units apart.
    pub(super) x: *const u32,
    /// Panels, one or two.
    pub(super) panels: usize,
    /// The first panel's slice, `[units][PANEL]`.
    pub(super) w: *const u32,
    /// Units from a panel to the next.
    pub(super) w_stride: usize,
    /// The sums, `[panels][rows][PANEL]`.
    pub(super) sums: *mut f32,
    /// Whether the result is added to what is there.
    pub(super) resume: bool,
    /// Memory that will be needed later: at each unit, of both as many lines are asked for as there are panels.
    pub(super) ahead: [*const u32; 2],
    /// Bytes by which `ahead` moves at each unit.
    pub(super) ahead_step: [usize; 2],
}

/// A tile kernel of some machine.
#[derive(Clone, Copy)]
pub(super) struct Kernel {
    /// Rows of a whole tile.
    pub(super) rows: usize,
    /// The most rows with which a tile may have two panels: so few wait for memory, and two streams come faster than
    /// one after the other. None if 0.
    pub(super) pair_rows: usize,
    /// Values along k in one unit.
    pub(super) per_unit: usize,
    /// Computes a tile.
    ///
    /// # Safety
    /// The machine has the kernel's instructions, `rows` is 1 to the kernel's, or to its `pair_rows` with two
    /// panels, and the pointers are good for what [`Tile`] says.
    pub(super) run: unsafe fn(&Tile),
}

/// The kernel for `f32` panels under an instruction set, which the machine must have.
pub(super) fn kernel(isa: Isa) -> Kernel {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => super::avx512::F32,
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => Kernel { rows: ROWS, pair_rows: 0, per_unit: 1, run: avx2 },
        _ => Kernel { rows: ROWS, pair_rows: 0, per_unit: 1, run: baseline },
    }
}

/// Rows of a portable tile: with 16 columns they take 12 of the 16 registers of AVX2, or 24 of NEON's 32.
const ROWS: usize = 6;

/// Columns that the portable tile holds at a time.
const HALF: usize = 16;

/// # Safety
/// As for [`Kernel::run`].
#[inline(always)]
unsafe fn portable<const FMA: bool>(t: &Tile) {
    // SAFETY: by the caller's promise, in each.
    unsafe {
        match t.rows {
            1 => rows::<FMA, 1>(t),
            2 => rows::<FMA, 2>(t),
            3 => rows::<FMA, 3>(t),
            4 => rows::<FMA, 4>(t),
            5 => rows::<FMA, 5>(t),
            _ => rows::<FMA, ROWS>(t),
        }
    }
}

/// # Safety
/// As for [`Kernel::run`], with `t.rows == R`.
#[inline(always)]
unsafe fn rows<const FMA: bool, const R: usize>(t: &Tile) {
    for from in (0..PANEL).step_by(HALF) {
        let mut acc = [[0f32; HALF]; R];
        // SAFETY: the tile has R rows of PANEL sums.
        let sums = |r: usize| unsafe { &mut *t.sums.add(r * PANEL + from).cast::<[f32; HALF]>() };
        for i in 0..t.units {
            // SAFETY: a panel has PANEL columns at each unit.
            let w = unsafe { &*t.w.add(i * PANEL + from).cast::<[f32; HALF]>() };
            for r in 0..R {
                // SAFETY: the tile has R rows of at least `units` values.
                let x = f32::from_bits(unsafe { *t.x.add(r * SLICE + i) });
                for c in 0..HALF {
                    acc[r][c] = madd::<FMA>(x, w[c], acc[r][c]);
                }
            }
        }
        for r in 0..R {
            let sums = sums(r);
            for c in 0..HALF {
                sums[c] = if t.resume { sums[c] + acc[r][c] } else { acc[r][c] };
            }
        }
    }
}

/// # Safety
/// As for [`Kernel::run`], with AVX2 and FMA.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(t: &Tile) {
    // SAFETY: by the caller's promise.
    unsafe { portable::<true>(t) }
}

/// # Safety
/// As for [`Kernel::run`].
unsafe fn baseline(t: &Tile) {
    // SAFETY: by the caller's promise.
    unsafe { portable::<BASELINE_FMA>(t) }
}
