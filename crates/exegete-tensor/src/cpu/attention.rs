//! Causal grouped-query attention over rows of any lengths, forward and backward.
//!
//! Keys and values are read where they lie: a group's heads share them without a copy, and rows that continue one
//! prefix share its memory. The backward pass recomputes the pattern from the saved log-sum-exp of each query (Dao et
//! al. 2022), so nothing of size T x S is kept.

use std::cell::RefCell;
use std::ops::Range;

use super::Shared;
use super::activation::soft_cap_in_place;
use super::gemm::{Into, Mat, gemm, gemm_at};
use super::loss::{exp_less, softmax_in_place};
use super::simd::{axpy, axpy_body, dot, dot_body, simd_fn};

/// The queries of one sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionRow {
    /// Its first query among all tokens of the call.
    pub first: usize,
    /// Queries.
    pub n: usize,
    /// Positions before the first query.
    pub past: usize,
}

/// Shape of one attention call.
///
/// Queries are `[N, n_heads * d_head]`, the tokens of all rows behind each other. The query at position p sees the keys
/// `0..=p`, or the last `window` of them.
#[derive(Debug, Clone)]
pub struct AttentionShape {
    /// Sequences.
    pub rows: Vec<AttentionRow>,
    /// Query heads.
    pub n_heads: usize,
    /// Key and value heads; divides `n_heads`.
    pub n_kv_heads: usize,
    /// Width of one head.
    pub d_head: usize,
    /// Factor of the scores.
    pub scale: f32,
    /// Scores become `c tanh(score / c)`.
    pub soft_cap: Option<f32>,
    /// Keys that a query sees, its own included.
    pub window: Option<usize>,
}

/// Consecutive keys and values of one sequence, `[len, n_kv_heads * d_head]` each.
#[derive(Clone, Copy)]
pub struct KeySpan<'a> {
    /// Keys, after rotation.
    pub keys: &'a [f32],
    /// Values.
    pub values: &'a [f32],
    /// Positions.
    pub len: usize,
}

/// The keys of every sequence, in spans from position 0 on.
pub struct Keys<'a> {
    spans: Vec<KeySpan<'a>>,
    of_row: Vec<Range<usize>>,
}

impl<'a> Keys<'a> {
    /// From the spans of each row.
    pub fn new(rows: impl IntoIterator<Item = Vec<KeySpan<'a>>>) -> Self {
        let (mut spans, mut of_row) = (Vec::new(), Vec::new());
        for row in rows {
            let from = spans.len();
            spans.extend(row.into_iter().filter(|s| s.len > 0));
            of_row.push(from..spans.len());
        }
        Self { spans, of_row }
    }

    /// The keys of a call without a cache: `keys` and `values` are `[N, n_kv_heads * d_head]`, token by token.
    pub fn of_tokens(s: &AttentionShape, keys: &'a [f32], values: &'a [f32]) -> Self {
        let w = s.kv_stride();
        Self::new(s.rows.iter().map(|row| {
            let range = row.first * w..(row.first + row.n) * w;
            vec![KeySpan { keys: &keys[range.clone()], values: &values[range], len: row.n }]
        }))
    }

    fn row(&self, b: usize) -> &[KeySpan<'a>] {
        &self.spans[self.of_row[b].clone()]
    }

    /// Whether every row has exactly the keys that its queries look at.
    pub fn fit(&self, s: &AttentionShape) -> bool {
        let w = s.kv_stride();
        let whole = |span: &KeySpan| span.keys.len() >= span.len * w && span.values.len() >= span.len * w;
        self.of_row.len() == s.rows.len()
            && self.spans.iter().all(whole)
            && s.rows.iter().enumerate().all(|(b, r)| self.row(b).iter().map(|x| x.len).sum::<usize>() == r.past + r.n)
    }
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
    /// Tokens of the call.
    pub fn n_tokens(&self) -> usize {
        self.rows.iter().map(|r| r.n).sum()
    }

