//! Rows of a table by index, forward and backward.

use super::for_rows;

/// `out[i] = table[ids[i]]`. Ids were checked by the caller.
pub fn gather(table: &[f32], d: usize, ids: &[u32], out: &mut [f32]) {
    for_rows(out, d, |i, row| {
        let id = ids[i] as usize;
        row.copy_from_slice(&table[id * d..(id + 1) * d]);
    });
}

/// Gradient with respect to the table: rows of `dy` added at their ids, in order.
pub fn scatter_add(d: usize, ids: &[u32], dy: &[f32], dtable: &mut [f32]) {
    for (row, id) in dy.chunks_exact(d).zip(ids) {
        let id = *id as usize;
        super::simd::axpy(1.0, row, &mut dtable[id * d..(id + 1) * d]);
    }
}
