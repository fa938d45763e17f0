//! `x w^T (+ bias)`.

use crate::cpu::buffer;
use crate::cpu::linear::{Into, Mat, gemm, linear};
use crate::{Result, Tape, TensorError, Value, f32s, tensor};

use super::{rows_of, with_last};

impl Tape {
    /// Linear map with weights stored `[out, in]`.
    ///
    /// # Shapes
    /// `x [.., in], w [out, in], bias [out] -> [.., out]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn linear(&self, x: &Value, w: &Value, bias: Option<&Value>) -> Result<Value> {
        let (n, k) = w.tensor.dims2()?;
        let m = rows_of("linear", &x.tensor, k)?;
        if bias.is_some_and(|b| b.tensor.dims() != [n]) {
            return Err(TensorError::shape("linear", format!("bias must have {n} values")));
        }
        let mut out = buffer(m * n);
        let bias_data = bias.map(|b| f32s(&b.tensor)).transpose()?;
        linear(m, n, k, &f32s(&x.tensor)?, &f32s(&w.tensor)?, bias_data.as_deref(), &mut out);
        let out = tensor(out, with_last(&x.tensor, n))?;
        let none = Value::from(&out);
        let operands = [x, w, bias.unwrap_or(&none)];
        Ok(self.record(out, &operands, || {
            let dims = x.tensor.dims().to_vec();
            let w_kept = w.tensor.clone();
            // The input is needed for the weight's gradient alone.
            let x_kept = w.is_recorded().then(|| x.tensor.clone());
            Box::new(move |grad, needs| {
                let dy = f32s(grad)?;
                let dx = match needs[0] {
                    true => {
                        let mut dx = buffer(m * k);
                        let w = f32s(&w_kept)?;
                        gemm((m, k, n), &mut dx, k, Into::Overwrite, 1.0, Mat::rows(&dy, n), Mat::rows(&w, k), true);
                        Some(tensor(dx, dims.clone())?)
                    }
                    false => None,
                };
                let dw = match (&x_kept, needs[1]) {
                    (Some(x), true) => {
                        let mut dw = buffer(n * k);
                        let x = f32s(x)?;
                        let (dy, x) = (Mat::rows(&dy, n).t(), Mat::rows(&x, k));
                        gemm((n, k, m), &mut dw, k, Into::Overwrite, 1.0, dy, x, true);
                        Some(tensor(dw, (n, k))?)
                    }
                    _ => None,
                };
                let db = match needs[2] {
                    true => {
                        let mut db = vec![0f32; n];
                        dy.chunks_exact(n).for_each(|row| db.iter_mut().zip(row).for_each(|(b, d)| *b += d));
                        Some(tensor(db, n)?)
                    }
                    false => None,
                };
                Ok(vec![dx, dw, db])
            })
        }))
    }
}