    /// The most keys that any query sees of its row.
    pub fn n_keys(&self) -> usize {
        self.rows.iter().map(|r| r.past + r.n).max().unwrap_or(0)
    }

    fn q_stride(&self) -> usize {
        self.n_heads * self.d_head
    }

    /// Values of a key of all heads.
    pub fn kv_stride(&self) -> usize {
        self.n_kv_heads * self.d_head
    }

    /// The key head of a query head.
    fn group(&self, h: usize) -> usize {
        h / (self.n_heads / self.n_kv_heads)
    }

    /// First key that the query at a position sees.
    fn seen_from(&self, position: usize) -> usize {
        self.window.map_or(0, |w| (position + 1).saturating_sub(w))
    }

    /// Offset of query `i` of a row in the query buffer.
    fn q_at(&self, row: AttentionRow, i: usize, h: usize) -> usize {
        (row.first + i) * self.q_stride() + h * self.d_head
    }

    fn head<'a>(&self, kv: &'a [f32], from: usize, g: usize) -> Mat<'a> {
        let w = self.kv_stride();
        Mat { data: &kv[from * w + g * self.d_head..], row_stride: w, col_stride: 1 }
    }

    fn queries<'a>(&self, q: &'a [f32], row: AttentionRow, i: usize, h: usize) -> Mat<'a> {
        Mat { data: &q[self.q_at(row, i, h)..], row_stride: self.q_stride(), col_stride: 1 }
    }

    /// (row, head) pairs, and whether there is enough to do for several threads.
    fn tasks(&self, heads: usize) -> (usize, bool) {
        let work: usize = self.rows.iter().map(|r| r.n * (r.past + r.n)).sum();
        (self.rows.len() * heads, work * self.n_heads * self.d_head >= super::PARALLEL_FROM / 4)
    }

    fn for_tasks(&self, heads: usize, task: impl Fn(usize) + Sync + Send) {
        let (n, parallel) = self.tasks(heads);
        match parallel {
            true => super::team::for_tasks(n, task),
            false => (0..n).for_each(task),
        }
    }
}

/// The part of a span that lies in the columns `lo..hi`: (first of its keys, first column, how many).
fn overlap(at: usize, len: usize, lo: usize, hi: usize) -> Option<(usize, usize, usize)> {
    let (from, to) = (at.max(lo), (at + len).min(hi));
    (from < to).then(|| (from - at, from - lo, to - from))
}

/// A block of queries of one (row, head), and the keys that any of them sees.
#[derive(Clone, Copy)]
struct Block<'a> {
    s: &'a AttentionShape,
    spans: &'a [KeySpan<'a>],
    row: AttentionRow,
    h: usize,
    i0: usize,
    i1: usize,
    lo: usize,
    hi: usize,
}

