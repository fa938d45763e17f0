//! The k largest of each row, by partial selection.

use super::Shared;
use super::simd::{LANES, simd_fn};
use super::team::for_tasks;

/// Values and column indices of the k largest of each row of `x [N, F]`, largest first; equal values keep the
/// lower index first, so that the result is one and the same on every machine.
pub fn row_topk(x: &[f32], f: usize, k: usize, values_NK: &mut [f32], idx_NK: &mut [u32]) {
    assert!(k >= 1 && k <= f, "k = {k} of {f} columns");
    let n = values_NK.len() / k;
    assert!(idx_NK.len() == values_NK.len() && x.len() == n * f, "top {k} of {n} rows of {f}");
    let (values, idx) = (Shared(values_NK.as_mut_ptr()), Shared(idx_NK.as_mut_ptr()));
    let rows_each = (1usize << 16).div_ceil(f).max(1);
    for_tasks(n.div_ceil(rows_each), |c| {
        let mut selection = Selection::default();
        for row in c * rows_each..((c + 1) * rows_each).min(n) {
            // SAFETY: a task alone writes its rows.
            let (values, idx) = unsafe { (values.range(row * k, k), idx.range(row * k, k)) };
            selection.run(&x[row * f..(row + 1) * f], values, idx);
        }
    });
}

#[inline(always)]
fn above_body<const FMA: bool>(row: &[f32], bounds: &[f32], out: &mut Vec<u32>) {
    let (chunks, rest) = row.as_chunks::<{ 2 * LANES }>();
    for (c, (chunk, bounds)) in chunks.iter().zip(bounds.as_chunks::<{ 2 * LANES }>().0).enumerate() {
        let mut any = false;
        for (v, b) in chunk.iter().zip(bounds) {
            any |= *v > *b;
        }
        if any {
            let columns = chunk.iter().zip(bounds).enumerate().filter(|(_, (v, b))| v > b);
            out.extend(columns.map(|(l, _)| (c * 2 * LANES + l) as u32));
        }
    }
    let from = row.len() - rest.len();
    let columns = rest.iter().zip(&bounds[from..]).enumerate().filter(|(_, (v, b))| v > b);
    out.extend(columns.map(|(l, _)| (from + l) as u32));
}
simd_fn!(
    /// Appends the columns in which a row is above that column's bound, ascending.
    pub fn above(row: &[f32], bounds: &[f32], out: &mut Vec<u32>) = above_body
);

/// Scratch of a selection, reused from row to row.
#[derive(Default)]
pub struct Selection {
    candidates: Vec<u64>,
}

impl Selection {
    /// Selects from one row into `values` and `idx`, whose length is k.
    ///
    /// A first pass finds a bound below which nothing can be among the k largest (the k-th largest of the
    /// maxima of lane groups); only what reaches the bound is sorted. A value and its index are packed in one
    /// integer whose order is "larger value first, then lower index".
    pub fn run(&mut self, row: &[f32], values: &mut [f32], idx: &mut [u32]) {
        let k = values.len();
        let bound = self.bound(row, k);
        self.candidates.clear();
        collect(row, bound, &mut self.candidates);
        if self.candidates.len() > k {
            self.candidates.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
            self.candidates.truncate(k);
        }
        self.candidates.sort_unstable_by(|a, b| b.cmp(a));
        // A row of NaN may leave fewer than k candidates; what is then not there is the smallest of all.
        values.fill(f32::NEG_INFINITY);
        idx.fill(0);
        for (i, packed) in self.candidates.iter().enumerate() {
            idx[i] = !(*packed as u32);
            values[i] = row[idx[i] as usize];
        }
    }

    /// A value that at least k entries of the row reach, as high as the group maxima can tell.
    fn bound(&mut self, row: &[f32], k: usize) -> f32 {
        let n_groups = row.len() / LANES;
        if n_groups < 2 * k {
            return f32::NEG_INFINITY;
        }
        // Column-wise maxima over blocks: each block of `per` chunks gives LANES maxima of disjoint entries.
        let n_blocks = (2 * k).div_ceil(LANES).max(4).min(n_groups);
        let per = n_groups / n_blocks;
        self.candidates.clear();
        for block in 0..n_blocks {
            let chunk = &row[block * per * LANES..(block + 1) * per * LANES];
            let mut maxima = [f32::NEG_INFINITY; LANES];
            lane_max(chunk, &mut maxima);
            self.candidates.extend(maxima.iter().map(|v| u64::from(ordered(*v))));
        }
        if self.candidates.len() < k {
            return f32::NEG_INFINITY;
        }
        let (_, kth, _) = self.candidates.select_nth_unstable_by(k - 1, |a, b| b.cmp(a));
        unordered(*kth as u32)
    }
}

