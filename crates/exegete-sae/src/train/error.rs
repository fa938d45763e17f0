//! The errors of a step and their gradients: of the reconstruction, of a gate's alone, of what dead latents explain.

use exegete_base::settings::{Activation, Reconstruction};
use exegete_tensor::cpu::gemm::{Into, Mat, gemm};

use super::term::squares;
use super::{Given, TrainState, Trainer};
use crate::{Result, SaeError};

impl Trainer {
    /// What a squared error counts for in the loss; `-2` times that is the factor of its gradient at the reconstruction.
    pub(super) fn error_factor(&self, n: usize, spread: f64) -> f64 {
        match self.settings.reconstruction {
            Reconstruction::Mse => 1.0 / n as f64,
            // Where the model judges the whole, what a gate alone leaves is still measured here.
            Reconstruction::Fvu | Reconstruction::Ce | Reconstruction::Kl => 1.0 / spread,
        }
    }

    /// What there is of a reconstruction before any latent: the decoder's bias, and the path beside the latents.
    pub(super) fn base(&self, state: &TrainState, out_ND: &mut Vec<f32>) {
        let (d, o) = (state.d, state.d_out);
        let n = self.xs_ND.len() / d;
        out_ND.clear();
        out_ND.extend((0..n).flat_map(|_| &state.b_dec.values));
        if let Some(skip) = &state.w_skip {
            let (x, w) = (Mat::rows(&self.xs_ND, d), Mat::rows(&skip.values, d).t());
            gemm((n, o, d), out_ND, o, Into::Add, 1.0, x, w, true);
        }
    }

    /// The reconstruction of the entries.
    pub(super) fn reconstruct(&mut self, state: &TrainState) {
        let mut recon = std::mem::take(&mut self.recon_ND);
        self.base(state, &mut recon);
        for group in 0..self.main.ends.len() {
            self.main.decode_onto(group, &self.main.entries.values, &state.w_dec.values, state.d_out, &mut recon);
        }
        self.recon_ND = recon;
    }

    /// Takes in an error from elsewhere: what is left of the target, and the target.
    pub(super) fn take_given(&mut self, state: &TrainState, given: &Given) -> Result<()> {
        let len = self.recon_ND.len();
        for (name, values) in [("a gradient", Some(given.grad_ND)), ("what is left", given.left_ND)] {
            if let Some(values) = values.filter(|values| values.len() != len) {
                return Err(SaeError::Shape(format!(
                    "{name} has {} values for a reconstruction of {len}",
                    values.len()
                )));
            }
        }
        self.left_ND.clear();
        match given.left_ND {
            Some(left_ND) => self.left_ND.extend_from_slice(left_ND),
            None if !state.transcodes => {
                self.left_ND.extend(self.xs_ND.iter().zip(&self.recon_ND).map(|(x, r)| x - r));
            }
            None if self.needs_target() => {
                let detail = "AuxK, resampling and gates of a transcoder need what is left of its target beside the \
                              gradient: give it, or turn them off (--aux-weight 0, --resample-every 0)";
                return Err(SaeError::Shape(detail.into()));
            }
            None => {}
        }
        self.ys_ND.clear();
        self.ys_ND.extend(self.recon_ND.iter().zip(&self.left_ND).map(|(r, left)| r + left));
        Ok(())
    }

    /// Whether a step needs its target for more than the error.
    fn needs_target(&self) -> bool {
        let settings = &self.settings;
        settings.uses_aux() || settings.resample_every > 0 || settings.activation == Activation::Gated
    }

    /// The error that was given, its gradients at the activations.
    pub(super) fn given_gradient(&mut self, state: &TrainState, given: &Given) -> (f64, f64) {
        self.main.take_grad(given.grad_ND);
        self.main.gather(None, &state.w_dec.values, state.d_out);
        (given.loss, given.fvu)
    }

