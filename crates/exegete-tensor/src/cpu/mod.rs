//! CPU kernels over plain `f32` slices, row-major. Each file holds one operation, forward and backward, and
//! beside it, in its tests, the naive loop that it must agree with.
//!
//! A reduction is never split across threads, so no result depends on the number of threads.

pub mod activation;
pub mod adam;
pub mod attention;
pub mod embedding;
pub mod gemm;
pub mod loss;
pub mod mixture;
pub mod norm;
pub mod packed;
pub mod rope;
pub mod simd;
pub mod sparse;
pub mod team;
pub mod topk;

/// A buffer of `len` values that the caller fills entirely before reading.
///
/// Zeroing an output that is then overwritten costs a pass over memory; kernels write every element.
pub fn buffer(len: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(len);
    // SAFETY: every bit pattern is a valid f32, the capacity is `len`, and each kernel that takes a buffer
    // writes all of it before anything reads it.
    #[allow(clippy::uninit_vec)]
    unsafe {
        out.set_len(len);
    }
    out
}

/// Work (in scalar operations) below which a loop is not worth waking other threads for.
const PARALLEL_FROM: usize = 32 * 1024;

/// Runs `f(row index, row)` over the rows of `out`, in parallel when there is enough to do.
pub fn for_rows(out: &mut [f32], row_len: usize, f: impl Fn(usize, &mut [f32]) + Sync) {
    if out.len() < PARALLEL_FROM {
        out.chunks_exact_mut(row_len).enumerate().for_each(|(i, row)| f(i, row));
    } else {
        let rows_each = (PARALLEL_FROM / 4 / row_len).max(1);
        for_chunks(out, row_len * rows_each, |c, rows| {
            for (i, row) in rows.chunks_exact_mut(row_len).enumerate() {
                f(c * rows_each + i, row);
            }
        });
    }
}

/// Runs `f(chunk index, chunk)` over the chunks of `out`, the last of which may be shorter, on all threads.
pub fn for_chunks<T: Send>(out: &mut [T], chunk_len: usize, f: impl Fn(usize, &mut [T]) + Sync) {
    let (len, shared) = (out.len(), Shared(out.as_mut_ptr()));
    team::for_tasks(len.div_ceil(chunk_len), |c| {
        let start = c * chunk_len;
        // SAFETY: chunk c, which this task alone writes.
        f(c, unsafe { shared.range(start, chunk_len.min(len - start)) });
    });
}

/// A raw pointer that tasks share because each writes a part of its own.
#[derive(Clone, Copy)]
pub(crate) struct Shared<T = f32>(pub(crate) *mut T);
// SAFETY: used only where tasks write disjoint ranges, as argued at each use.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The element at `offset`.
    ///
    /// # Safety
    /// The offset lies in the buffer.
    pub(crate) unsafe fn at(&self, offset: usize) -> *mut T {
        // SAFETY: by the caller's promise.
        unsafe { self.0.add(offset) }
    }

    /// The range `[start, start + len)` of the buffer.
    ///
    /// # Safety
    /// The range lies in the buffer and no other task touches it meanwhile.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn range(&self, start: usize, len: usize) -> &mut [T] {
        // SAFETY: by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.add(start), len) }
    }
}
