//! `x w^T (+ bias)`.

use candle_core::Tensor;

use crate::cpu::activation::Act;
use crate::cpu::packed::{Gate, Matrix, weight_gradient};
use crate::cpu::{buffer, for_rows};
use crate::{Result, Tape, TensorError, Value, f32s, tensor};

use super::{rows_of, with_last};

/// `x W^T (+ bias)`, where the matrix lives.
fn forward_by(w: &Matrix, m: usize, x: &[f32], bias: Option<&[f32]>) -> Result<Vec<f32>> {
    let Some(device) = w.device() else {
        let mut out = buffer(m * w.n());
        w.forward(m, x, bias, &mut out);
        return Ok(out);
    };
    let mut out = device.forward(m, x)?;
    if let Some(bias) = bias {
        for_rows(&mut out, w.n(), |_, row| row.iter_mut().zip(bias).for_each(|(o, b)| *o += b));
    }
    Ok(out)
}

/// `dy W`, where the matrix lives.
fn backward_by(w: &Matrix, m: usize, dy: &[f32]) -> Result<Vec<f32>> {
    match w.device() {
        Some(device) => device.backward(m, dy),
        None => {
            let mut dx = buffer(m * w.k());
            w.backward(m, dy, &mut dx);
            Ok(dx)
        }
    }
}

/// `dy^T x`, where the matrix lives.
fn gradient_by(w: &Matrix, m: usize, dy: &[f32], x: &[f32]) -> Result<Tensor> {
    let (n, k) = (w.n(), w.k());
    if let Some(device) = w.device() {
        return tensor(device.gradient(m, dy, x)?, (n, k));
    }
    let mut dw = buffer(n * k);
    weight_gradient(w.keep(), (m, n, k), dy, x, &mut dw);
    tensor(dw, (n, k))
}

/// Column sums of `dy`.
fn bias_gradient(n: usize, dy: &[f32]) -> Result<Tensor> {
    let mut db = vec![0f32; n];
    dy.chunks_exact(n).for_each(|row| db.iter_mut().zip(row).for_each(|(b, d)| *b += d));
    tensor(db, n)
}

impl Tape {
    /// `act(gate(x)) * up(x)` in one pass, for those who look at neither factor and want no gradient; none where it
    /// cannot be had: `x` or a bias is recorded, or the weights lie on a device or are kept in different ways.
    ///
    /// # Shapes
    /// `x [.., in], gate and up [out, in] with biases [out] -> [.., out]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn gated_linear(
        &self,
        act: Act,
        x: &Value,
        (gate, gate_bias): (&Matrix, Option<&Value>),
        (up, up_bias): (&Matrix, Option<&Value>),
    ) -> Result<Option<Value>> {
        let biases = [gate_bias, up_bias];
        if [Some(x), gate_bias, up_bias].into_iter().flatten().any(Value::is_recorded) || !up.takes_gate(gate) {
            return Ok(None);
        }
        let (n, m) = (up.n(), rows_of("gated_linear", &x.tensor, up.k())?);
        if biases.into_iter().flatten().any(|b| b.tensor.dims() != [n]) {
            return Err(TensorError::shape("gated_linear", format!("biases of {n} are needed")));
        }
        let [gate_bias, up_bias] = biases.map(|b| b.map(|b| f32s(&b.tensor)).transpose());
        let (gate_bias, up_bias) = (gate_bias?, up_bias?);
        let mut out = buffer(m * n);
        let gate = Gate { act, w: gate, bias: gate_bias.as_deref() };
        up.forward_gated(gate, m, &f32s(&x.tensor)?, up_bias.as_deref(), &mut out);
        Ok(Some(tensor(out, with_last(&x.tensor, n))?.into()))
    }

    /// Linear map with packed weights. `watched` is the matrix as a value whose gradient is wanted.
    ///
    /// # Shapes
    /// `x [.., in], w [out, in], bias [out] -> [.., out]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn linear(&self, x: &Value, w: &Matrix, watched: Option<&Value>, bias: Option<&Value>) -> Result<Value> {
        let (n, k) = (w.n(), w.k());
        let m = rows_of("linear", &x.tensor, k)?;
        if bias.is_some_and(|b| b.tensor.dims() != [n]) || watched.is_some_and(|w| w.tensor.dims() != [n, k]) {
            return Err(TensorError::shape("linear", format!("a matrix of {n} x {k} and a bias of {n} are needed")));
        }
        let bias_data = bias.map(|b| f32s(&b.tensor)).transpose()?;
        let out = forward_by(w, m, &f32s(&x.tensor)?, bias_data.as_deref())?;
        let out = tensor(out, with_last(&x.tensor, n))?;
        let none = Value::from(&out);
        Ok(self.record(out, &[x, watched.unwrap_or(&none), bias.unwrap_or(&none)], || {
            let (dims, w) = (x.tensor.dims().to_vec(), w.clone());
            // The input is needed for the weight's gradient alone.
            let x_kept = watched.filter(|w| w.is_recorded()).map(|_| x.tensor.clone());
            Box::new(move |grad, needs| {
                let dy = f32s(grad)?;
                let mut parts = vec![None, None, None];
                if needs[0] {
                    parts[0] = Some(tensor(backward_by(&w, m, &dy)?, dims.clone())?);
                }
                if let (Some(x), true) = (&x_kept, needs[1]) {
                    parts[1] = Some(gradient_by(&w, m, &dy, &f32s(x)?)?);
                }
                if needs[2] {
                    parts[2] = Some(bias_gradient(n, &dy)?);
                }
                Ok(parts)
            })
        }))
    }
}
