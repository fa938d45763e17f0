//! bf16 panels on the matrix unit (AMX): tiles of 16 rows by 16 columns, 32 values of k in one instruction.
//!
//! The rows are rounded and laid out as tiles `[16][32]` once for each task. The instructions are written out,
//! because the compiler has no types for them.

use std::arch::asm;
use std::ops::Range;
use std::sync::OnceLock;

use super::avx512;
use super::drive::{Job, PARALLEL_FROM, Weights, part, run_tasks, write};
use super::memory::Scratch;
use super::tile::PANEL;

/// Rows of a tile.
const ROWS: usize = 16;
/// Values of k in a tile.
const DEPTH: usize = 32;
/// Units of an operand's tile.
const TILE_UNITS: usize = ROWS * DEPTH / 2;
/// Steps of k after which the next rows have their turn, so that these weights are still in the first-level cache.
const STEPS: usize = 12;
/// Units that a step of two tiles asks for.
const ASKED_UNITS: usize = 512 / 4;
/// Sums of a tile of rows by a panel.
const TILE_SUMS: usize = ROWS * PANEL;
/// Packed rows that a task holds, in units: half of a second-level cache.
const MOST_UNITS: usize = 256 * 1024;

/// Tiles of rows that a task takes at most.
const MOST_TILES: usize = 8;
/// Sums that a task holds, in values: under half of a second-level cache.
const MOST_SUMS: usize = 192 * 1024;
/// Tasks for each thread.
const TASKS_EACH: usize = 4;