impl<'a> Block<'a> {
    fn all(s: &'a AttentionShape, keys: &'a Keys, b: usize, h: usize) -> impl Iterator<Item = Block<'a>> {
        let (row, spans) = (s.rows[b], keys.row(b));
        (0..row.n).step_by(BLOCK).map(move |i0| {
            let i1 = (i0 + BLOCK).min(row.n);
            Block { s, spans, row, h, i0, i1, lo: s.seen_from(row.past + i0), hi: row.past + i1 }
        })
    }

    fn n_cols(&self) -> usize {
        self.hi - self.lo
    }

    /// The columns that query `i` sees.
    fn seen(&self, i: usize) -> Range<usize> {
        let position = self.row.past + i;
        self.s.seen_from(position) - self.lo..position + 1 - self.lo
    }

    /// Calls `f(keys, values, first column, columns)` for each span.
    fn for_spans(&self, mut f: impl FnMut(Mat, Mat, usize, usize)) {
        let (mut at, g) = (0, self.s.group(self.h));
        for span in self.spans {
            if let Some((from, col, n)) = overlap(at, span.len, self.lo, self.hi) {
                f(self.s.head(span.keys, from, g), self.s.head(span.values, from, g), col, n);
            }
            at += span.len;
        }
    }

    /// Scores of the block, soft-capped, not masked: `[queries, columns]` with rows `stride` apart.
    ///
    /// # Safety
    /// `scores` points at as many rows of `stride` values as the block has queries, which nothing else touches.
    unsafe fn scores(&self, q: &[f32], scores: *mut f32, stride: usize) {
        let (s, rows) = (self.s, self.i1 - self.i0);
        let queries = s.queries(q, self.row, self.i0, self.h);
        self.for_spans(|keys, _, col, n| {
            // SAFETY: the columns lie within the rows, by the caller's promise.
            unsafe {
                let to = scores.add(col);
                gemm_at((rows, n, s.d_head), to, stride, Into::Overwrite, s.scale, queries, keys.t(), false);
            }
        });
        if let Some(cap) = s.soft_cap {
            for r in 0..rows {
                // SAFETY: as above.
                let row = unsafe { std::slice::from_raw_parts_mut(scores.add(r * stride), self.n_cols()) };
                soft_cap_in_place(cap, row);
            }
        }
    }

    /// `pattern values` into the block's rows of `z`.
    ///
    /// # Safety
    /// `z` is the buffer of all queries' results, of which nothing else touches this block's rows of this head.
    unsafe fn mix(&self, pattern: Mat, z: Shared) {
        let (s, rows) = (self.s, self.i1 - self.i0);
        let mut into = Into::Overwrite;
        self.for_spans(|_, values, col, n| {
            let pattern = Mat { data: &pattern.data[col..], ..pattern };
            // SAFETY: by the caller's promise.
            unsafe {
                let z = z.at(s.q_at(self.row, self.i0, self.h));
                gemm_at((rows, s.d_head, n), z, s.q_stride(), into, 1.0, pattern, values, false);
            }
            into = Into::Add;
        });
    }
}

/// Attention: `z [N, n_heads * d_head]`, and `lse [N, n_heads]` for the backward pass.
pub fn attention(s: &AttentionShape, q: &[f32], keys: &Keys, z: &mut [f32], lse: &mut [f32]) {
    let (z, lse) = (Shared(z.as_mut_ptr()), Shared(lse.as_mut_ptr()));
    s.for_tasks(s.n_heads, |t| {
        let (b, h) = (t / s.n_heads, t % s.n_heads);
        let row = s.rows[b];
        // SAFETY: one task owns the log-sum-exps of one (row, head).
        let put_lse = |i: usize, value: f32| unsafe { lse.range((row.first + i) * s.n_heads + h, 1)[0] = value };
        if row.n == 1 {
            // SAFETY: one task owns one head of one query.
            let z = unsafe { z.range(s.q_at(row, 0, h), s.d_head) };
            put_lse(0, one_query(s, row, h, q, keys.row(b), z));
            return;
        }
        for block in Block::all(s, keys, b, h) {
            let n_cols = block.n_cols();
            with_scratch((block.i1 - block.i0) * n_cols, |pattern| {
                // SAFETY: the scratch has the block's size and is this task's.
                unsafe { block.scores(q, pattern.as_mut_ptr(), n_cols) };
                for (i, row) in (block.i0..block.i1).zip(pattern.chunks_exact_mut(n_cols)) {
                    put_lse(i, softmax_seen(row, block.seen(i)));
                }
                // SAFETY: the block's rows, at this head's columns, belong to this task.
                unsafe { block.mix(Mat::rows(pattern, n_cols), z) };
            });
        }
    });
}

/// Softmax over the columns that are seen, zero elsewhere; returns the log-sum-exp.
fn softmax_seen(row: &mut [f32], seen: Range<usize>) -> f32 {
    row[..seen.start].fill(0.0);
    row[seen.end..].fill(0.0);
    softmax_in_place(&mut row[seen])
}

