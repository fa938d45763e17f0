//! From a product to tiles: which task computes what, and in which order a task walks its part.

use std::ops::Range;

use super::layout;
use super::memory::{Scratch, as_units};
use super::tile::{Kernel, PANEL, SLICE, Tile};
use crate::cpu::activation::{Act, gated_body};
use crate::cpu::simd::simd_fn;
use crate::cpu::{Shared, team};

/// Multiply-adds below which a product is not worth waking other threads for.
pub(super) const PARALLEL_FROM: usize = 16 * 1024;

/// `out[m, cols] = x[m, k] w[cols, k]^T (+ bias)`, or added to `out`; or that, times an activation of the same with
/// the weights of a gate.
#[derive(Clone, Copy)]
pub(super) struct Job<'a> {
    /// Rows.
    pub(super) m: usize,
    /// Columns of the output.
    pub(super) cols: usize,
    /// Values summed for each output.
    pub(super) k: usize,
    /// The rows, the first value of the first row in front.
    pub(super) x: &'a [f32],
    /// Distance between rows of `x`.
    pub(super) x_stride: usize,
    /// The weights.
    pub(super) w: Operand<'a>,
    /// The activation of a gate and its weights, which are kept in the same way.
    pub(super) gate: Option<(Act, Operand<'a>)>,
    /// The output, row-major, `cols` values in a row.
    pub(super) out: Shared,
    /// Whether the sums go on from what the output holds.
    pub(super) resume: bool,
}

impl<'a> Job<'a> {
    /// The weights, and those of the gate.
    pub(super) fn operands(&self) -> impl Iterator<Item = Operand<'a>> + use<'a> {
        [self.w].into_iter().chain(self.gate.map(|(_, gate)| gate))
    }
}

/// Weights, and what is added to their product.
#[derive(Clone, Copy)]
pub(super) struct Operand<'a> {
    /// The panels.
    pub(super) weights: Weights<'a>,
    /// What is added at the end.
    pub(super) bias: Option<&'a [f32]>,
}

