//! From a product to tiles: which task computes what, and in which order a task walks its part.

use std::ops::Range;

use super::layout;
use super::memory::{Scratch, as_units};
use super::tile::{Kernel, PANEL, SLICE, Tile};
use crate::cpu::{Shared, team};
use crate::cpu::simd::simd_fn;

/// Multiply-adds below which a product is not worth waking other threads for.
pub(super) const PARALLEL_FROM: usize = 16 * 1024;

/// `out[m, cols] = x[m, k] w[cols, k]^T (+ bias)`, or added to `out`.
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
    /// The panels.
    pub(super) weights: Weights<'a>,
    /// What is added at the end.
    pub(super) bias: Option<&'a [f32]>,
    /// The output, row-major, `cols` values in a row.
    pub(super) out: Shared,
    /// Whether the sums go on from what the output holds.
    pub(super) resume: bool,
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
    let (row_parts, groups) = match job.weights {
        Weights::There { .. } => cut(tiles, panels, MOST_PANELS, threads),
        // A panel is made once where that leaves work for all threads.
        Weights::Made(_) => {
            let most = (MADE_UNITS / (job.k * PANEL).max(1)).clamp(1, MOST_PANELS);
            let groups = panels.div_ceil(most).max(panels.min(2 * threads));
            (if threads > 1 { (2 * threads).div_ceil(groups).min(tiles) } else { 1 }, groups)
        }
    };
    run_tasks(work, (row_parts, groups), |r, g| {
        let (tiles_here, panels_here) = (part(tiles, row_parts, r), part(panels, groups, g));
        match job.weights {
            Weights::There { units, stride } => task(job, kernel, tiles_here, panels_here, units, stride, 0),
            Weights::Made(make) => {
                let (mut scratch, stride) = (Scratch::panels(), job.k * PANEL);
                let made = scratch.floats(panels_here.len() * stride);
                for (i, panel) in panels_here.clone().enumerate() {
                    make(panel, &mut made[i * stride..(i + 1) * stride]);
                }
                let (made, first) = (as_units(made), panels_here.start);
                for tiles_here in
                    tiles_here.clone().step_by(MOST_TILES).map(|t| t..(t + MOST_TILES).min(tiles_here.end))
                {
                    task(job, kernel, tiles_here, panels_here.clone(), made, stride, first);
                }
            }
        }
    });
}

/// One task: some tiles of rows by some panels, of which `units` holds those from `first_panel` on.
fn task(
    job: &Job,
    kernel: Kernel,
    tiles: Range<usize>,
    panels: Range<usize>,
    units: &[u32],
    stride: usize,
    first_panel: usize,
) {
    let n_tiles = job.m.div_ceil(kernel.rows);
    let k_units = job.k.div_ceil(kernel.per_unit);
    let n_slices = k_units.div_ceil(SLICE).max(1);
    assert!((panels.end - first_panel - 1) * stride + k_units * PANEL <= units.len(), "panels end too early");
    let stream = tiles.len() <= STREAM_TILES;
    let tile_units = kernel.rows * SLICE;
    let slice_units = tiles.len() * tile_units;
    let whole = stream || slice_units * n_slices <= PACKED_UNITS;
    let mut scratch = Scratch::operand();
    let packed = scratch.units(slice_units * if whole { n_slices } else { 1 });
    if whole {
        for (slice, packed) in packed.chunks_exact_mut(slice_units).enumerate() {
            pack(job, kernel, &tiles, slice, packed);
        }
    }
    // The rows of the task that this thread will probably run next.
    let next_rows = &job.x[(part(job.m, n_tiles, tiles.end - 1).end * job.x_stride).min(job.x.len())..];
    let calls = n_slices * panels.len() * tiles.len();
    let next_bytes = (size_of_val(next_rows)).min(tiles.len() * kernel.rows * job.k * size_of::<f32>());

    let rows = part(job.m, n_tiles, tiles.start).start..part(job.m, n_tiles, tiles.end - 1).end;
    let mut scratch = Scratch::sums();
    let sums = scratch.floats(panels.len() * rows.len() * PANEL);
    if job.resume {
        read(job, &rows, &panels, sums);
    }

    // `together` panels from `panel` on; two only where there is one tile.
    let mut compute = |slice: usize, packed: &[u32], panel: usize, together: usize| {
        let here = &units[(panel - first_panel) * stride + slice * SLICE * PANEL..];
        let sums = &mut sums[(panel - panels.start) * rows.len() * PANEL..][..together * rows.len() * PANEL];
        let len = SLICE.min(k_units - slice * SLICE);
        let next = if stream {
            here.as_ptr().wrapping_add(SLICE * PANEL)
        } else if panel + 1 < panels.end {
            here.as_ptr().wrapping_add(stride)
        } else {
            units.as_ptr().wrapping_add((panels.start - first_panel) * stride + (slice + 1) * SLICE * PANEL)
        };
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
            let here_rows = part(job.m, n_tiles, tile);
            let sums = &mut sums[(here_rows.start - rows.start) * PANEL..][..together * here_rows.len() * PANEL];
            let tile = Tile {
                rows: here_rows.len(),
                units: len,
                x: packed[i * tile_units..(i + 1) * tile_units].as_ptr(),
                panels: together,
                w: here[..(together - 1) * stride + len * PANEL].as_ptr(),
                w_stride: stride,
                sums: sums.as_mut_ptr(),
                resume: job.resume || slice > 0,
                ahead,
                ahead_step,
            };
            // SAFETY: the caller chose a kernel of this machine; a tile has at most `kernel.rows` rows, and the
            // operands and the sums were sliced to what it touches.
            unsafe { (kernel.run)(&tile) };
        }
    };
    if stream {
        let most = if tiles.len() == 1 && rows.len() <= kernel.pair_rows { 2 } else { 1 };
        for panel in panels.clone().step_by(most) {
            for slice in 0..n_slices {
                let packed = &packed[slice * slice_units..(slice + 1) * slice_units];
                compute(slice, packed, panel, most.min(panels.end - panel));
            }
        }
    } else {
        for slice in 0..n_slices {
            let packed = if whole {
                &packed[slice * slice_units..(slice + 1) * slice_units]
            } else {
                pack(job, kernel, &tiles, slice, packed);
                &*packed
            };
            for panel in panels.clone() {
                compute(slice, packed, panel, 1);
            }
        }
    }
    write(job, rows.clone(), rows.len(), &panels, sums);
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

/// Reads the sums of a task, `[panels][rows][PANEL]`, from the output.
fn read(job: &Job, rows: &Range<usize>, panels: &Range<usize>, sums: &mut [f32]) {
    for (panel, sums) in panels.clone().zip(sums.chunks_exact_mut(rows.len() * PANEL)) {
        for (row, sums) in rows.clone().zip(sums.as_chunks_mut::<PANEL>().0) {
            // SAFETY: rows and panels are this task's.
            let out = unsafe { output(job, row, panel) };
            sums[..out.len()].copy_from_slice(out);
        }
    }
}

simd_fn!(
    /// Writes the sums of a task, `[panels][pitch][PANEL]`, to the output, with the bias.
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
            let sums = &sums[(panel - panels.start) * pitch + row - rows.start];
            match out.as_mut_array::<PANEL>() {
                Some(out) => *out = *sums,
                None => out.copy_from_slice(&sums[..out.len()]),
            }
            if let Some(bias) = job.bias {
                out.iter_mut().zip(&bias[panel * PANEL..]).for_each(|(o, b)| *o += b);
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