/// Decoding's case: one query against all keys, without a matrix product's set-up.
fn one_query(s: &AttentionShape, row: AttentionRow, h: usize, q: &[f32], spans: &[KeySpan], z: &mut [f32]) -> f32 {
    let (lo, hi, w) = (s.seen_from(row.past), row.past + 1, s.kv_stride());
    let query = &q[s.q_at(row, 0, h)..][..s.d_head];
    let offset = s.group(h) * s.d_head;
    with_scratch(hi - lo, |scores| {
        let mut at = 0;
        for span in spans {
            if let Some((from, col, n)) = overlap(at, span.len, lo, hi) {
                score_keys(query, &span.keys[from * w + offset..], w, s.scale, &mut scores[col..col + n]);
            }
            at += span.len;
        }
        if let Some(cap) = s.soft_cap {
            soft_cap_in_place(cap, scores);
        }
        let lse = softmax_in_place(scores);
        z.fill(0.0);
        let mut at = 0;
        for span in spans {
            if let Some((from, col, n)) = overlap(at, span.len, lo, hi) {
                mix_values(&scores[col..col + n], &span.values[from * w + offset..], w, z);
            }
            at += span.len;
        }
        lse
    })
}

#[inline(always)]
fn score_keys_body<const FMA: bool>(query: &[f32], keys: &[f32], stride: usize, scale: f32, scores: &mut [f32]) {
    for (j, score) in scores.iter_mut().enumerate() {
        *score = dot_body::<FMA>(query, &keys[j * stride..][..query.len()]) * scale;
    }
}
simd_fn!(
    /// `scores[j] = scale * query . keys[j * stride..]`.
    fn score_keys(query: &[f32], keys: &[f32], stride: usize, scale: f32, scores: &mut [f32]) = score_keys_body
);

#[inline(always)]
fn mix_values_body<const FMA: bool>(weights: &[f32], values: &[f32], stride: usize, z: &mut [f32]) {
    for (j, weight) in weights.iter().enumerate() {
        axpy_body::<FMA>(*weight, &values[j * stride..][..z.len()], z);
    }
}
simd_fn!(
    /// `z += sum of weights[j] * values[j * stride..]`.
    fn mix_values(weights: &[f32], values: &[f32], stride: usize, z: &mut [f32]) = mix_values_body
);