    /// The error of all prefixes and its gradients; the FVU of the whole. `left_ND` is then the error of the whole.
    pub(super) fn error_gradient(&mut self, state: &TrainState, n: usize) -> (f64, f64) {
        let o = state.d_out;
        let n_groups = self.main.ends.len();
        self.main.grads.resize(n_groups, Vec::new());
        let (mut error, mut fvu) = (0.0, 0.0);
        let mut recon = std::mem::take(&mut self.left_ND);
        self.base(state, &mut recon);
        for group in 0..n_groups {
            self.main.decode_onto(group, &self.main.entries.values, &state.w_dec.values, o, &mut recon);
            let mut grad = std::mem::take(&mut self.main.grads[group]);
            grad.clear();
            grad.extend(self.ys_ND.iter().zip(&recon).map(|(y, r)| y - r));
            let (square, spread) = squares(&self.ys_ND, &grad, o);
            let factor = self.error_factor(n, spread) / n_groups as f64;
            error += factor * square;
            fvu = square / spread;
            if group + 1 == n_groups {
                self.left_ND = std::mem::take(&mut recon);
                self.left_ND.copy_from_slice(&grad);
            }
            grad.iter_mut().for_each(|g| *g *= (-2.0 * factor) as f32);
            self.main.grads[group] = grad;
        }
        // What a group's latents add to is in every prefix from theirs on.
        for group in (0..n_groups - 1).rev() {
            let (before, after) = self.main.grads.split_at_mut(group + 1);
            before[group].iter_mut().zip(&after[0]).for_each(|(g, next)| *g += next);
        }
        self.main.gather(None, &state.w_dec.values, o);
        (error, fvu)
    }

    /// The error of what a gate alone reconstructs, by a decoder that is held fixed (Rajamanoharan et al. 2024, equation 8).
    pub(super) fn gate_gradient(&mut self, state: &TrainState, n: usize) -> f64 {
        let o = state.d_out;
        let mut left = Vec::new();
        self.base(state, &mut left);
        for group in 0..self.main.ends.len() {
            self.main.decode_onto(group, &self.main.entries.pre, &state.w_dec.values, o, &mut left);
        }
        left.iter_mut().zip(&self.ys_ND).for_each(|(l, y)| *l = y - *l);
        let (square, spread) = squares(&self.ys_ND, &left, o);
        let factor = self.error_factor(n, spread);
        left.iter_mut().for_each(|l| *l *= (-2.0 * factor) as f32);
        let through_magnitudes = std::mem::take(&mut self.main.d);
        // Without a penalty there are none.
        self.penalty_d.resize(through_magnitudes.len(), 0.0);
        self.main.gather(Some(&left), &state.w_dec.values, o);
        // The penalty is one of the gate, and has its gradient here.
        let all = through_magnitudes.iter().zip(&self.penalty_d);
        self.main.d.iter_mut().zip(all).for_each(|(d, (m, penalty))| *d += m + penalty);
        factor * square
    }

    /// The auxiliary loss on the error left by the main one.
    pub(super) fn aux_gradient(&mut self, state: &TrainState) -> f64 {
        let o = state.d_out;
        let mut left = vec![0f32; self.left_ND.len()];
        self.aux.decode_onto(0, &self.aux.entries.values, &state.w_dec.values, o, &mut left);
        left.iter_mut().zip(&self.left_ND).for_each(|(l, e)| *l = e - *l);
        let (square, spread) = squares(&self.left_ND, &left, o);
        // An error that is the same for all tokens is none that latents could explain.
        let over = if spread > 0.0 { 1.0 / spread } else { 0.0 };
        let factor = (-2.0 * self.settings.aux_weight * over) as f32;
        left.iter_mut().for_each(|l| *l *= factor);
        self.aux.grads = vec![left];
        self.aux.gather(None, &state.w_dec.values, o);
        self.aux.entries.mask(&mut self.aux.d);
        self.aux.group_by_latent(state.n_latents());
        square * over
    }
}