#[inline(always)]
fn lane_max_body<const FMA: bool>(chunk: &[f32], maxima: &mut [f32; LANES]) {
    let mut acc = *maxima;
    for c in chunk.as_chunks::<LANES>().0 {
        for l in 0..LANES {
            acc[l] = if c[l] > acc[l] { c[l] } else { acc[l] };
        }
    }
    *maxima = acc;
}
simd_fn!(fn lane_max(chunk: &[f32], maxima: &mut [f32; LANES]) = lane_max_body);

#[inline(always)]
fn collect_body<const FMA: bool>(row: &[f32], bound: f32, out: &mut Vec<u64>) {
    let (chunks, rest) = row.as_chunks::<{ 2 * LANES }>();
    for (c, chunk) in chunks.iter().enumerate() {
        let mut any = false;
        for v in chunk {
            any |= *v >= bound;
        }
        if any {
            for (l, v) in chunk.iter().enumerate() {
                if *v >= bound {
                    out.push(pack(*v, c * 2 * LANES + l));
                }
            }
        }
    }
    let from = row.len() - rest.len();
    for (l, v) in rest.iter().enumerate() {
        if *v >= bound {
            out.push(pack(*v, from + l));
        }
    }
}
simd_fn!(fn collect(row: &[f32], bound: f32, out: &mut Vec<u64>) = collect_body);

/// An integer that orders as the float does; -0 is taken as 0.
#[inline(always)]
fn ordered(v: f32) -> u32 {
    let bits = (v + 0.0).to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 0x8000_0000 }
}

fn unordered(o: u32) -> f32 {
    f32::from_bits(if o >> 31 == 1 { o & 0x7fff_ffff } else { !o })
}

#[inline(always)]
fn pack(v: f32, i: usize) -> u64 {
    (u64::from(ordered(v)) << 32) | u64::from(!(i as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_above_their_bounds_are_found_in_order() {
        for f in [0, 5, 32, 100] {
            let row: Vec<f32> = (0..f).map(|i| (i as f32 * 1.7).sin()).collect();
            let bounds: Vec<f32> = (0..f).map(|i| (i as f32 * 0.3).cos()).collect();
            let mut found = vec![9];
            above(&row, &bounds, &mut found);
            let want = (0..f).filter(|i| row[*i] > bounds[*i]).map(|i| i as u32);
            assert_eq!(found, std::iter::once(9).chain(want).collect::<Vec<u32>>());
        }
    }

    #[test]
    fn nan_leaves_nothing_unwritten() {
        let (mut values, mut idx) = (vec![7f32; 4], vec![9u32; 4]);
        row_topk(&[f32::NAN; 8], 8, 4, &mut values, &mut idx);
        assert!(values.iter().all(|v| v.is_nan() || *v == f32::NEG_INFINITY) && idx.iter().all(|i| *i < 8));
    }

    #[test]
    fn agrees_with_a_full_sort() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / 1e6 - 8.0
        };
        for (f, k) in [(1, 1), (5, 5), (100, 7), (513, 32), (4096, 32), (4096, 300), (2048, 1)] {
            // Few distinct values at every second shape, so that ties are met.
            let x: Vec<f32> = (0..3 * f).map(|_| if k % 2 == 0 { next().round() } else { next() }).collect();
            let (mut values, mut idx) = (vec![0f32; 3 * k], vec![0u32; 3 * k]);
            row_topk(&x, f, k, &mut values, &mut idx);
            for r in 0..3 {
                let row = &x[r * f..(r + 1) * f];
                let mut order: Vec<usize> = (0..f).collect();
                order.sort_by(|a, b| row[*b].partial_cmp(&row[*a]).unwrap().then(a.cmp(b)));
                let got: Vec<usize> = idx[r * k..(r + 1) * k].iter().map(|i| *i as usize).collect();
                assert_eq!(got, order[..k], "f {f} k {k}");
                assert!(got.iter().zip(&values[r * k..]).all(|(i, v)| row[*i] == *v));
            }
        }
    }
}
