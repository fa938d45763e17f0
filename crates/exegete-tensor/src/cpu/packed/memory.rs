//! Memory of the packed matrices: one aligned buffer for a stack, and scratch that a thread keeps.

use std::cell::Cell;

/// Values of four bytes in a cache line.
const LINE: usize = 16;

/// A cache line, so that a vector of them is aligned to one.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; LINE]);

/// A buffer of zeroed units (four bytes each: an `f32` or a pair of bf16), aligned to a cache line.
///
/// On Linux it is mapped by itself, in huge pages where the system grants them: a matrix is streamed once for each
/// step of generation, and the machine's prefetchers stop at the end of each page.
pub(super) struct Buffer {
    start: *mut u32,
    len: usize,
    #[cfg(target_os = "linux")]
    mapped: usize,
    #[cfg(not(target_os = "linux"))]
    lines: Vec<Line>,
}

// SAFETY: the buffer owns its memory like a vector does.
unsafe impl Send for Buffer {}
// SAFETY: as above; it is written through `&mut` alone.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `len` zeros.
    #[cfg(target_os = "linux")]
    pub(super) fn zeroed(len: usize) -> Self {
        let mapped = (len * size_of::<u32>()).max(1);
        // SAFETY: an anonymous mapping of our own, checked below; the advice is only advice.
        let start = unsafe {
            let (read_write, private) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let start = libc::mmap(std::ptr::null_mut(), mapped, read_write, private, -1, 0);
            if start == libc::MAP_FAILED {
                std::alloc::handle_alloc_error(std::alloc::Layout::array::<u32>(len).expect("a size mmap took"));
            }
            libc::madvise(start, mapped, libc::MADV_HUGEPAGE);
            start
        };
        Self { start: start.cast(), len, mapped }
    }

    /// `len` zeros.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn zeroed(len: usize) -> Self {
        let mut lines = vec![Line([0; LINE]); len.div_ceil(LINE)];
        Self { start: lines.as_mut_ptr().cast(), len, lines }
    }

    /// All units.
    pub(super) fn units(&self) -> &[u32] {
        // SAFETY: the buffer holds `len` initialised units.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }

    /// All units, to write.
    pub(super) fn units_mut(&mut self) -> &mut [u32] {
        // SAFETY: as above, and borrowed for writing.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

#[cfg(target_os = "linux")]
impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `zeroed` and nothing borrows it any more.
        unsafe {
            libc::munmap(self.start.cast(), self.mapped);
        }
    }
}

/// Scratch of one thread. What it holds is left over from its last use.
pub(super) struct Scratch {
    lines: Vec<Line>,
    place: &'static std::thread::LocalKey<Cell<Vec<Line>>>,
}

macro_rules! places {
    ($($(#[$meta:meta])* $name:ident: $key:ident),*) => {
        thread_local! { $(static $key: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };)* }
        impl Scratch {
            $($(#[$meta])* pub(super) fn $name() -> Self { Self::take(&$key) })*
        }
    };
}
places! {
    /// For packed rows of the left operand.
    operand: OPERAND,
    /// For the split rows of a product.
    parts: SPLIT,
    /// For the sums of a task.
    sums: SUMS,
    /// For panels made when they are used.
    panels: PANELS,
    /// For split panels.
    columns: COLUMNS,
    /// For single rows on their way into a panel.
    rows: ROWS
}

impl Scratch {
    /// Taken out of the thread, not borrowed: a row source that runs rayon itself may come back here.
    fn take(place: &'static std::thread::LocalKey<Cell<Vec<Line>>>) -> Self {
        Self { lines: place.take(), place }
    }

    /// The first `len` units, aligned to a cache line.
    pub(super) fn units(&mut self, len: usize) -> &mut [u32] {
        let lines = len.div_ceil(LINE);
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; LINE]));
        }
        // SAFETY: a line is 16 units without padding, and there are enough of them.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), len) }
    }

    /// The first `len` units as floats.
    pub(super) fn floats(&mut self, len: usize) -> &mut [f32] {
        as_floats_mut(self.units(len))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.place.set(std::mem::take(&mut self.lines));
    }
}

/// Floats as units of the same bits.
pub(super) fn as_units(floats: &[f32]) -> &[u32] {
    // SAFETY: same size and alignment, and every bit pattern is valid for both.
    unsafe { std::slice::from_raw_parts(floats.as_ptr().cast(), floats.len()) }
}

/// Units as floats of the same bits, to write.
pub(super) fn as_floats_mut(units: &mut [u32]) -> &mut [f32] {
    // SAFETY: as in `as_units`.
    unsafe { std::slice::from_raw_parts_mut(units.as_mut_ptr().cast(), units.len()) }
}

/// Floats as units of the same bits, to write.
pub(super) fn as_units_mut(floats: &mut [f32]) -> &mut [u32] {
    // SAFETY: as in `as_units`.
    unsafe { std::slice::from_raw_parts_mut(floats.as_mut_ptr().cast(), floats.len()) }
}
