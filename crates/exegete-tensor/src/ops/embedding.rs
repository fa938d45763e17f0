//! Rows of a table.

use crate::cpu::embedding::{gather, scatter_add};
use crate::cpu::packed::Matrix;
use crate::cpu::{buffer, for_rows};
use crate::{Result, Tape, TensorError, Value, f32s, tensor};

impl Tape {
    /// Rows of a packed table by id. `watched` is the table as a value whose gradient is wanted.
    ///
    /// # Shapes
    /// `table [V, D], N ids -> [N, D]`
    ///
    /// # Errors
    /// An id outside the table.
    pub fn embedding_of(&self, table: &Matrix, watched: Option<&Value>, ids_N: &[u32]) -> Result<Value> {
        let (v, d) = (table.n(), table.k());
        if let Some(id) = ids_N.iter().find(|id| **id as usize >= v) {
            return Err(TensorError::Index { op: "embedding", index: u64::from(*id), len: v });
        }
        let mut out = buffer(ids_N.len() * d);
        for_rows(&mut out, d, |i, row| table.row(ids_N[i] as usize, row));
        let out = tensor(out, (ids_N.len(), d))?;
        let none = Value::from(&out);
        Ok(self.record(out, &[watched.unwrap_or(&none)], || {
            let ids_N = ids_N.to_vec();
            Box::new(move |grad, _| {
                let mut dtable = vec![0f32; v * d];
                scatter_add(d, &ids_N, &f32s(grad)?, &mut dtable);
                Ok(vec![Some(tensor(dtable, (v, d))?)])
            })
        }))
    }

    /// Rows of `table` by id.
    ///
    /// # Shapes
    /// `table [V, D], N ids -> [N, D]`
    ///
    /// # Errors
    /// An id outside the table.
    pub fn embedding(&self, table: &Value, ids_N: &[u32]) -> Result<Value> {
        let (v, d) = table.tensor.dims2()?;
        if let Some(id) = ids_N.iter().find(|id| **id as usize >= v) {
            return Err(TensorError::Index { op: "embedding", index: u64::from(*id), len: v });
        }
        let mut out = buffer(ids_N.len() * d);
        gather(&f32s(&table.tensor)?, d, ids_N, &mut out);
        let out = tensor(out, (ids_N.len(), d))?;
        Ok(self.record(out, &[table], || {
            let ids_N = ids_N.to_vec();
            Box::new(move |grad, _| {
                let mut dtable = vec![0f32; v * d];
                scatter_add(d, &ids_N, &f32s(grad)?, &mut dtable);
                Ok(vec![Some(tensor(dtable, (v, d))?)])
            })
        }))
    }

    /// Rows of a value by index, for example the last position of each sequence.
    ///
    /// # Shapes
    /// `x [N, D], M indices -> [M, D]`
    ///
    /// # Errors
    /// An index outside the rows.
    pub fn rows(&self, x: &Value, idx_M: &[u32]) -> Result<Value> {
        self.embedding(x, idx_M)
    }
}
