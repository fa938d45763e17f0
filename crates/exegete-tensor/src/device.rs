//! Products on another device: weights live there, activations travel.
//!
//! This is the first step on a GPU: the products, which are nearly all of a model's work, run there, while everything
//! that looks into a model (sites, edits, the tape) stays on the host and is the same code. It costs two transfers a
//! product. In f32 the device's reduced precision (TF32) stays off, as is the engine's default.

use candle_core::{DType, Device, Tensor};

use crate::cpu::packed::{Keep, Matrix};
use crate::{Result, TensorError};

/// A matrix `[out, in]` on a device.
pub struct DeviceMatrix {
    w: Tensor,
}

impl DeviceMatrix {
    /// A copy of a host matrix.
    ///
    /// # Errors
    /// The device's, such as too little memory.
    pub(crate) fn new(matrix: &Matrix, device: &Device) -> Result<Self> {
        let (n, k) = (matrix.n(), matrix.k());
        let mut values = vec![0f32; n * k];
        matrix.rows(0..n, &mut values);
        let w = Tensor::from_vec(values, (n, k), device)?;
        let half = matrix.keep() == Some(Keep::Bf16) && !device.is_cpu();
        Ok(Self { w: if half { w.to_dtype(DType::BF16)? } else { w } })
    }

    /// `x W^T`, `[m, n]`.
    pub(crate) fn forward(&self, m: usize, x: &[f32]) -> Result<Vec<f32>> {
        self.product(m, self.w.dims2()?.1, x, &self.w.t()?)
    }

    /// `dy W`, `[m, k]`.
    pub(crate) fn backward(&self, m: usize, dy: &[f32]) -> Result<Vec<f32>> {
        self.product(m, self.w.dims2()?.0, dy, &self.w)
    }

    /// `dy^T x`, `[n, k]`: the gradient of the matrix.
    pub(crate) fn gradient(&self, m: usize, dy: &[f32], x: &[f32]) -> Result<Vec<f32>> {
        let (n, k) = self.w.dims2()?;
        on_host(&self.sent((m, n), dy)?.t()?.matmul(&self.sent((m, k), x)?)?)
    }

    fn product(&self, m: usize, width: usize, rows: &[f32], w: &Tensor) -> Result<Vec<f32>> {
        on_host(&self.sent((m, width), rows)?.matmul(w)?)
    }

    /// Rows on the device, kept as the matrix is.
    fn sent(&self, shape: (usize, usize), rows: &[f32]) -> Result<Tensor> {
        Ok(Tensor::from_slice(rows, shape, self.w.device())?.to_dtype(self.w.dtype())?)
    }
}

/// The values of a product.
fn on_host(product: &Tensor) -> Result<Vec<f32>> {
    Ok(product.to_dtype(DType::F32)?.flatten_all()?.to_vec1()?)
}

/// A device by its name on the command line: `cuda`, `cuda:1`. `None` for `cpu`, which needs none.
///
/// # Errors
/// A name that is not known, a device that this build or this machine does not have.
pub fn device_named(name: &str) -> Result<Option<Device>> {
    let unavailable = |what: String| Err(TensorError::Device { name: name.into(), what });
    let (kind, number) = name.split_once(':').unwrap_or((name, "0"));
    let Ok(number) = number.parse::<usize>() else {
        return unavailable("a device is cpu, cuda or cuda:N".into());
    };
    match kind {
        "cpu" if !name.contains(':') => Ok(None),
        "cuda" => cuda(number).or_else(unavailable),
        _ => unavailable("a device is cpu, cuda or cuda:N".into()),
    }
}

#[cfg(feature = "cuda")]
fn cuda(number: usize) -> std::result::Result<Option<Device>, String> {
    // The engine's binding panics where there is no driver, so it is looked for first.
    // SAFETY: a library is opened by name and nothing is called in it.
    let driver = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY) };
    if driver.is_null() {
        return Err("there is no CUDA driver (libcuda.so.1) on this machine".into());
    }
    // Below its first line the engine's error is a backtrace, where the environment asks for them.
    let first_line = |text: String| text.lines().next().unwrap_or_default().to_string();
    Device::new_cuda(number).map(Some).map_err(|e| first_line(e.to_string()))
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: usize) -> std::result::Result<Option<Device>, String> {
    Err("this build computes on the CPU alone; build with --features cuda".into())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Stack;
    use crate::cpu::packed::weight_gradient;

    #[test]
    fn a_device_computes_what_the_host_computes() {
        let values: Vec<f32> = (0..5 * 7).map(|i| (i as f32 * 0.7).sin()).collect();
        let mut stack = Stack::new(Keep::F32, 1, 5, 7);
        stack.fill(0, 0, &values);
        let host = Matrix::new(Arc::new(stack), 0);
        let device = DeviceMatrix::new(&host, &Device::Cpu).unwrap();
        let (x, dy): (Vec<f32>, Vec<f32>) =
            ((0..21).map(|i| (i as f32).cos()).collect(), (0..15).map(|i| (i as f32).sin()).collect());
        let (mut out, mut dx, mut dw) = (vec![0f32; 15], vec![0f32; 21], vec![0f32; 35]);
        host.forward(3, &x, None, &mut out);
        host.backward(3, &dy, &mut dx);
        weight_gradient(host.keep(), (3, 5, 7), &dy, &x, &mut dw);
        let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(close(&device.forward(3, &x).unwrap(), &out) && close(&device.backward(3, &dy).unwrap(), &dx));
        assert!(close(&device.gradient(3, &dy, &x).unwrap(), &dw));
    }

    #[test]
    fn devices_that_are_not_here_are_named() {
        assert!(device_named("cpu").unwrap().is_none());
        for name in ["tpu", "cuda:x", "cuda:99"] {
            let error = device_named(name).err().unwrap().to_string();
            assert!(error.contains(name), "{error}");
        }
    }
}
