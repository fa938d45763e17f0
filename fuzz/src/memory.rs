//! Memory counted while a reader runs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicIsize, Ordering::Relaxed};

static ON: AtomicBool = AtomicBool::new(false);
static LIVE: AtomicIsize = AtomicIsize::new(0);
static MOST: AtomicIsize = AtomicIsize::new(isize::MAX);

/// The system's allocator, which stops the process when a reader takes more than it was granted.
pub struct Counting;

impl Counting {
    fn take(&self, bytes: usize) {
        if !ON.load(Relaxed) {
            return;
        }
        let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
        let live = LIVE.fetch_add(bytes, Relaxed).saturating_add(bytes);
        if live > MOST.load(Relaxed) && ON.swap(false, Relaxed) {
            // An allocator must not unwind; an abort is what libFuzzer records as well.
            let trace = std::backtrace::Backtrace::force_capture();
            eprintln!("{live} bytes live, {bytes} of them asked for now; {} are granted\n{trace}", MOST.load(Relaxed));
            std::process::abort();
        }
    }

    fn give(&self, bytes: usize) {
        if ON.load(Relaxed) {
            LIVE.fetch_sub(isize::try_from(bytes).unwrap_or(isize::MAX), Relaxed);
        }
    }
}

// SAFETY: every call is passed on to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.take(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.give(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new block live at once while one is copied, but no reader is to blame for that.
        self.give(layout.size());
        self.take(size);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(at, layout, size) }
    }
}

/// Counts no more until the next reader runs.
pub fn stop() {
    ON.store(false, Relaxed);
}

/// Runs a reader that may hold `most` bytes more than are held now.
pub fn bounded<T>(most: usize, f: impl FnOnce() -> T) -> T {
    struct Off;
    impl Drop for Off {
        fn drop(&mut self) {
            stop();
        }
    }
    LIVE.store(0, Relaxed);
    MOST.store(isize::try_from(most).unwrap_or(isize::MAX), Relaxed);
    ON.store(true, Relaxed);
    let _off = Off;
    f()
}