/// Where the panels of a product are.
#[derive(Clone, Copy)]
pub(super) enum Weights<'a> {
    /// In memory, each `stride` units long.
    There { units: &'a [u32], stride: usize },
    /// Made when they are used: `f(panel, out)` writes `[k][PANEL]` floats.
    Made(&'a (dyn Fn(usize, &mut [f32]) + Sync)),
}

/// Tiles of rows that a task takes before it is cut along rows.
const MOST_TILES: usize = 10;
/// Panels that a task takes at most: their part of the output stays in the second-level cache.
const MOST_PANELS: usize = 24;
/// Panels for which packing the rows again costs little.
const FEW_PANELS: usize = 16;
/// Tiles for which reading the weights again costs little.
const FEW_TILES: usize = 8;
/// Units of rows that a task packs at once; if it has more, it packs slice by slice.
const PACKED_UNITS: usize = 192 * 1024;
/// Tiles up to which a task streams panel after panel, its rows packed as a whole.
const STREAM_TILES: usize = 3;
/// Distance of the prefetch when weights stream, in bytes. Only a panel's first lines come as late as they are asked
/// for; after them the machine's own prefetcher is ahead, and at 4 KiB and more ours would be in its way.
const STREAM_AHEAD: usize = 768;
/// Units of made panels that a task holds: they stay in the second-level cache.
const MADE_UNITS: usize = 128 * 1024;
/// Tasks for each thread, so that a thread that is held up does not hold up the product.
const TASKS_EACH: usize = 4;

/// Part `i` of `n` nearly equal parts of `0..len`.
pub(super) fn part(len: usize, n: usize, i: usize) -> Range<usize> {
    len * i / n..len * (i + 1) / n
}

/// Runs `f(row part, panel part)` over `row_parts` by `panel_parts`, on all threads if there are several and the
/// work is worth it. Neighbouring tasks share panels.
pub(super) fn run_tasks(work: usize, (row_parts, panel_parts): (usize, usize), f: impl Fn(usize, usize) + Sync) {
    let n_tasks = row_parts * panel_parts;
    let task = |t: usize| f(t % row_parts, t / row_parts);
    if n_tasks == 1 || work < PARALLEL_FROM {
        (0..n_tasks).for_each(task);
    } else {
        team::for_tasks(n_tasks, task);
    }
}

/// Into how many parts rows and panels are cut.
fn cut(tiles: usize, panels: usize, most_panels: usize, threads: usize) -> (usize, usize) {
    let (mut rows, mut groups) = (tiles.div_ceil(MOST_TILES), panels.div_ceil(most_panels));
    if threads == 1 {
        return (rows, groups);
    }
    let want = TASKS_EACH * threads;
    // Where cutting costs little first, then wherever there is something to cut.
    for (few_tiles, few_panels) in [(FEW_TILES, FEW_PANELS), (2, 2), (1, 1)] {
        while rows * groups < want {
            if tiles / (rows + 1) >= few_tiles {
                rows += 1;
            } else if panels / (groups + 1) >= few_panels {
                groups += 1;
            } else {
                break;
            }
        }
    }
    (rows, groups)
}

/// Computes a product.
pub(super) fn product(job: &Job, kernel: Kernel) {
    if job.m == 0 || job.cols == 0 {
        return;
    }
    let (tiles, panels) = (job.m.div_ceil(kernel.rows), job.cols.div_ceil(PANEL));
    let work = job.m * job.cols * job.k;
    let threads = if work < PARALLEL_FROM { 1 } else { rayon::current_num_threads() };
    let n_operands = job.operands().count();
    // Their sums share the cache.
    let most_panels = MOST_PANELS / n_operands;
    let (row_parts, groups) = match job.w.weights {
        Weights::There { .. } => cut(tiles, panels, most_panels, threads),
        // A panel is made once where that leaves work for all threads.
        Weights::Made(_) => {
            let most = (MADE_UNITS / (n_operands * job.k * PANEL).max(1)).clamp(1, most_panels);
            let groups = panels.div_ceil(most).max(panels.min(2 * threads));
            (if threads > 1 { (2 * threads).div_ceil(groups).min(tiles) } else { 1 }, groups)
        }
    };
    run_tasks(work, (row_parts, groups), |r, g| {
        let here = Block { tiles: part(tiles, row_parts, r), panels: part(panels, groups, g) };
        let mut scratch = Scratch::panels();
        let stride = job.k * PANEL;
        let made = match job.w.weights {
            Weights::There { .. } => &mut [],
            Weights::Made(_) => scratch.floats(n_operands * here.panels.len() * stride),
        };
        let mut left = &mut *made;
        let mut there = [There { units: &[], stride: 0, first_panel: 0 }; 2];
        for (there, operand) in there.iter_mut().zip(job.operands()) {
            *there = match operand.weights {
                Weights::There { units, stride } => There { units, stride, first_panel: 0 },
                Weights::Made(make) => {
                    let (made, rest) = std::mem::take(&mut left).split_at_mut(here.panels.len() * stride);
                    left = rest;
                    for (panel, made) in here.panels.clone().zip(made.chunks_exact_mut(stride.max(1))) {
                        make(panel, made);
                    }
                    There { units: as_units(made), stride, first_panel: here.panels.start }
                }
            };
        }
        for from in here.tiles.clone().step_by(MOST_TILES) {
            let tiles = from..(from + MOST_TILES).min(here.tiles.end);
            task(job, kernel, &Block { tiles, panels: here.panels.clone() }, &there[..n_operands]);
        }
    });
}

/// Some tiles of rows by some panels.
struct Block {
    tiles: Range<usize>,
    panels: Range<usize>,
}

/// Panels in memory from `first_panel` on, each `stride` units long.
#[derive(Clone, Copy)]
struct There<'a> {
    units: &'a [u32],
    stride: usize,
    first_panel: usize,
}

