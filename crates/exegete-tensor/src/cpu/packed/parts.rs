//! `f32` products of many rows on the matrix unit (AMX), which multiplies bf16.
//!
//! An `f32` is the sum of three bf16 values exactly: 24 bits in three times 8. Of the nine products of such parts the
//! six largest are taken; what is left out is below 2^-24 of the product, the rounding of one `f32` operation (Henry,
//! Tang and Heinecke 2019, "Leveraging the bfloat16 artificial intelligence datatype for higher-precision
//! computations"). Sums are `f32`: in each slice of k the small products first and the large ones on top, and the
//! slices one after the other, so that errors are those of the vector kernel. That costs six times the
//! multiplications, and the unit is more than twelve times as fast.
//!
//! Infinities and NaNs have no parts, and at the ends of the range the unit loses bits: rows and matrices that reach
//! there stay with the vector kernel.

use std::arch::asm;
use std::arch::x86_64::*;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use super::amx::{configure, release};
use super::drive::{Job, Operand, Weights, part, read, write};
use super::layout;
use super::memory::{Scratch, as_floats_mut, as_units};
use super::tile::{PANEL, SLICE};
use crate::cpu::{Shared, for_chunks, team};

/// Rows from which splitting the weights costs less than it gains.
pub(super) const FROM_ROWS: usize = 96;

/// Parts of a value.
const PARTS: usize = 3;
/// Values of k in a step.
const DEPTH: usize = 32;
/// Steps of a slice of k. Sums over longer ones would be faster by little and less exact.
const STEPS: usize = 3 * SLICE / DEPTH;
/// Units of a tile register.
const TILE_UNITS: usize = 16 * 16;
/// Rows that go together: two tiles.
const ROWS: usize = 32;
/// Units of a step of [`ROWS`] rows, and of a panel: two tiles, each in three parts.
const STEP_UNITS: usize = 2 * PARTS * TILE_UNITS;
/// Groups of rows that a task takes at a time.
const BLOCK: usize = 4;
/// Units of split panels that a product holds at a time. They stream from the outer caches, once for each block of rows.
const PANEL_UNITS: usize = 1024 * 1024;
/// Tasks for each thread, where there are rows for as many: a thread whose unit is held up by other users of the machine
/// does fewer.
const TASKS_EACH: usize = 4;

/// Computes a product of `f32` panels but for the rows that cannot be split, whose numbers it returns in order: their sums are
/// left as they were if the job resumes, and else anything. Nothing at all is done, and none is returned, if there are
/// columns that cannot be split; it is looked for them unless `all_split` says that there are none. Nothing is empty.
pub(super) fn product(job: &Job, all_split: bool) -> Option<Vec<usize>> {
    let panels = job.operands().map(|operand| {
        let Weights::There { units, stride } = operand.weights else { unreachable!("only panels in memory are split") };
        Panels { units, next_k: PANEL, next: stride, cols: usize::MAX }
    });
    let panels = panels.collect::<Vec<_>>();
    let at_once = PANEL_UNITS / (panels.len() * job.k.div_ceil(DEPTH) * STEP_UNITS);
    multiply(job, Rows::There, (&panels, all_split), at_once)
}

/// Rows whose products [`gradient`] can sum at a time, for `k` columns: the parts of these are kept.
pub(super) fn rows_of_gradient(k: usize) -> usize {
    (PANEL_UNITS / (k.div_ceil(PANEL).max(1) * STEP_UNITS)).clamp(8, 64) * DEPTH
}

/// `out[n, k] = dy[m, n]^T x[m, k]`, or added to `out`, but for the rows of `out` whose numbers it returns, as [`product`]
/// does. Nothing at all is done, and none is returned, if there are columns of `x` that cannot be split. Nothing is empty.
pub(super) fn gradient(
    (m, n, k): (usize, usize, usize),
    dy: &[f32],
    x: &[f32],
    out: Shared,
    resume: bool,
) -> Option<Vec<usize>> {
    let w = Operand { weights: Weights::There { units: &[], stride: 0 }, bias: None };
    let job = Job { m: n, cols: k, k: m, x: dy, x_stride: n, w, gate: None, out, resume };
    let panels = Panels { units: as_units(x), next_k: k, next: PANEL, cols: k };
    multiply(&job, Rows::Turned, (&[panels], false), usize::MAX)
}

/// How the rows of a product lie in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// Each in one stretch.
    There,
    /// As columns: value k of all rows is a stretch.
    Turned,
}

/// Where the columns of a product are, 32 together.
#[derive(Clone, Copy)]
struct Panels<'a> {
    units: &'a [u32],
    /// Distance between values of k.
    next_k: usize,
    /// Distance between panels.
    next: usize,
    /// Columns that are there; beyond them the last panel is not read.
    cols: usize,
}