/// Gradients of [`attention`] without a cache with respect to queries, keys and values, all in the layouts of those.
pub fn attention_back(
    s: &AttentionShape,
    (q, k, v): (&[f32], &[f32], &[f32]),
    (z, lse): (&[f32], &[f32]),
    dz: &[f32],
    (dq, dk, dv): (&mut [f32], &mut [f32], &mut [f32]),
) {
    dk.fill(0.0);
    dv.fill(0.0);
    let keys = Keys::of_tokens(s, k, v);
    let (dq, dk, dv) = (Shared(dq.as_mut_ptr()), Shared(dk.as_mut_ptr()), Shared(dv.as_mut_ptr()));
    let per_group = s.n_heads / s.n_kv_heads;
    s.for_tasks(s.n_kv_heads, |t| {
        let (b, g) = (t / s.n_kv_heads, t % s.n_kv_heads);
        for h in g * per_group..(g + 1) * per_group {
            for block in Block::all(s, &keys, b, h) {
                let (rows, n_cols) = (block.i1 - block.i0, block.n_cols());
                with_scratch(3 * rows * n_cols, |scratch| {
                    let (pattern, rest) = scratch.split_at_mut(rows * n_cols);
                    let (dscore, capped) = rest.split_at_mut(rows * n_cols);
                    // SAFETY: the scratch has the block's size and is this task's.
                    unsafe { block.scores(q, pattern.as_mut_ptr(), n_cols) };
                    if s.soft_cap.is_some() {
                        capped.copy_from_slice(pattern);
                    }
                    for (i, row) in (block.i0..block.i1).zip(pattern.chunks_exact_mut(n_cols)) {
                        let seen = block.seen(i);
                        row[..seen.start].fill(0.0);
                        row[seen.end..].fill(0.0);
                        exp_less(&mut row[seen], lse[(block.row.first + i) * s.n_heads + h]);
                    }
                    let dz_block = s.queries(dz, block.row, block.i0, h);
                    let shape = (rows, n_cols, s.d_head);
                    let values = s.head(v, block.row.first + block.lo, g);
                    gemm(shape, dscore, n_cols, Into::Overwrite, 1.0, dz_block, values.t(), false);
                    for (r, i) in (block.i0..block.i1).enumerate() {
                        let at = s.q_at(block.row, i, h);
                        let inner = dot(&dz[at..at + s.d_head], &z[at..at + s.d_head]);
                        let range = r * n_cols..(r + 1) * n_cols;
                        for (ds, p) in dscore[range.clone()].iter_mut().zip(&pattern[range]) {
                            *ds = p * (*ds - inner);
                        }
                    }
                    if let Some(cap) = s.soft_cap {
                        for ((ds, c), p) in dscore.iter_mut().zip(capped.iter()).zip(pattern.iter()) {
                            // Scores that are not seen have no slope, whatever they are.
                            *ds *= if *p == 0.0 { 0.0 } else { 1.0 - (c / cap) * (c / cap) };
                        }
                    }
                    let pattern_t = Mat::rows(pattern, n_cols).t();
                    let dscore = Mat::rows(dscore, n_cols);
                    let (by_keys, by_queries) = ((n_cols, s.d_head, rows), (rows, s.d_head, n_cols));
                    let queries = s.queries(q, block.row, block.i0, h);
                    let key = s.head(k, block.row.first + block.lo, g);
                    let kv_at = (block.row.first + block.lo) * s.kv_stride() + g * s.d_head;
                    // SAFETY: this task owns the columns of key head g in this row, and of its query heads.
                    unsafe {
                        let dv = dv.at(kv_at);
                        gemm_at(by_keys, dv, s.kv_stride(), Into::Add, 1.0, pattern_t, dz_block, false);
                        let dq = dq.at(s.q_at(block.row, block.i0, h));
                        gemm_at(by_queries, dq, s.q_stride(), Into::Overwrite, s.scale, dscore, key, false);
                        let dk = dk.at(kv_at);
                        gemm_at(by_keys, dk, s.kv_stride(), Into::Add, s.scale, dscore.t(), queries, false);
                    }
                });
            }
        }
    });
}

/// Scores alone, for those who look at them: `[N, n_heads, n_keys]`, -inf where a key is not seen or not there.
pub fn attention_scores(s: &AttentionShape, q: &[f32], keys: &Keys, scores: &mut [f32]) {
    let n_keys = s.n_keys();
    scores.fill(f32::NEG_INFINITY);
    let stride = s.n_heads * n_keys;
    let scores = Shared(scores.as_mut_ptr());
    s.for_tasks(s.n_heads, |t| {
        let (b, h) = (t / s.n_heads, t % s.n_heads);
        for block in Block::all(s, keys, b, h) {
            let at = |i: usize| (block.row.first + i) * stride + h * n_keys + block.lo;
            // SAFETY: this task owns head h of this row's queries; the columns lo..hi lie within n_keys.
            unsafe { block.scores(q, scores.at(at(block.i0)), stride) };
            for i in block.i0..block.i1 {
                // SAFETY: as above.
                let row = unsafe { scores.range(at(i), block.n_cols()) };
                let seen = block.seen(i);
                row[..seen.start].fill(f32::NEG_INFINITY);
                row[seen.end..].fill(f32::NEG_INFINITY);
            }
        }
    });
}

