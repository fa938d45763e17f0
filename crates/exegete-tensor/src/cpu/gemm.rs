//! General matrix products on slices, by the `gemm` crate: for operands that are no weights. Weights are packed
//! ([`super::packed`]).

/// A matrix inside a slice: element (r, c) is `data[r * row_stride + c * col_stride]`.
#[derive(Clone, Copy)]
pub struct Mat<'a> {
    /// The slice, starting at element (0, 0).
    pub data: &'a [f32],
    /// Distance between rows.
    pub row_stride: usize,
    /// Distance between columns.
    pub col_stride: usize,
}

impl<'a> Mat<'a> {
    /// A row-major matrix of `cols` columns.
    pub fn rows(data: &'a [f32], cols: usize) -> Self {
        Self { data, row_stride: cols, col_stride: 1 }
    }

    /// The transpose, without a copy.
    pub fn t(self) -> Self {
        Self { data: self.data, row_stride: self.col_stride, col_stride: self.row_stride }
    }

    fn holds(&self, rows: usize, cols: usize) -> bool {
        rows == 0 || cols == 0 || (rows - 1) * self.row_stride + (cols - 1) * self.col_stride < self.data.len()
    }
}

/// What becomes of the old content of a product's destination.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Into {
    /// It is overwritten.
    Overwrite,
    /// The product is added to it.
    Add,
}

/// `dst[m, n] = alpha * lhs[m, k] rhs[k, n]`, or added to it. `dst` is row-major with the given row stride.
///
/// `threads` asks for all threads (true) or the calling one alone. The sum over k is never split.
pub fn gemm(
    (m, n, k): (usize, usize, usize),
    dst: &mut [f32],
    dst_row_stride: usize,
    into: Into,
    alpha: f32,
    lhs: Mat,
    rhs: Mat,
    threads: bool,
) {
    assert!(m == 0 || n == 0 || (m - 1) * dst_row_stride + n <= dst.len(), "gemm destination too small");
    // SAFETY: the destination holds the product, and is borrowed for the call.
    unsafe { gemm_at((m, n, k), dst.as_mut_ptr(), dst_row_stride, into, alpha, lhs, rhs, threads) }
}

/// [`gemm`](fn@gemm) into a matrix that lies between others' columns, where a slice would overlap theirs.
///
/// # Safety
/// `dst` points at `m` rows of `n` values, `dst_row_stride` apart, that nothing else touches during the call.
pub unsafe fn gemm_at(
    (m, n, k): (usize, usize, usize),
    dst: *mut f32,
    dst_row_stride: usize,
    into: Into,
    alpha: f32,
    lhs: Mat,
    rhs: Mat,
    threads: bool,
) {
    assert!(lhs.holds(m, k) && rhs.holds(k, n), "gemm operands do not hold {m}x{k} and {k}x{n}");
    let parallelism = if threads { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // SAFETY: the operands were checked above, the destination is the caller's promise. In gemm's own terms
    // `alpha` scales the old destination and `beta` the product.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            dst,
            1,
            dst_row_stride as isize,
            into == Into::Add,
            lhs.data.as_ptr(),
            lhs.col_stride as isize,
            lhs.row_stride as isize,
            rhs.data.as_ptr(),
            rhs.col_stride as isize,
            rhs.row_stride as isize,
            1.0,
            alpha,
            false,
            false,
            false,
            parallelism,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_orientation_agrees_with_the_naive_product() {
        let (m, n, k) = (5, 7, 33);
        let a: Vec<f32> = (0..m * k).map(|i| (i as f32 * 0.7).sin()).collect();
        let b: Vec<f32> = (0..n * k).map(|i| (i as f32 * 0.3).cos()).collect();
        let want = |r: usize, c: usize| (0..k).map(|i| f64::from(a[r * k + i]) * f64::from(b[c * k + i])).sum::<f64>();
        let (mut out, mut flipped) = (vec![1f32; m * n], vec![f32::NAN; n * m]);
        gemm((m, n, k), &mut out, n, Into::Add, 2.0, Mat::rows(&a, k), Mat::rows(&b, k).t(), true);
        gemm((n, m, k), &mut flipped, m, Into::Overwrite, 1.0, Mat::rows(&b, k), Mat::rows(&a, k).t(), false);
        for (r, c) in (0..m).flat_map(|r| (0..n).map(move |c| (r, c))) {
            assert!((f64::from(out[r * n + c]) - 1.0 - 2.0 * want(r, c)).abs() < 1e-4);
            assert!((f64::from(flipped[c * m + r]) - want(r, c)).abs() < 1e-4);
        }
    }
}