/// [`product`], wherever rows and columns are, with `at_once` panels at a time; none if one of them cannot be split.
///
/// The panels are split once. Rows are split by the task that multiplies them, so that their parts, six bytes a value, are
/// read from the second-level cache; through memory they would come more slowly than the unit takes them.
fn multiply(job: &Job, rows: Rows, (operands, all_split): (&[Panels], bool), at_once: usize) -> Option<Vec<usize>> {
    let (groups, steps) = (job.m.div_ceil(ROWS), job.k.div_ceil(DEPTH));
    let panel_units = steps * STEP_UNITS;
    let panels = job.cols.div_ceil(PANEL);
    let at_once = at_once.clamp(1, panels);
    let tasks = groups.min((TASKS_EACH * rayon::current_num_threads()).max(groups.div_ceil(BLOCK)));
    let (left, all_fit) = (Mutex::new(Vec::new()), AtomicBool::new(true));
    let mut scratch = Scratch::columns();
    // Where not all panels are held at a time, all that are not known are looked at before anything is written.
    let looks = if at_once < panels && !all_split { 0..panels } else { 0..0 };
    let passes =
        looks.step_by(at_once).map(|first| (first, true)).chain((0..panels).step_by(at_once).map(|f| (f, false)));
    for (first, only_looks) in passes {
        let here = first..(first + at_once).min(panels);
        let split = scratch.units(operands.len() * here.len() * panel_units);
        for_chunks(split, panel_units, |i, split| {
            let (from, panel) = (&operands[i / here.len()], here.start + i % here.len());
            let cols = PANEL.min(from.cols - panel * PANEL);
            // SAFETY: the machine has the instructions, by the caller; a panel has `steps` steps.
            let fits = unsafe { split_panel(&from.units[panel * from.next..], (job.k, cols, from.next_k), split) };
            if !fits {
                all_fit.store(false, Relaxed);
            }
        });
        if !all_fit.load(Relaxed) {
            return None;
        }
        if only_looks {
            continue;
        }
        let split = &*split;
        team::for_tasks(tasks, |t| {
            let unfit = block((job, rows), split, steps, &part(groups, tasks, t), &here);
            if first == 0 && !unfit.is_empty() {
                left.lock().unwrap_or_else(PoisonError::into_inner).extend(unfit);
            }
        });
    }
    let mut left = left.into_inner().unwrap_or_else(PoisonError::into_inner);
    left.sort_unstable();
    Some(left)
}

/// One task: some groups of rows by some panels, whose parts are in `split`. The rows that cannot be split.
fn block(
    (job, kind): (&Job, Rows),
    split: &[u32],
    steps: usize,
    groups: &Range<usize>,
    panels: &Range<usize>,
) -> Vec<usize> {
    let panel_units = steps * STEP_UNITS;
    let rows = groups.start * ROWS..(groups.end * ROWS).min(job.m);
    let (mut scratch, mut columns, mut sums) = (Scratch::parts(), Scratch::rows(), Scratch::sums());
    let parts = scratch.units(groups.len() * STEPS.min(steps) * STEP_UNITS);
    let pitch = groups.len() * ROWS;
    let sums = sums.floats(split.len() / panel_units * pitch * PANEL);
    if job.resume {
        read(job, &rows, pitch, panels, sums);
    }
    let mut sizes = vec![0; rows.len()];
    // SAFETY: the unit is there and allowed, by the caller; no other code of this thread uses it meanwhile.
    unsafe { configure() };
    for slice in (0..steps).step_by(STEPS) {
        let len = STEPS.min(steps - slice);
        let group_units = len * STEP_UNITS;
        let here = slice * DEPTH..job.k.min((slice + len) * DEPTH);
        for (i, parts) in parts[..groups.len() * group_units].chunks_exact_mut(group_units).enumerate() {
            let group = rows.start + i * ROWS..rows.end.min(rows.start + (i + 1) * ROWS);
            let (x, stride) = match kind {
                Rows::There => (&job.x[group.start * job.x_stride + here.start..], job.x_stride),
                Rows::Turned => {
                    let turned = columns.units(ROWS * here.len());
                    let from = &as_units(job.x)[here.start * job.x_stride + group.start..];
                    layout::transpose((here.len(), group.len()), from, job.x_stride, turned, here.len());
                    (&*as_floats_mut(turned), here.len())
                }
            };
            for r in 0..ROWS {
                let row = if r < group.len() { &x[r * stride..][..here.len()] } else { &[] };
                let to = &mut parts[r / 16 * PARTS * TILE_UNITS + r % 16 * 16..];
                // SAFETY: the machine has the instructions, by the caller; a group has `len` steps.
                let size = unsafe { split_row(row, len, to.as_mut_ptr()) };
                if let Some(all) = sizes.get_mut(i * ROWS + r) {
                    *all = size.max(*all);
                }
            }
        }
        for (w, sums) in split.chunks_exact(panel_units).zip(sums.chunks_exact_mut(pitch * PANEL)) {
            let w = w[slice * STEP_UNITS..][..group_units].as_ptr();
            let groups = parts.chunks_exact(group_units).zip(sums.as_chunks_mut::<{ ROWS * PANEL }>().0);
            for (x, sums) in groups {
                // SAFETY: the unit is configured, and rows and panel have `len` steps.
                unsafe { slice_product(len, x.as_ptr(), w, sums, job.resume || slice > 0) };
            }
        }
    }
    // SAFETY: as for `configure`.
    unsafe { release() };
    let unfit: Vec<usize> = rows.clone().filter(|row| !layout::splits_up_to(sizes[row - rows.start])).collect();
    if job.resume {
        for (panel, sums) in panels.clone().zip(sums.chunks_exact_mut(pitch * PANEL)) {
            for row in &unfit {
                let sums = &mut sums[(row - rows.start) * PANEL..][..PANEL];
                read(job, &(*row..row + 1), 1, &(panel..panel + 1), sums);
            }
        }
    }
    write(job, rows, pitch, panels, sums);
    unfit
}

