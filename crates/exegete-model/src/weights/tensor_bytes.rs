//! A tensor where it lies in its file.

use std::ops::Range;
use std::sync::Arc;

use exegete_tensor::RowSource;
use memmap2::Mmap;
use rayon::prelude::*;

use super::quant::Encoding;
use crate::families::stored::RowMap;

/// A tensor of a mapped file.
#[derive(Clone)]
pub struct TensorBytes {
    map: Arc<Mmap>,
    range: Range<usize>,
    encoding: Encoding,
    shape: Vec<usize>,
}

impl TensorBytes {
    /// A tensor, if its bytes lie in the file and are exactly as many as its shape and type need.
    pub(crate) fn new(map: Arc<Mmap>, range: Range<usize>, encoding: Encoding, shape: Vec<usize>) -> Option<Self> {
        let (values, size) = encoding.block();
        let n = shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d))?;
        let whole_rows = shape.last().copied().unwrap_or(1).is_multiple_of(values);
        let fits = range.end <= map.len() && range.start <= range.end && n / values * size == range.len();
        (whole_rows && fits && n > 0).then_some(Self { map, range, encoding, shape })
    }

    /// Shape, outermost axis first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// How it is stored.
    pub fn encoding(&self) -> Encoding {
        self.encoding
    }

    /// Length of its last axis.
    pub fn row_len(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    /// Product of its other axes.
    pub fn n_rows(&self) -> usize {
        self.shape.iter().take(self.shape.len().saturating_sub(1)).product()
    }

    /// Bytes in the file.
    pub fn n_bytes(&self) -> usize {
        self.range.len()
    }

    /// Decodes row `i` into `out`.
    pub fn row(&self, i: usize, out: &mut [f32]) {
        let size = self.range.len() / self.n_rows().max(1);
        let from = self.range.start + i * size;
        self.encoding.decode(&self.map[from..from + size], out);
    }

    /// Decodes rows, in parallel.
    pub fn rows(&self, rows: &[usize], out: &mut [f32]) {
        let k = self.row_len();
        out.par_chunks_mut(k * 64).zip(rows.par_chunks(64)).for_each(|(out, rows)| {
            out.chunks_exact_mut(k).zip(rows).for_each(|(out, i)| self.row(*i, out));
        });
    }

    /// All values, row-major.
    pub fn values(&self) -> Vec<f32> {
        let rows: Vec<usize> = (0..self.n_rows()).collect();
        let mut out = vec![0f32; rows.len() * self.row_len()];
        self.rows(&rows, &mut out);
        out
    }

    /// Lets the system take back the memory behind the tensor's pages; they are read again when touched.
    pub(crate) fn release(&self) {
        #[cfg(unix)]
        // SAFETY: the map is private, read-only and backed by a file, so dropped pages come back with the same
        // content. A failure costs memory and nothing else.
        let _ = unsafe {
            self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, self.range.start, self.range.len())
        };
    }
}

/// Rows of a weight that stays in its file.
pub(crate) struct MappedRows {
    pub(crate) tensor: TensorBytes,
    pub(crate) map: RowMap,
    pub(crate) n: usize,
}

impl RowSource for MappedRows {
    fn n(&self) -> usize {
        self.n
    }

    fn k(&self) -> usize {
        self.tensor.row_len()
    }

    fn row(&self, i: usize, out: &mut [f32]) {
        self.tensor.row(self.map.stored(i), out);
    }

    fn resident_bytes(&self) -> usize {
        self.n * self.tensor.n_bytes() / self.tensor.n_rows().max(1)
    }
}
