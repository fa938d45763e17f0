//! RMSNorm and LayerNorm over the last axis.

use crate::cpu::buffer;
use crate::cpu::norm::{
    layer_norm, layer_norm_back, layer_norm_back_params, rms_norm, rms_norm_back, rms_norm_back_gain,
};
use crate::{Result, Tape, Value, f32s, tensor};

use super::rows_of;

impl Tape {
    /// `x / sqrt(mean(x^2) + eps) * gain` (Zhang & Sennrich 2019).
    ///
    /// # Shapes
    /// `x [.., D], gain [D] -> [.., D]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn rms_norm(&self, x: &Value, gain: &Value, eps: f32) -> Result<Value> {
        let d = gain.tensor.dims1()?;
        let n = rows_of("rms_norm", &x.tensor, d)?;
        let (mut out, mut inv_N) = (buffer(n * d), buffer(n));
        rms_norm(&f32s(&x.tensor)?, &f32s(&gain.tensor)?, eps, &mut out, &mut inv_N);
        let out = tensor(out, x.tensor.dims())?;
        Ok(self.record(out, &[x, gain], || {
            let (x, gain) = (x.tensor.clone(), gain.tensor.clone());
            Box::new(move |grad, needs| {
                let dy = f32s(grad)?;
                let xs = f32s(&x)?;
                let mut parts = vec![None, None];
                if needs[0] {
                    let mut dx = buffer(n * d);
                    rms_norm_back(&xs, &f32s(&gain)?, &inv_N, &dy, &mut dx);
                    parts[0] = Some(tensor(dx, x.dims())?);
                }
                if needs[1] {
                    let mut dgain = buffer(d);
                    rms_norm_back_gain(&xs, &inv_N, &dy, &mut dgain);
                    parts[1] = Some(tensor(dgain, d)?);
                }
                Ok(parts)
            })
        }))
    }

    /// `(x - mean) / sqrt(var + eps) * gain + bias` (Ba et al. 2016).
    ///
    /// # Shapes
    /// `x [.., D], gain [D], bias [D] -> [.., D]`
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn layer_norm(&self, x: &Value, gain: &Value, bias: &Value, eps: f32) -> Result<Value> {
        let d = gain.tensor.dims1()?;
        let n = rows_of("layer_norm", &x.tensor, d)?;
        rows_of("layer_norm", &bias.tensor, d)?;
        let (mut out, mut stats_N2) = (buffer(n * d), buffer(n * 2));
        layer_norm(&f32s(&x.tensor)?, &f32s(&gain.tensor)?, &f32s(&bias.tensor)?, eps, &mut out, &mut stats_N2);
        let out = tensor(out, x.tensor.dims())?;
        Ok(self.record(out, &[x, gain, bias], || {
            let (x, gain) = (x.tensor.clone(), gain.tensor.clone());
            Box::new(move |grad, needs| {
                let dy = f32s(grad)?;
                let xs = f32s(&x)?;
                let mut parts = vec![None, None, None];
                if needs[0] {
                    let mut dx = buffer(n * d);
                    layer_norm_back(&xs, &f32s(&gain)?, &stats_N2, &dy, &mut dx);
                    parts[0] = Some(tensor(dx, x.dims())?);
                }
                if needs[1] || needs[2] {
                    let (mut dgain, mut dbias) = (buffer(d), buffer(d));
                    layer_norm_back_params(&xs, &stats_N2, &dy, &mut dgain, &mut dbias);
                    parts[1] = Some(tensor(dgain, d)?);
                    parts[2] = Some(tensor(dbias, d)?);
                }
                Ok(parts)
            })
        }))
    }
}