/// The configuration of the tile registers, as `ldtilecfg` reads it.
#[repr(C, align(64))]
struct Config {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// All eight registers at their full size.
static CONFIG: Config = Config {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Whether the machine has the unit, the system lends it to us, and it computes a small product rightly.
pub(super) fn ready() -> bool {
    static READY: OnceLock<bool> = OnceLock::new();
    *READY.get_or_init(|| has_instructions() && system_allows() && self_check())
}

fn has_instructions() -> bool {
    const BF16: u32 = 1 << 22;
    const TILE: u32 = 1 << 24;
    if !super::layout::has_avx512_bf16() {
        return false;
    }
    // SAFETY: a machine with AVX-512 has the instruction `cpuid` and this leaf.
    let leaf = std::arch::x86_64::__cpuid_count(7, 0);
    leaf.edx & BF16 != 0 && leaf.edx & TILE != 0
}

/// Asks for the tile registers: the system does not save them for a process that did not.
#[cfg(target_os = "linux")]
fn system_allows() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_ulong = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_ulong = 18;
    // SAFETY: the call changes nothing but this permission, and fails where it is unknown.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn system_allows() -> bool {
    false
}

/// An emulator or a hypervisor may announce the unit and not have it right.
fn self_check() -> bool {
    let x: Vec<f32> = (0..ROWS * DEPTH).map(|i| (i % 7) as f32 - 3.0).collect();
    let w = |row: usize, i: usize| ((row * 5 + i * 3) % 11) as f32 - 5.0;
    let mut panel = vec![0u32; DEPTH / 2 * PANEL];
    for (i, unit) in panel.iter_mut().enumerate() {
        let half = |h: usize| u32::from(super::layout::to_bf16(w(i % PANEL, i / PANEL * 2 + h)));
        *unit = half(0) | half(1) << 16;
    }
    let mut packed = vec![0u32; TILE_UNITS];
    let mut out = vec![0f32; ROWS * PANEL];
    // SAFETY: the instructions are there and allowed, and the buffers hold one tile and one panel.
    unsafe {
        for (row, x) in x.chunks_exact(DEPTH).enumerate() {
            avx512::round_bf16_steps(x, packed[row * DEPTH / 2..].as_mut_ptr(), TILE_UNITS);
        }
        configure();
        one_by_panel(1, packed.as_ptr(), panel.as_ptr(), out.as_mut_ptr(), 0);
        release();
    }
    // Small integers: exact.
    (0..ROWS * PANEL).all(|o| {
        let (row, column) = (o / PANEL, o % PANEL);
        out[o] == (0..DEPTH).map(|i| x[row * DEPTH + i] * w(column, i)).sum::<f32>()
    })
}

/// # Safety
/// The process may use the unit.
pub(super) unsafe fn configure() {
    // SAFETY: the configuration is valid.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, preserves_flags, readonly)) }
}

/// # Safety
/// The process may use the unit.
pub(super) unsafe fn release() {
    // SAFETY: by the caller's promise.
    unsafe { asm!("tilerelease", options(nostack, preserves_flags, nomem)) }
}

/// Two tiles of rows by one panel, over `steps` of k: `sums[32][32]`, from zero or going on from what is there.
/// Asks for 512 bytes from `ahead` on at each step.
///
/// # Safety
/// The unit is configured; `x` and `y` point at `steps` tiles, `w` at `steps` times 16 units of a panel, and
/// `sums` at what is written.
unsafe fn two_by_panel(
    steps: usize,
    [x, y]: [*const u32; 2],
    w: *const u32,
    sums: *mut f32,
    resume: bool,
    ahead: *const u32,
) {
    // SAFETY: by the caller's promise; a prefetch of any address is harmless.
    unsafe {
        asm!(
            "test {resume:e}, {resume:e}",
            "jnz 3f",
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "jmp 2f",
            "3:",
            "tileloadd tmm0, [{sums} + {s128}*1]",
            "tileloadd tmm1, [{sums} + {s128}*1 + 64]",
            "tileloadd tmm2, [{sums} + {s128}*1 + 2048]",
            "tileloadd tmm3, [{sums} + {s128}*1 + 2112]",
            "2:",
            "tileloadd tmm6, [{w} + {s128}*1]",
            "tileloaddt1 tmm4, [{x} + {s64}*1]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "prefetcht1 [{ahead}]",
            "prefetcht1 [{ahead} + 64]",
            "tileloadd tmm7, [{w} + {s128}*1 + 64]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "prefetcht1 [{ahead} + 128]",
            "prefetcht1 [{ahead} + 192]",
            "tileloaddt1 tmm5, [{y} + {s64}*1]",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "prefetcht1 [{ahead} + 256]",
            "prefetcht1 [{ahead} + 320]",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "prefetcht1 [{ahead} + 384]",
            "prefetcht1 [{ahead} + 448]",
            "add {x}, 1024",
            "add {y}, 1024",
            "add {w}, 2048",
            "add {ahead}, 512",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {s128}*1], tmm0",
            "tilestored [{sums} + {s128}*1 + 64], tmm1",
            "tilestored [{sums} + {s128}*1 + 2048], tmm2",
            "tilestored [{sums} + {s128}*1 + 2112], tmm3",
            x = inout(reg) x => _,
            y = inout(reg) y => _,
            w = inout(reg) w => _,
            ahead = inout(reg) ahead => _,
            steps = inout(reg) steps => _,
            resume = in(reg) u32::from(resume),
            s64 = in(reg) 64usize,
            s128 = in(reg) 128usize,
            sums = in(reg) sums,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// One tile of rows by one panel: `sums[16][32]`. Asks for the weights `ahead` bytes further on.
///
/// # Safety
/// As for [`two_by_panel`], with `steps` tiles in `x`.
unsafe fn one_by_panel(steps: usize, x: *const u32, w: *const u32, sums: *mut f32, ahead: usize) {
    // SAFETY: by the caller's promise; a prefetch of any address is harmless.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "2:",
            "tileloaddt1 tmm4, [{x} + {s64}*1]",
            "tileloadd tmm6, [{w} + {s128}*1]",
            "tileloadd tmm7, [{w} + {s128}*1 + 64]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "mov {i:e}, 32",
            "3:",
            "prefetcht0 [{w} + {ahead}*1]",
            "add {w}, 64",
            "dec {i:e}",
            "jnz 3b",
            "add {x}, 1024",
            "dec {steps}",
            "jnz 2b",
            "tilestored [{sums} + {s128}*1], tmm0",
            "tilestored [{sums} + {s128}*1 + 64], tmm1",
            x = inout(reg) x => _,
            w = inout(reg) w => _,
            steps = inout(reg) steps => _,
            i = out(reg) _,
            ahead = in(reg) ahead,
            s64 = in(reg) 64usize,
            s128 = in(reg) 128usize,
            sums = in(reg) sums,
            out("tmm0") _, out("tmm1") _, out("tmm4") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}

/// Distance of the prefetch when weights stream.
const STREAM_AHEAD: usize = 4096;

/// Into how many parts tiles of rows and panels are cut.
fn cut(tiles: usize, panels: usize, steps: usize, threads: usize, operands: usize) -> (usize, usize) {
    let most = (MOST_UNITS / (steps * TILE_UNITS)).clamp(2, MOST_TILES);
    let want = if threads == 1 { 1 } else { TASKS_EACH * threads };
    // Tiles go in pairs. Rounding the rows again is dear, so panels are cut only for want of tasks.
    let rows = tiles.div_ceil(most).max((tiles / 2).min(want)).max(1);
    let most = (MOST_SUMS / (operands * tiles.div_ceil(rows) * TILE_SUMS)).max(1);
    (rows, panels.div_ceil(most).max(want.div_ceil(rows).min(panels)))
}

/// Computes a product of bf16 panels.
pub(super) fn product(job: &Job) {
    if job.m == 0 || job.cols == 0 || job.k == 0 {
        // Nothing to multiply: the other driver knows what that means.
        return super::drive::product(job, avx512::BF16);
    }
    let (tiles, panels, steps) = (job.m.div_ceil(ROWS), job.cols.div_ceil(PANEL), job.k.div_ceil(DEPTH));
    for operand in job.operands() {
        let Weights::There { units, stride } = operand.weights else { unreachable!("panels of bf16 are in memory") };
        assert!(panels * stride <= units.len() && stride == steps * TILE_UNITS * 2, "panels end too early");
    }
    let work = job.m * job.cols * job.k;
    // Few rows wait for the weights to come from memory, many for the unit, which is fast.
    let small = work < 8 * PARALLEL_FROM && job.cols * job.k < PARALLEL_FROM;
    let threads = if small { 1 } else { rayon::current_num_threads() };
    let parts = cut(tiles, panels, steps, threads, job.operands().count());
    let work = if small { 0 } else { work };
    run_tasks(work, parts, |r, g| {
        task(job, steps, part(tiles, parts.0, r), part(panels, parts.1, g));
    });
}

/// Rounds rows into tiles, from a tile on, as many as there is room for.
///
/// # Safety
/// The unit is [ready].
pub(super) unsafe fn pack_rows((x, stride): (&[f32], usize), k: usize, (first, m): (usize, usize), packed: &mut [u32]) {
    let steps = k.div_ceil(DEPTH);
    assert!(packed.len().is_multiple_of(steps * TILE_UNITS), "rows are packed into whole tiles");
    for (tile, packed) in packed.chunks_exact_mut(steps * TILE_UNITS).enumerate() {
        for row in 0..ROWS {
            let (to, at) = (packed[row * DEPTH / 2..].as_mut_ptr(), (first + tile) * ROWS + row);
            // A row that does not exist is zero and its output is dropped.
            let x = if at < m { &x[at * stride..][..k] } else { &[] };
            // SAFETY: the instructions are there; each step of the tile holds this row.
            unsafe {
                avx512::round_bf16_steps(x, to, TILE_UNITS);
                for step in x.len().div_ceil(DEPTH)..steps {
                    to.add(step * TILE_UNITS).write_bytes(0, DEPTH / 2);
                }
            }
        }
    }
}

/// Two packed tiles of rows by a panel: `sums[32][32]`. Asks for memory from `ahead` on.
///
/// # Safety
/// The unit is configured.
pub(super) unsafe fn pair_by_panel(tiles: &[u32], panel: &[u32], sums: &mut [f32; 2 * TILE_SUMS], ahead: *const u32) {
    let tile = tiles.len() / 2;
    assert!(tile > 0 && tile.is_multiple_of(TILE_UNITS) && panel.len() == 2 * tile, "tiles and panels of one depth");
    let (x, y) = (tiles.as_ptr(), tiles[tile..].as_ptr());
    // SAFETY: by the caller's promise and the lengths above.
    unsafe { two_by_panel(tile / TILE_UNITS, [x, y], panel.as_ptr(), sums.as_mut_ptr(), false, ahead) }
}

/// One task: some tiles of rows by some panels.
fn task(job: &Job, steps: usize, tiles: Range<usize>, panels: Range<usize>) {
    let tile_units = steps * TILE_UNITS;
    let mut scratch = Scratch::operand();
    let packed = scratch.units(tiles.len() * tile_units);
    // SAFETY: products come here where the unit is ready.
    unsafe { pack_rows((job.x, job.x_stride), job.k, (tiles.start, job.m), packed) };
    let mut scratch = Scratch::sums();
    let len = tiles.len() * TILE_SUMS;
    let sums = scratch.floats(job.operands().count() * panels.len() * len);
    let units = job.operands().flat_map(|operand| {
        let Weights::There { units, .. } = operand.weights else { unreachable!("panels of bf16 are in memory") };
        panels.clone().map(move |panel| &units[panel * 2 * tile_units..][..2 * tile_units])
    });
    // SAFETY: `ready` saw that the unit is there and allowed; no other code of this thread uses it meanwhile.
    unsafe { configure() };
    for (units, sums) in units.zip(sums.chunks_exact_mut(len)) {
        let w = units.as_ptr();
        let pairs = || packed.chunks(2 * tile_units).enumerate();
        for from in (0..steps).step_by(STEPS) {
            let len = STEPS.min(steps - from);
            let w = w.wrapping_add(from * 2 * TILE_UNITS);
            for (i, x) in pairs() {
                let sums = sums[2 * i * TILE_SUMS..].as_mut_ptr();
                let x = x[from * TILE_UNITS..].as_ptr();
                // The part of the weights that comes next: pairs together ask for all of it.
                let ahead = w.wrapping_add(len * (2 * TILE_UNITS + i * ASKED_UNITS));
                // SAFETY: the unit is configured, the operands hold `steps` tiles, and the sums one or two.
                unsafe {
                    if (i + 1) * 2 <= tiles.len() {
                        let y = x.wrapping_add(tile_units);
                        two_by_panel(len, [x, y], w, sums, from > 0, ahead);
                    } else if from == 0 {
                        one_by_panel(steps, x, w, sums, STREAM_AHEAD);
                    }
                }
            }
        }
    }
    // SAFETY: as for `configure`.
    unsafe { release() };
    write(job, tiles.start * ROWS..(tiles.end * ROWS).min(job.m), tiles.len() * ROWS, &panels, sums);
}