/// One task: a block of the output, whose operands are `there`.
fn task(job: &Job, kernel: Kernel, block: &Block, there: &[There]) {
    let Block { tiles, panels } = block;
    let n_tiles = job.m.div_ceil(kernel.rows);
    let k_units = job.k.div_ceil(kernel.per_unit);
    let n_slices = k_units.div_ceil(SLICE).max(1);
    for there in there {
        let needed = (panels.end - there.first_panel - 1) * there.stride + k_units * PANEL;
        assert!(needed <= there.units.len(), "panels end too early");
    }
    let slice_units = tiles.len() * kernel.rows * SLICE;
    let whole = tiles.len() <= STREAM_TILES || slice_units * n_slices <= PACKED_UNITS;
    let mut scratch = Scratch::operand();
    let packed = scratch.units(slice_units * if whole { n_slices } else { 1 });
    if whole {
        for (slice, packed) in packed.chunks_exact_mut(slice_units).enumerate() {
            pack(job, kernel, tiles, slice, packed);
        }
    }
    let rows = part(job.m, n_tiles, tiles.start).start..part(job.m, n_tiles, tiles.end - 1).end;
    let mut scratch = Scratch::sums();
    let len = panels.len() * rows.len() * PANEL;
    let all = scratch.floats(there.len() * len);
    if job.resume {
        read(job, &rows, rows.len(), panels, all);
    }
    for (there, sums) in there.iter().zip(all.chunks_exact_mut(len)) {
        let walk = Walk { job, kernel, block, rows: &rows, there: *there };
        if tiles.len() <= STREAM_TILES {
            let most = if tiles.len() == 1 && rows.len() <= kernel.pair_rows { 2 } else { 1 };
            for panel in panels.clone().step_by(most) {
                for slice in 0..n_slices {
                    let packed = &packed[slice * slice_units..(slice + 1) * slice_units];
                    walk.compute(slice, packed, panel, most.min(panels.end - panel), sums);
                }
            }
        } else {
            for slice in 0..n_slices {
                let packed = if whole {
                    &packed[slice * slice_units..(slice + 1) * slice_units]
                } else {
                    pack(job, kernel, tiles, slice, packed);
                    &*packed
                };
                for panel in panels.clone() {
                    walk.compute(slice, packed, panel, 1, sums);
                }
            }
        }
    }
    write(job, rows.clone(), rows.len(), panels, all);
}

/// What the tiles of a task have in common.
struct Walk<'a> {
    job: &'a Job<'a>,
    kernel: Kernel,
    block: &'a Block,
    rows: &'a Range<usize>,
    there: There<'a>,
}

impl Walk<'_> {
    /// The tiles of `together` panels from `panel` on, over one slice; two panels only where there is one tile.
    fn compute(&self, slice: usize, packed: &[u32], panel: usize, together: usize, sums: &mut [f32]) {
        let (Block { tiles, panels }, There { units, stride, first_panel }) = (self.block, self.there);
        let (n_tiles, k_units) = (self.job.m.div_ceil(self.kernel.rows), self.job.k.div_ceil(self.kernel.per_unit));
        let here = &units[(panel - first_panel) * stride + slice * SLICE * PANEL..];
        let sums = &mut sums[(panel - panels.start) * self.rows.len() * PANEL..];
        let len = SLICE.min(k_units - slice * SLICE);
        let next = if tiles.len() <= STREAM_TILES {
            here.as_ptr().wrapping_add(SLICE * PANEL)
        } else if panel + 1 < panels.end {
            here.as_ptr().wrapping_add(stride)
        } else {
            units.as_ptr().wrapping_add((panels.start - first_panel) * stride + (slice + 1) * SLICE * PANEL)
        };
        // The rows of the task that this thread will probably run next.
        let next_rows = &self.job.x[(self.rows.end * self.job.x_stride).min(self.job.x.len())..];
        let calls = k_units.div_ceil(SLICE).max(1) * panels.len() * tiles.len();
        let next_bytes = size_of_val(next_rows).min(tiles.len() * self.kernel.rows * self.job.k * size_of::<f32>());
        let tile_units = self.kernel.rows * SLICE;
        for (i, tile) in tiles.clone().enumerate() {
            // All tiles together ask for the next slice of the weights and, over the whole task, for the rows of
            // the next one. A single tile is too short for that, and asks at a distance.
            let (ahead, ahead_step) = if tiles.len() == 1 {
                let soon = here.as_ptr().wrapping_byte_add(STREAM_AHEAD);
                // The other panel, or the other half of the panel's columns.
                let other = if together == 2 { stride * size_of::<u32>() } else { 64 };
                ([soon, soon.wrapping_byte_add(other)], [4 * PANEL; 2])
            } else {
                let weights = next.wrapping_add(i * len * PANEL / tiles.len());
                let call = (slice * panels.len() + panel - panels.start) * tiles.len() + i;
                let rows = next_rows.as_ptr().wrapping_byte_add(next_bytes * call / calls).cast();
                ([weights, rows], [4 * PANEL / tiles.len(), next_bytes.div_ceil(calls * len.max(1))])
            };
            let here_rows = part(self.job.m, n_tiles, tile);
            let at = (here_rows.start - self.rows.start) * PANEL;
            let sums = &mut sums[at..at + together * here_rows.len() * PANEL];
            let tile = Tile {
                rows: here_rows.len(),
                units: len,
                x: packed[i * tile_units..(i + 1) * tile_units].as_ptr(),
                panels: together,
                w: here[..(together - 1) * stride + len * PANEL].as_ptr(),
                w_stride: stride,
                sums: sums.as_mut_ptr(),
                resume: self.job.resume || slice > 0,
                ahead,
                ahead_step,
            };
            // SAFETY: the caller chose a kernel of this machine; a tile has at most `kernel.rows` rows, and the
            // operands and the sums were sliced to what it touches.
            unsafe { (self.kernel.run)(&tile) };
        }
    }
}

