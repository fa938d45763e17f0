//! Causal grouped-query attention, forward and backward.
//!
//! Keys and values are read where they lie: a group's heads share them without a copy. The backward pass
//! recomputes the pattern from the saved log-sum-exp of each query (Dao et al. 2022), so nothing of size T x S
//! is kept.

use std::cell::RefCell;

use rayon::prelude::*;

use super::Shared;
use super::linear::{Into, Mat, gemm, gemm_at};
use super::loss::{log_sum_exp, softmax_scaled};
use super::simd::{axpy, dot};

/// Shape of one attention call.
///
/// Queries are `[batch, n_queries, n_heads * d_head]`; keys and values are `[batch, capacity, n_kv_heads * d_head]`,
/// of which the first `past + n_queries` positions are filled. Query i sees keys `start..=past + i`.
#[derive(Debug, Clone)]
pub struct AttentionShape {
    /// Batch rows.
    pub batch: usize,
    /// Queries in each row.
    pub n_queries: usize,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub d_head: usize,
    /// Positions before the first query.
    pub past: usize,
    /// Positions that the key and value buffers hold for each row.
    pub capacity: usize,
    /// First position each row may look at (left padding); empty means 0 for all.
    pub starts_B: Vec<usize>,
}

/// Queries handled together; bounds the scratch at `BLOCK * keys` values.
const BLOCK: usize = 64;

thread_local! {
    static SCRATCH: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with(|cell| {
        let mut scratch = cell.take();
        if scratch.len() < len {
            scratch.resize(len, 0.0);
        }
        let result = f(&mut scratch[..len]);
        cell.replace(scratch);
        result
    })
}

impl AttentionShape {
    fn start(&self, b: usize) -> usize {
        self.starts_B.get(b).copied().unwrap_or(0)
    }

    fn scale(&self) -> f32 {
        1.0 / (self.d_head as f32).sqrt()
    }

    fn q_stride(&self) -> usize {
        self.n_heads * self.d_head
    }

    fn kv_stride(&self) -> usize {
        self.n_kv_heads * self.d_head
    }

    /// Offset of query `i` of (batch row, head) in the query buffer.
    fn q_at(&self, b: usize, i: usize, h: usize) -> usize {
        (b * self.n_queries + i) * self.q_stride() + h * self.d_head
    }

    /// Offset of key `j` of (batch row, key head) in the key and value buffers.
    fn kv_at(&self, b: usize, j: usize, g: usize) -> usize {
        (b * self.capacity + j) * self.kv_stride() + g * self.d_head
    }

    fn kv<'a>(&self, kv: &'a [f32], b: usize, g: usize) -> Mat<'a> {
        Mat { data: &kv[self.kv_at(b, 0, g)..], row_stride: self.kv_stride(), col_stride: 1 }
    }

    fn queries<'a>(&self, q: &'a [f32], b: usize, i: usize, h: usize) -> Mat<'a> {
        Mat { data: &q[self.q_at(b, i, h)..], row_stride: self.q_stride(), col_stride: 1 }
    }
}

/// Attention: `z [batch, n_queries, n_heads * d_head]`, and `lse [batch, n_heads, n_queries]` for the backward pass.
pub fn attention(s: &AttentionShape, q: &[f32], k: &[f32], v: &[f32], z: &mut [f32], lse: &mut [f32]) {
    let (z, lse) = (Shared(z.as_mut_ptr()), Shared(lse.as_mut_ptr()));
    let task = |t: usize| {
        let (b, h) = (t / s.n_heads, t % s.n_heads);
        let g = h / (s.n_heads / s.n_kv_heads);
        // SAFETY: one task owns one (batch row, head) of `lse`.
        let lse = unsafe { lse.range(t * s.n_queries, s.n_queries) };
        if s.n_queries == 1 {
            // SAFETY: one task owns one head of one query row.
            let z = unsafe { z.range(s.q_at(b, 0, h), s.d_head) };
            lse[0] = one_query(s, b, h, g, q, k, v, z);
            return;
        }
        for i0 in (0..s.n_queries).step_by(BLOCK) {
            let i1 = (i0 + BLOCK).min(s.n_queries);
            let n_keys = s.past + i1;
            with_scratch((i1 - i0) * n_keys, |pattern| {
                pattern_block(s, b, h, g, i0..i1, q, k, pattern);
                for (i, row) in (i0..i1).zip(pattern.chunks_exact_mut(n_keys)) {
                    let (from, to) = (s.start(b).min(s.past + i), s.past + i + 1);
                    row[..from].fill(0.0);
                    row[to..].fill(0.0);
                    let seen = &mut row[from..to];
                    lse[i] = log_sum_exp(seen);
                    softmax_in_place(seen, lse[i]);
                }
                let (shape, pattern) = ((i1 - i0, s.d_head, n_keys), Mat::rows(pattern, n_keys));
                // SAFETY: the block's rows, at this head's columns, belong to this task.
                unsafe {
                    let z = z.at(s.q_at(b, i0, h));
                    gemm_at(shape, z, s.q_stride(), Into::Overwrite, 1.0, pattern, s.kv(v, b, g), false);
                }
            });
        }
    };
    let n_tasks = s.batch * s.n_heads;
    if n_tasks * s.n_queries * (s.past + s.n_queries) * s.d_head < super::PARALLEL_FROM * 4 {
        (0..n_tasks).for_each(task);
    } else {
        (0..n_tasks).into_par_iter().for_each(task);
    }
}

