//! Element-wise ops.

use candle_core::Tensor;

use crate::cpu::activation::{Act, activate, activate_back, gated, gated_back, soft_cap};
use crate::cpu::simd::simd_fn;
use crate::cpu::{buffer, for_rows};
use crate::{Result, Tape, TensorError, Value, f32s, tensor};

use super::rows_of;

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

    /// `act(gate) * up`.
    ///
    /// # Errors
    /// Shapes that differ.
    pub fn gated(&self, act: Act, gate: &Value, up: &Value) -> Result<Value> {
        same_dims("gated", &gate.tensor, &up.tensor)?;
        let mut out = buffer(gate.tensor.elem_count());
        gated(act, &f32s(&gate.tensor)?, &f32s(&up.tensor)?, &mut out);
        let out = tensor(out, gate.tensor.dims())?;
        Ok(self.record(out, &[gate, up], || {
            let (gate, up) = (gate.tensor.clone(), up.tensor.clone());
            Box::new(move |grad, _| {
                let (mut dgate, mut dup) = (buffer(gate.elem_count()), buffer(gate.elem_count()));
                gated_back(act, &f32s(&gate)?, &f32s(&up)?, &f32s(grad)?, &mut dgate, &mut dup);
                Ok(vec![Some(tensor(dgate, gate.dims())?), Some(tensor(dup, gate.dims())?)])
            })
        }))
    }

    /// `act(x)`.
    ///
    /// # Errors
    /// The engine's.
    pub fn activate(&self, act: Act, x: &Value) -> Result<Value> {
        let mut out = buffer(x.tensor.elem_count());
        activate(act, &f32s(&x.tensor)?, &mut out);
        let out = tensor(out, x.tensor.dims())?;
        Ok(self.record(out, &[x], || {
            let x = x.tensor.clone();
            Box::new(move |grad, _| {
                let mut dx = buffer(x.elem_count());
                activate_back(act, &f32s(&x)?, &f32s(grad)?, &mut dx);
                Ok(vec![Some(tensor(dx, x.dims())?)])
            })
        }))
    }

    /// `cap tanh(x / cap)`.
    ///
    /// # Errors
    /// The engine's.
    pub fn soft_cap(&self, x: &Value, cap: f32) -> Result<Value> {
        let mut out = f32s(&x.tensor)?.to_vec();
        soft_cap(cap, &mut out);
        let out = tensor(out, x.tensor.dims())?;
        Ok(self.record(out.clone(), &[x], || {
            Box::new(move |grad, _| {
                let slope = |(y, d): (&f32, &f32)| d * (1.0 - (y / cap) * (y / cap));
                let dx = f32s(&out)?.iter().zip(f32s(grad)?.iter()).map(slope).collect::<Vec<f32>>();
                Ok(vec![Some(tensor(dx, out.dims())?)])
            })
        }))
    }

    /// `factor * x`.
    ///
    /// # Errors
    /// The engine's.
    pub fn scale(&self, x: &Value, factor: f32) -> Result<Value> {
        let scaled = move |x: &Tensor| tensor(f32s(x)?.iter().map(|v| factor * v).collect::<Vec<f32>>(), x.dims());
        let out = scaled(&x.tensor)?;
        Ok(self.record(out, &[x], || Box::new(move |grad, _| Ok(vec![Some(scaled(grad)?)]))))
    }

    /// `x * gain (+ bias)`, row by row: what a norm does after normalising.
    ///
    /// # Shapes
    /// `x [.., D], gain [D], bias [D] -> [.., D]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn affine(&self, x: &Value, gain: &Value, bias: Option<&Value>) -> Result<Value> {
        let d = gain.tensor.dims1()?;
        rows_of("affine", &x.tensor, d)?;
        if bias.is_some_and(|b| b.tensor.dims() != [d]) {
            return Err(TensorError::shape("affine", format!("a bias of {d} values is needed")));
        }
        let mut out = buffer(x.tensor.elem_count());
        let (xs, gains) = (f32s(&x.tensor)?, f32s(&gain.tensor)?);
        let biases = bias.map(|b| f32s(&b.tensor)).transpose()?;
        for_rows(&mut out, d, |r, row| {
            row.iter_mut().zip(&xs[r * d..]).zip(gains.iter()).for_each(|((o, x), g)| *o = x * g);
            if let Some(biases) = &biases {
                row.iter_mut().zip(biases.iter()).for_each(|(o, b)| *o += b);
            }
        });
        let out = tensor(out, x.tensor.dims())?;
        let none = Value::from(&out);
        Ok(self.record(out, &[x, gain, bias.unwrap_or(&none)], || {
            let (x, gain) = (x.tensor.clone(), gain.tensor.clone());
            Box::new(move |grad, needs| {
                let (dy, xs, gains) = (f32s(grad)?, f32s(&x)?, f32s(&gain)?);
                let mut dx = buffer(x.elem_count());
                for_rows(&mut dx, d, |r, row| {
                    row.iter_mut().zip(&dy[r * d..]).zip(gains.iter()).for_each(|((dx, dy), g)| *dx = dy * g);
                });
                let (mut dgain, mut dbias) = (vec![0f32; d], vec![0f32; d]);
                if needs[1] || needs[2] {
                    for (dy, x) in dy.chunks_exact(d).zip(xs.chunks_exact(d)) {
                        for i in 0..d {
                            dgain[i] += dy[i] * x[i];
                            dbias[i] += dy[i];
                        }
                    }
                }
                Ok(vec![Some(tensor(dx, x.dims())?), Some(tensor(dgain, d)?), Some(tensor(dbias, d)?)])
            })
        }))
    }
}
