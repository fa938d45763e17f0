//! Rotary position embedding.

use std::sync::Arc;

use crate::cpu::buffer;
use crate::cpu::rope::{RopeTable, rotate};
use crate::{Result, Tape, TensorError, Value, f32s, tensor};

impl Tape {
    /// Rotates each head of each row by its position's angles (Su et al. 2021, "half" convention); dimensions beyond
    /// the table's planes stay as they are.
    ///
    /// # Shapes
    /// `x [.., heads * C] with N rows, positions_N their positions -> the shape of x`
    ///
    /// # Errors
    /// Rows, widths or positions that the table does not fit.
    pub fn rope(&self, x: &Value, table: &Arc<RopeTable>, positions_N: &[usize]) -> Result<Value> {
        let row_len = *x.tensor.dims().last().unwrap_or(&0);
        if row_len == 0 || !row_len.is_multiple_of(table.d_head) || x.tensor.elem_count() != row_len * positions_N.len()
        {
            let detail =
                format!("{:?} for {} positions, heads of {}", x.tensor.dims(), positions_N.len(), table.d_head);
            return Err(TensorError::shape("rope", detail));
        }
        if let Some(p) = positions_N.iter().find(|p| **p >= table.n_positions()) {
            return Err(TensorError::Index { op: "rope", index: *p as u64, len: table.n_positions() });
        }
        let mut out = buffer(x.tensor.elem_count());
        rotate(table, positions_N, row_len, &f32s(&x.tensor)?, &mut out, false);
        let out = tensor(out, x.tensor.dims())?;
        Ok(self.record(out, &[x], || {
            let (table, positions_N) = (table.clone(), positions_N.to_vec());
            Box::new(move |grad, _| {
                let mut dx = buffer(grad.elem_count());
                rotate(&table, &positions_N, row_len, &f32s(grad)?, &mut dx, true);
                Ok(vec![Some(tensor(dx, grad.dims())?)])
            })
        }))
    }
}
