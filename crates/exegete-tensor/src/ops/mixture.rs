//! Mixtures of experts on the tape.

use std::sync::Arc;

use crate::cpu::buffer;
use crate::cpu::mixture::{Routes, chosen_weights, chosen_weights_back, combine, combine_back};
use crate::{Result, Tape, TensorError, Value, f32s, tensor};

impl Tape {
    /// The weights of the experts that each token is sent to, made to sum to one if asked for. The choice itself is a
    /// constant.
    ///
    /// # Shapes
    /// `weights [N, E], chosen [N * U] -> [N, U]`
    ///
    /// # Errors
    /// Shapes that do not fit, an expert that does not exist.
    pub fn chosen_weights(&self, weights: &Value, chosen: &[u32], n_used: usize, normalise: bool) -> Result<Value> {
        let (n, n_experts) = weights.tensor.dims2()?;
        if n_used == 0 || chosen.len() != n * n_used {
            return Err(TensorError::shape("chosen_weights", format!("{} routes for {n} tokens", chosen.len())));
        }
        if let Some(e) = chosen.iter().find(|e| **e as usize >= n_experts) {
            return Err(TensorError::Index { op: "chosen_weights", index: u64::from(*e), len: n_experts });
        }
        let out = chosen_weights(&f32s(&weights.tensor)?, n_experts, chosen, n_used, normalise);
        Ok(self.record(tensor(out, (n, n_used))?, &[weights], || {
            let (weights, chosen) = (weights.tensor.clone(), chosen.to_vec());
            Box::new(move |grad, _| {
                let mut dw = buffer(n * n_experts);
                let routes = (&chosen[..], n_used);
                chosen_weights_back(&f32s(&weights)?, n_experts, routes, normalise, &f32s(grad)?, &mut dw);
                Ok(vec![Some(tensor(dw, (n, n_experts))?)])
            })
        }))
    }

    /// Outputs of the experts, mixed by weight. `y` holds the rows that each expert was sent, expert by expert, in the
    /// order of `routes`.
    ///
    /// # Shapes
    /// `y: for each expert [rows, D], weights [N, U] -> [N, D]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn combine(&self, y: &[Value], weights: &Value, routes: &Arc<Routes>) -> Result<Value> {
        let (n, n_used) = weights.tensor.dims2()?;
        let d = y.first().map_or(Ok(0), |v| v.tensor.dims2().map(|dims| dims.1))?;
        let mut stacked = Vec::with_capacity(routes.slots.len() * d);
        for part in y {
            stacked.extend_from_slice(&f32s(&part.tensor)?);
        }
        if stacked.len() != routes.slots.len() * d || routes.slots.len() != n * n_used {
            let detail = format!("{} values for {} routes of width {d}", stacked.len(), routes.slots.len());
            return Err(TensorError::shape("combine", detail));
        }
        let mut out = buffer(n * d);
        combine(routes, n_used, d, &f32s(&weights.tensor)?, &stacked, &mut out);
        let mut operands: Vec<&Value> = y.iter().collect();
        operands.push(weights);
        let lens: Vec<usize> = y.iter().map(|v| v.tensor.elem_count() / d.max(1)).collect();
        Ok(self.record(tensor(out, (n, d))?, &operands, || {
            let (weights, routes) = (weights.tensor.clone(), routes.clone());
            Box::new(move |grad, _| {
                let (mut dw, mut dy) = (buffer(n * n_used), buffer(stacked.len()));
                combine_back(&routes, n_used, d, (&f32s(&weights)?, &stacked), &f32s(grad)?, (&mut dw, &mut dy));
                let mut parts = Vec::new();
                let mut at = 0;
                for len in &lens {
                    parts.push(Some(tensor(dy[at * d..(at + len) * d].to_vec(), (*len, d))?));
                    at += len;
                }
                parts.push(Some(tensor(dw, (n, n_used))?));
                Ok(parts)
            })
        }))
    }
}