/// Scaled scores of a block of queries against keys `0..past + block.end`.
fn pattern_block(
    s: &AttentionShape,
    b: usize,
    h: usize,
    g: usize,
    block: std::ops::Range<usize>,
    q: &[f32],
    k: &[f32],
    scores: &mut [f32],
) {
    let n_keys = s.past + block.end;
    let shape = (block.len(), n_keys, s.d_head);
    let queries = s.queries(q, b, block.start, h);
    gemm(shape, scores, n_keys, Into::Overwrite, s.scale(), queries, s.kv(k, b, g).t(), false);
}

fn softmax_in_place(row: &mut [f32], lse: f32) {
    // One buffer is read and written at the same index, which `softmax_scaled` cannot express safely.
    let len = row.len();
    let source = row.as_ptr();
    // SAFETY: element i is read before it is written, and nothing else aliases the row.
    let source = unsafe { std::slice::from_raw_parts(source, len) };
    softmax_scaled(source, lse, 1.0, row);
}

/// Decoding's case: one query against all keys, without a matrix product's set-up.
fn one_query(s: &AttentionShape, b: usize, h: usize, g: usize, q: &[f32], k: &[f32], v: &[f32], z: &mut [f32]) -> f32 {
    let (from, to) = (s.start(b).min(s.past), s.past + 1);
    let query = &q[s.q_at(b, 0, h)..][..s.d_head];
    with_scratch(to - from, |row| {
        for (score, j) in row.iter_mut().zip(from..to) {
            *score = dot(query, &k[s.kv_at(b, j, g)..][..s.d_head]) * s.scale();
        }
        let lse = log_sum_exp(row);
        softmax_in_place(row, lse);
        z.fill(0.0);
        for (weight, j) in row.iter().zip(from..to) {
            axpy(*weight, &v[s.kv_at(b, j, g)..][..s.d_head], z);
        }
        lse
    })
}

/// Gradients of [`attention`] with respect to queries, keys and values.
///
/// `dk` and `dv` have the layout of `k` and `v`; positions that no query sees get 0.
pub fn attention_back(
    s: &AttentionShape,
    (q, k, v): (&[f32], &[f32], &[f32]),
    (z, lse): (&[f32], &[f32]),
    dz: &[f32],
    (dq, dk, dv): (&mut [f32], &mut [f32], &mut [f32]),
) {
    dk.fill(0.0);
    dv.fill(0.0);
    let (dq, dk, dv) = (Shared(dq.as_mut_ptr()), Shared(dk.as_mut_ptr()), Shared(dv.as_mut_ptr()));
    let per_group = s.n_heads / s.n_kv_heads;
    (0..s.batch * s.n_kv_heads).into_par_iter().for_each(|t| {
        let (b, g) = (t / s.n_kv_heads, t % s.n_kv_heads);
        for h in g * per_group..(g + 1) * per_group {
            for i0 in (0..s.n_queries).step_by(BLOCK) {
                let i1 = (i0 + BLOCK).min(s.n_queries);
                let (rows, n_keys) = (i1 - i0, s.past + i1);
                with_scratch(2 * rows * n_keys, |scratch| {
                    let (pattern, dscore) = scratch.split_at_mut(rows * n_keys);
                    pattern_block(s, b, h, g, i0..i1, q, k, pattern);
                    for (i, row) in (i0..i1).zip(pattern.chunks_exact_mut(n_keys)) {
                        let (from, to) = (s.start(b).min(s.past + i), s.past + i + 1);
                        row[..from].fill(0.0);
                        row[to..].fill(0.0);
                        softmax_in_place(&mut row[from..to], lse[(b * s.n_heads + h) * s.n_queries + i]);
                    }
                    let dz_block = s.queries(dz, b, i0, h);
                    let shape = (rows, n_keys, s.d_head);
                    gemm(shape, dscore, n_keys, Into::Overwrite, 1.0, dz_block, s.kv(v, b, g).t(), false);
                    let pattern_t = Mat::rows(pattern, n_keys).t();
                    let by_keys = (n_keys, s.d_head, rows);
                    // SAFETY: this task owns the columns of key head g in batch row b, and of its query heads.
                    unsafe {
                        let dv = dv.at(s.kv_at(b, 0, g));
                        gemm_at(by_keys, dv, s.kv_stride(), Into::Add, 1.0, pattern_t, dz_block, false);
                    }
                    for (r, i) in (i0..i1).enumerate() {
                        let at = s.q_at(b, i, h);
                        let inner = dot(&dz[at..at + s.d_head], &z[at..at + s.d_head]);
                        let range = r * n_keys..(r + 1) * n_keys;
                        for (ds, p) in dscore[range.clone()].iter_mut().zip(&pattern[range]) {
                            *ds = p * (*ds - inner);
                        }
                    }
                    let dscore = Mat::rows(dscore, n_keys);
                    let by_queries = (rows, s.d_head, n_keys);
                    let queries = s.queries(q, b, i0, h);
                    // SAFETY: as above.
                    unsafe {
                        let dq = dq.at(s.q_at(b, i0, h));
                        gemm_at(by_queries, dq, s.q_stride(), Into::Overwrite, s.scale(), dscore, s.kv(k, b, g), false);
                        let dk = dk.at(s.kv_at(b, 0, g));
                        gemm_at(by_keys, dk, s.kv_stride(), Into::Add, s.scale(), dscore.t(), queries, false);
                    }
                });
            }
        }
    });
}