/// The part of the output that is in row `row` and panel `panel`.
///
/// # Safety
/// This task alone writes the panel's part of the row.
#[inline(always)]
unsafe fn output(job: &Job, row: usize, panel: usize) -> &'static mut [f32] {
    let cols = PANEL.min(job.cols - panel * PANEL);
    // SAFETY: row and panel lie in the output; the rest is the caller's promise.
    unsafe { std::slice::from_raw_parts_mut(job.out.at(row * job.cols + panel * PANEL), cols) }
}

/// Reads the sums of a task, `[panels][pitch][PANEL]`, from the output.
pub(super) fn read(job: &Job, rows: &Range<usize>, pitch: usize, panels: &Range<usize>, sums: &mut [f32]) {
    for (panel, sums) in panels.clone().zip(sums.chunks_exact_mut(pitch * PANEL)) {
        for (row, sums) in rows.clone().zip(sums.as_chunks_mut::<PANEL>().0) {
            // SAFETY: rows and panels are this task's.
            let out = unsafe { output(job, row, panel) };
            sums[..out.len()].copy_from_slice(out);
        }
    }
}

simd_fn!(
    /// Writes the sums of a task, for each operand `[panels][pitch][PANEL]`, to the output, with biases and gate.
    ///
    /// Row by row, so that memory is written in its own order: written by tiles, at a page for each row, it takes
    /// longer than the product of a small model on the matrix unit.
    pub(super) fn write(job: &Job, rows: Range<usize>, pitch: usize, panels: &Range<usize>, sums: &[f32]) = write_body
);

#[inline(always)]
fn write_body<const FMA: bool>(job: &Job, rows: Range<usize>, pitch: usize, panels: &Range<usize>, sums: &[f32]) {
    let (sums, _) = sums.as_chunks::<PANEL>();
    for row in rows.clone() {
        for panel in panels.clone() {
            // SAFETY: rows and panels are this task's.
            let out = unsafe { output(job, row, panel) };
            let at = (panel - panels.start) * pitch + row - rows.start;
            let biased = |operand: &Operand, sums: &[f32; PANEL]| {
                let mut sums = *sums;
                if let Some(bias) = operand.bias {
                    sums.iter_mut().zip(&bias[panel * PANEL..]).for_each(|(s, b)| *s += b);
                }
                sums
            };
            let value = biased(&job.w, &sums[at]);
            match &job.gate {
                Some((act, gate)) => {
                    let gate = biased(gate, &sums[panels.len() * pitch + at]);
                    match out.as_mut_array::<PANEL>() {
                        Some(out) => gated_body::<FMA>(*act, &gate, &value, out),
                        None => gated_body::<FMA>(*act, &gate, &value, out),
                    }
                }
                None => match out.as_mut_array::<PANEL>() {
                    Some(out) => *out = value,
                    None => out.copy_from_slice(&value[..out.len()]),
                },
            }
        }
    }
}

/// Copies one slice of the rows of `tiles`, so that a kernel finds row r of a tile at a fixed distance: rows a
/// power of two apart would push each other out of the cache.
fn pack(job: &Job, kernel: Kernel, tiles: &Range<usize>, slice: usize, packed: &mut [u32]) {
    let n_tiles = job.m.div_ceil(kernel.rows);
    let from = slice * SLICE * kernel.per_unit;
    let len = (SLICE * kernel.per_unit).min(job.k - from.min(job.k));
    for (tile, packed) in tiles.clone().zip(packed.chunks_exact_mut(kernel.rows * SLICE)) {
        for (row, packed) in part(job.m, n_tiles, tile).zip(packed.chunks_exact_mut(SLICE)) {
            let src = &job.x[row * job.x_stride + from..][..len];
            if kernel.per_unit == 1 {
                packed[..len].copy_from_slice(as_units(src));
            } else {
                layout::encode_bf16(src, packed);
            }
        }
    }
}
