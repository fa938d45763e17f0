//! AdamW over any number of parameters.

use crate::cpu::adam::{AdamStep, update};
use crate::cpu::{Shared, for_chunks};

/// Values of a chunk that a thread updates at a time.
const CHUNK: usize = 1 << 14;

/// Constants of AdamW.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decays of the first and the second moment.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub eps: f64,
}

impl Default for AdamW {
    /// PyTorch's.
    fn default() -> Self {
        Self { betas: (0.9, 0.999), eps: 1e-8 }
    }
}

/// A parameter with its moments.
#[derive(Debug, Clone, PartialEq)]
pub struct Parameter {
    /// Values.
    pub values: Vec<f32>,
    /// First moments.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
}

impl Parameter {
    /// A parameter without a past.
    pub fn new(values: Vec<f32>) -> Self {
        let zeros = vec![0f32; values.len()];
        Self { m: zeros.clone(), v: zeros, values }
    }

    /// Step `t`, counted from 1, with decoupled weight decay (Loshchilov & Hutter 2019), as PyTorch computes it:
    /// values shrink by `lr * decay` of themselves first.
    ///
    /// # Panics
    /// A gradient or moments of another length.
    pub fn step(&mut self, adam: AdamW, lr: f64, decay: f64, t: u64, grad: &[f32]) {
        let len = self.values.len();
        assert!(
            grad.len() == len && self.m.len() == len && self.v.len() == len,
            "a gradient or moments of another length"
        );
        let step = AdamStep::new(lr, adam.betas, adam.eps, t);
        let kept = (1.0 - lr * decay) as f32;
        let (m, v) = (Shared(self.m.as_mut_ptr()), Shared(self.v.as_mut_ptr()));
        for_chunks(&mut self.values, CHUNK, |chunk, values| {
            let (from, len) = (chunk * CHUNK, values.len());
            // SAFETY: chunk `chunk` of the moments, which are as long as the values and which this task alone touches.
            let (m, v) = unsafe { (m.range(from, len), v.range(from, len)) };
            if kept != 1.0 {
                values.iter_mut().for_each(|w| *w *= kept);
            }
            update(step, values, m, v, &grad[from..from + len]);
        });
    }
}