/// Splits pairs of values into their parts: units whose low half is of the first of a pair.
///
/// # Safety
/// AVX-512 F, BW and BF16 are there.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
#[inline]
unsafe fn split_pairs(mut first: __m512, mut second: __m512) -> [__m512i; PARTS] {
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    // From the first ones, then the second ones, to pairs.
    let pairs = _mm512_add_epi32(
        _mm512_set1_epi32(16 << 16),
        _mm512_mullo_epi32(
            _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
            _mm512_set1_epi32(0x0001_0001),
        ),
    );
    let mut parts = [_mm512_setzero_si512(); PARTS];
    for part in &mut parts {
        // SAFETY: vectors of the same size, of which every bit pattern is valid.
        let rounded = unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(second, first)) };
        *part = _mm512_permutexvar_epi16(pairs, rounded);
        // What is left is exact: the bits that the rounding dropped.
        first = _mm512_sub_ps(first, _mm512_castsi512_ps(_mm512_slli_epi32::<16>(*part)));
        second = _mm512_sub_ps(second, _mm512_castsi512_ps(_mm512_and_si512(*part, upper)));
    }
    parts
}

/// Parts of a row, each step's at the same place of its tile; what is beyond the row is zero. The bits of the largest value.
///
/// # Safety
/// AVX-512 F, BW and BF16 are there; at `to` there are `steps` steps.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn split_row(x: &[f32], steps: usize, to: *mut u32) -> u32 {
    // Pairs of neighbours along k, as the unit wants them: even ones in the low halves of the units.
    let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
    let mut sizes = _mm512_setzero_si512();
    for step in 0..steps {
        let here = &x[(step * DEPTH).min(x.len())..((step + 1) * DEPTH).min(x.len())];
        let all = if here.len() == DEPTH { u32::MAX } else { (1u32 << here.len()) - 1 };
        // SAFETY: the masks keep to the row; a step has three tiles of 16 rows for it.
        unsafe {
            let first = _mm512_maskz_loadu_ps(all as u16, here.as_ptr());
            let second = _mm512_maskz_loadu_ps((all >> 16) as u16, here.as_ptr().wrapping_add(16));
            sizes = larger(larger(sizes, first), second);
            let low = _mm512_permutex2var_ps(first, even, second);
            let high = _mm512_permutex2var_ps(first, odd, second);
            for (i, part) in split_pairs(low, high).into_iter().enumerate() {
                _mm512_storeu_si512(to.add(step * STEP_UNITS + i * TILE_UNITS).cast(), part);
            }
        }
    }
    _mm512_reduce_max_epu32(sizes)
}

/// The larger of `sizes` and the bits of the sizes of `values`.
#[target_feature(enable = "avx512f")]
#[inline]
fn larger(sizes: __m512i, values: __m512) -> __m512i {
    _mm512_max_epu32(sizes, _mm512_and_si512(_mm512_castps_si512(values), _mm512_set1_epi32(i32::MAX)))
}

