//! Sums, scaling and SwiGLU.

use candle_core::Tensor;

use crate::cpu::simd::simd_fn;
use crate::cpu::swiglu::{swiglu, swiglu_back};
use crate::cpu::{buffer, for_rows};
use crate::{Result, Tape, TensorError, Value, f32s, tensor};

/// Values that one task adds.
const CHUNK: usize = 8192;

#[inline(always)]
fn add_body<const FMA: bool>(a: &[f32], b: &[f32], out: &mut [f32]) {
    for ((o, a), b) in out.iter_mut().zip(a).zip(b) {
        *o = a + b;
    }
}
simd_fn!(fn add_slices(a: &[f32], b: &[f32], out: &mut [f32]) = add_body);

/// Element-wise sum.
pub(crate) fn add_tensors(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    same_dims("add", a, b)?;
    let (x, y) = (f32s(a)?, f32s(b)?);
    let mut out = buffer(x.len());
    let whole = out.len() / CHUNK * CHUNK;
    let (head, tail) = out.split_at_mut(whole);
    for_rows(head, CHUNK, |i, row| add_slices(&x[i * CHUNK..(i + 1) * CHUNK], &y[i * CHUNK..(i + 1) * CHUNK], row));
    add_slices(&x[whole..], &y[whole..], tail);
    tensor(out, a.dims())
}

fn same_dims(op: &'static str, a: &Tensor, b: &Tensor) -> Result<()> {
    match a.dims() == b.dims() {
        true => Ok(()),
        false => Err(TensorError::shape(op, format!("{:?} and {:?}", a.dims(), b.dims()))),
    }
}

impl Tape {
    /// Element-wise sum of two values of the same shape.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn add(&self, a: &Value, b: &Value) -> Result<Value> {
        let out = add_tensors(&a.tensor, &b.tensor)?;
        Ok(self.record(out, &[a, b], || Box::new(|grad, _| Ok(vec![Some(grad.clone()), Some(grad.clone())]))))
    }

    /// The same values under another shape.
    ///
    /// # Errors
    /// The shapes hold different numbers of values.
    pub fn reshape(&self, x: &Value, dims: &[usize]) -> Result<Value> {
        let out = x.tensor.reshape(dims)?;
        Ok(self.record(out, &[x], || {
            let dims = x.tensor.dims().to_vec();
            Box::new(move |grad, _| Ok(vec![Some(grad.reshape(dims.clone())?)]))
        }))
    }

    /// `silu(gate) * up`.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn swiglu(&self, gate: &Value, up: &Value) -> Result<Value> {
        same_dims("swiglu", &gate.tensor, &up.tensor)?;
        let mut out = buffer(gate.tensor.elem_count());
        swiglu(&f32s(&gate.tensor)?, &f32s(&up.tensor)?, &mut out);
        let out = tensor(out, gate.tensor.dims())?;
        Ok(self.record(out, &[gate, up], || {
            let (gate, up) = (gate.tensor.clone(), up.tensor.clone());
            Box::new(move |grad, _| {
                let (mut dgate, mut dup) = (buffer(gate.elem_count()), buffer(gate.elem_count()));
                swiglu_back(&f32s(&gate)?, &f32s(&up)?, &f32s(grad)?, &mut dgate, &mut dup);
                Ok(vec![Some(tensor(dgate, gate.dims())?), Some(tensor(dup, gate.dims())?)])
            })
        }))
    }
}
