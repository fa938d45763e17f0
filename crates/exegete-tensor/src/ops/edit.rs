//! A function of the user's own, applied to some rows of an activation.

use std::sync::Arc;

use candle_core::Tensor;

use crate::cpu::buffer;
use crate::{Place, Result, SiteFn, Tape, TensorError, Value, f32s, tensor};

use super::rows_of;

/// The chosen rows of `x`, as a tensor of their own.
fn take(x: &Tensor, d: usize, rows: &[usize]) -> Result<Tensor> {
    let data = f32s(x)?;
    let mut out = buffer(rows.len() * d);
    for (o, r) in out.chunks_exact_mut(d).zip(rows) {
        o.copy_from_slice(&data[r * d..(r + 1) * d]);
    }
    tensor(out, (rows.len(), d))
}

/// `x` with the chosen rows replaced.
fn put(x: &Tensor, d: usize, rows: &[usize], new: &Tensor) -> Result<Tensor> {
    if new.dims() != [rows.len(), d] {
        let detail = format!("an edit returned {:?}, expected {:?}", new.dims(), [rows.len(), d]);
        return Err(TensorError::shape("edit", detail));
    }
    let mut out = f32s(x)?.to_vec();
    for (row, r) in f32s(new)?.chunks_exact(d).zip(rows) {
        out[r * d..(r + 1) * d].copy_from_slice(row);
    }
    tensor(out, x.dims())
}

impl Tape {
    /// Applies `f` to the flattened rows `rows` of `x` (whose places are `places`), leaving the others alone.
    ///
    /// # Shapes
    /// `x [.., D] -> the shape of x`
    ///
    /// # Errors
    /// Those of `f`, or a result of another shape.
    pub fn edit(&self, x: &Value, d: usize, f: &Arc<dyn SiteFn>, rows: &[usize], places: &[Place]) -> Result<Value> {
        let n = rows_of("edit", &x.tensor.reshape(((), d))?, d)?;
        if let Some(r) = rows.iter().find(|r| **r >= n) {
            return Err(TensorError::Index { op: "edit", index: *r as u64, len: n });
        }
        let taken = take(&x.tensor, d, rows)?;
        let out = put(&x.tensor, d, rows, &f.forward(&taken, places)?)?;
        Ok(self.record(out, &[x], || {
            let (f, rows, places) = (f.clone(), rows.to_vec(), places.to_vec());
            Box::new(move |grad, _| {
                let part = f.backward(&taken, &places, &take(grad, d, &rows)?)?;
                Ok(vec![Some(put(grad, d, &rows, &part)?)])
            })
        }))
    }
}