/// Gradients of [`attention_scores`] without a cache with respect to queries and keys, given that of the scores and
/// the scores themselves.
pub fn attention_scores_back(
    s: &AttentionShape,
    (q, k): (&[f32], &[f32]),
    (scores, dscores): (&[f32], &[f32]),
    (dq, dk): (&mut [f32], &mut [f32]),
) {
    let n_keys = s.n_keys();
    dq.fill(0.0);
    dk.fill(0.0);
    let (dq, dk) = (Shared(dq.as_mut_ptr()), Shared(dk.as_mut_ptr()));
    let per_group = s.n_heads / s.n_kv_heads;
    s.for_tasks(s.n_kv_heads, |t| {
        let (b, g) = (t / s.n_kv_heads, t % s.n_kv_heads);
        let row = s.rows[b];
        for h in g * per_group..(g + 1) * per_group {
            for i in 0..row.n {
                let position = row.past + i;
                let at = ((row.first + i) * s.n_heads + h) * n_keys;
                let q_at = s.q_at(row, i, h);
                for j in s.seen_from(position)..=position {
                    let score = scores[at + j];
                    let slope = s.soft_cap.map_or(1.0, |cap| 1.0 - (score / cap) * (score / cap));
                    // An edit may have put -inf here; nothing flows through it.
                    let d = if score.is_finite() { dscores[at + j] * slope * s.scale } else { 0.0 };
                    let k_at = (row.first + j) * s.kv_stride() + g * s.d_head;
                    // SAFETY: this task owns key head g of this row and its query heads.
                    unsafe {
                        axpy(d, &k[k_at..k_at + s.d_head], dq.range(q_at, s.d_head));
                        axpy(d, &q[q_at..q_at + s.d_head], dk.range(k_at, s.d_head));
                    }
                }
            }
        }
    });
}

/// `z = pattern values` for a pattern `[N, n_heads, n_keys]`.
pub fn attention_mix(s: &AttentionShape, pattern: &[f32], keys: &Keys, z: &mut [f32]) {
    let n_keys = s.n_keys();
    z.fill(0.0);
    let z = Shared(z.as_mut_ptr());
    // A pattern that was written by hand may look at any key of its row, window or not.
    let open = AttentionShape { window: None, ..s.clone() };
    let s = &open;
    s.for_tasks(s.n_heads, |t| {
        let (b, h) = (t / s.n_heads, t % s.n_heads);
        for block in Block::all(s, keys, b, h) {
            let n_cols = block.n_cols();
            with_scratch((block.i1 - block.i0) * n_cols, |rows| {
                for (i, row) in (block.i0..block.i1).zip(rows.chunks_exact_mut(n_cols)) {
                    let at = ((block.row.first + i) * s.n_heads + h) * n_keys;
                    let seen = block.seen(i).end;
                    row[..seen].copy_from_slice(&pattern[at..at + seen]);
                    // Keys behind the query do not exist yet when it is computed alone, whatever is written here.
                    row[seen..].fill(0.0);
                }
                // SAFETY: the block's rows, at this head's columns, belong to this task.
                unsafe { block.mix(Mat::rows(rows, n_cols), z) };
            });
        }
    });
}

/// Gradients of [`attention_mix`] without a cache with respect to pattern and values.
pub fn attention_mix_back(
    s: &AttentionShape,
    (pattern, v): (&[f32], &[f32]),
    dz: &[f32],
    (dpattern, dv): (&mut [f32], &mut [f32]),
) {
    let n_keys = s.n_keys();
    dpattern.fill(0.0);
    dv.fill(0.0);
    let (dpattern, dv) = (Shared(dpattern.as_mut_ptr()), Shared(dv.as_mut_ptr()));
    let per_group = s.n_heads / s.n_kv_heads;
    s.for_tasks(s.n_kv_heads, |t| {
        let (b, g) = (t / s.n_kv_heads, t % s.n_kv_heads);
        let row = s.rows[b];
        for h in g * per_group..(g + 1) * per_group {
            for i in 0..row.n {
                let at = ((row.first + i) * s.n_heads + h) * n_keys;
                let z_at = s.q_at(row, i, h);
                let dz = &dz[z_at..z_at + s.d_head];
                for j in 0..(row.past + i + 1).min(n_keys) {
                    let v_at = (row.first + j) * s.kv_stride() + g * s.d_head;
                    // SAFETY: this task owns key head g of this row and its query heads.
                    unsafe {
                        dpattern.range(at + j, 1)[0] = dot(dz, &v[v_at..v_at + s.d_head]);
                        axpy(pattern[at + j], dz, dv.range(v_at, s.d_head));
                    }
                }
            }
        }
    });
}

#[cfg(test)]
mod tests;