/// Parts of a panel of `k` times `cols` values, `next_k` apart, each step's columns in two tiles; what is beyond is zero.
/// Whether all columns [can be split](layout::can_split).
///
/// # Safety
/// AVX-512 F, BW and BF16 are there; `out` holds the steps of `k`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn split_panel(panel: &[u32], (k, cols, next_k): (usize, usize, usize), out: &mut [u32]) -> bool {
    assert!(cols <= PANEL && (k - 1) * next_k + cols <= panel.len(), "a panel ends too early");
    let mut sizes = [_mm512_setzero_si512(); 2];
    let masks = [0, 16].map(|from| ((1u32 << cols.saturating_sub(from).min(16)) - 1) as u16);
    for (step, out) in out.chunks_exact_mut(STEP_UNITS).enumerate() {
        for pair in 0..DEPTH / 2 {
            let row = |i: usize, half: usize| {
                let at = step * DEPTH + pair * 2 + i;
                let mask = if at < k { masks[half] } else { 0 };
                // SAFETY: the mask keeps to the row, which is in the panel.
                unsafe { _mm512_maskz_loadu_ps(mask, panel.as_ptr().wrapping_add(at * next_k + half * 16).cast()) }
            };
            for half in 0..2 {
                // SAFETY: the instructions are there; the step has two times three tiles of 16 pairs.
                unsafe {
                    let [first, second] = [row(0, half), row(1, half)];
                    sizes[half] = larger(larger(sizes[half], first), second);
                    for (i, part) in split_pairs(first, second).into_iter().enumerate() {
                        let to = &mut out[(half * PARTS + i) * TILE_UNITS + pair * 16..][..16];
                        _mm512_storeu_si512(to.as_mut_ptr().cast(), part);
                    }
                }
            }
        }
    }
    sizes.into_iter().all(|sizes| {
        let mut each = [0u32; 16];
        // SAFETY: a vector of the same size.
        unsafe { _mm512_storeu_si512(each.as_mut_ptr().cast(), sizes) };
        each.into_iter().all(layout::splits_up_to)
    })
}

/// [`ROWS`] rows by one panel over a slice: `sums[32][32]`, overwritten or added to.
///
/// # Safety
/// The unit is configured and AVX-512 is there; `x` and `w` point at `steps` steps.
#[target_feature(enable = "avx512f")]
unsafe fn slice_product(steps: usize, x: *const u32, w: *const u32, sums: &mut [f32; ROWS * PANEL], resume: bool) {
    #[repr(align(64))]
    struct Sums([f32; ROWS * PANEL]);
    let mut slice = std::mem::MaybeUninit::<Sums>::uninit();
    let out = if resume { slice.as_mut_ptr().cast() } else { sums.as_mut_ptr() };
    // SAFETY: by the caller's promise; all of `slice` is written before it is read.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            // The parts of rows are tmm4 and tmm5, those of columns tmm6 and tmm7; a part of the order of 2^-8 of a
            // value is "middle", one of 2^-16 "low".
            "mov {i}, {steps}",
            "2:",
            // High by low.
            "tileloadd tmm4, [{x} + {s64}*1]",
            "tileloadd tmm6, [{w} + {s64}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {s64}*1 + 5120]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x} + {s64}*1 + 3072]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // High by middle.
            "tileloadd tmm6, [{w} + {s64}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {s64}*1 + 4096]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Middle by middle.
            "tileloadd tmm4, [{x} + {s64}*1 + 1024]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x} + {s64}*1 + 4096]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Middle by high.
            "tileloadd tmm6, [{w} + {s64}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {s64}*1 + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            // Low by high.
            "tileloadd tmm4, [{x} + {s64}*1 + 2048]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x} + {s64}*1 + 5120]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {x}, {step}",
            "add {w}, {step}",
            "dec {i}",
            "jnz 2b",
            "sub {x}, {back}",
            "sub {w}, {back}",
            // High by high, on top of all small ones.
            "3:",
            "tileloadd tmm4, [{x} + {s64}*1]",
            "tileloadd tmm6, [{w} + {s64}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm7, [{w} + {s64}*1 + 3072]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tileloadd tmm5, [{x} + {s64}*1 + 3072]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {x}, {step}",
            "add {w}, {step}",
            "dec {steps}",
            "jnz 3b",
            "tilestored [{out} + {s128}*1], tmm0",
            "tilestored [{out} + {s128}*1 + 64], tmm1",
            "tilestored [{out} + {s128}*1 + 2048], tmm2",
            "tilestored [{out} + {s128}*1 + 2112], tmm3",
            x = inout(reg) x => _,
            w = inout(reg) w => _,
            steps = inout(reg) steps => _,
            i = out(reg) _,
            out = in(reg) out,
            back = in(reg) steps * STEP_UNITS * size_of::<u32>(),
            s64 = in(reg) 64usize,
            s128 = in(reg) 128usize,
            step = const STEP_UNITS * size_of::<u32>(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
        if !resume {
            return;
        }
        let Sums(slice) = slice.assume_init_ref();
        for (sums, slice) in sums.as_chunks_mut::<16>().0.iter_mut().zip(slice.as_chunks::<16>().0) {
            let sum = _mm512_add_ps(_mm512_loadu_ps(sums.as_ptr()), _mm512_load_ps(slice.as_ptr()));
            _mm512_storeu_ps(sums.as_mut_ptr(), sum);
        }
    }
}
