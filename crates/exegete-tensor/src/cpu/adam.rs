//! Adam (Kingma & Ba 2015), as PyTorch computes it.

use super::simd::{madd, simd_fn};

/// Constants of one step, with the bias corrections worked out.
#[derive(Debug, Clone, Copy)]
pub struct AdamStep {
    /// Learning rate over the first bias correction.
    pub step_size: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Root of the second bias correction.
    pub root_correction2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
}

impl AdamStep {
    /// Constants of step `t`, counted from 1.
    pub fn new(lr: f64, (beta1, beta2): (f64, f64), eps: f64, t: u64) -> Self {
        let t = t as i32;
        Self {
            step_size: (lr / (1.0 - beta1.powi(t))) as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            root_correction2: (1.0 - beta2.powi(t)).sqrt() as f32,
            eps: eps as f32,
        }
    }
}

#[inline(always)]
fn update_body<const FMA: bool>(step: AdamStep, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) {
    let (keep1, keep2) = (1.0 - step.beta1, 1.0 - step.beta2);
    let inv_root = 1.0 / step.root_correction2;
    for (((w, m), v), g) in w.iter_mut().zip(m).zip(v).zip(g) {
        *m = madd::<FMA>(step.beta1, *m, keep1 * g);
        *v = madd::<FMA>(step.beta2, *v, keep2 * g * g);
        *w -= step.step_size * *m / madd::<FMA>(v.sqrt(), inv_root, step.eps);
    }
}
simd_fn!(
    /// One step on a slice of parameters with its moments and gradient.
    pub fn update(step: AdamStep, w: &mut [f32], m: &mut [f32], v: &mut [f32], g: &[f32]) = update_body
);
