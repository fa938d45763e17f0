//! Sums each latent's gradients and steps all parameters by Adam.

use exegete_base::settings::{Activation, DecoderRows, ThresholdForm};
use exegete_tensor::cpu::adam::{AdamStep, update};
use exegete_tensor::cpu::buffer;
use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::cpu::simd::{axpy, dot};
use exegete_tensor::optim::Parameter;
use rayon::prelude::*;

use super::state::normalise;
use super::term::Term;
use super::{TrainState, Trainer};

const EPS: f64 = 1e-8;

impl Trainer {
    /// Steps all parameters.
    pub(super) fn apply(&mut self, state: &mut TrainState, lr: f64) {
        let (d, o) = (state.d, state.d_out);
        let step = AdamStep::new(lr, (self.settings.beta1, self.settings.beta2), EPS, state.step + 1);
        let more = [(self.has_aux(), &self.aux), (self.has_low(), &self.low)];
        let more = more.into_iter().filter_map(|(is_there, term)| is_there.then_some(term));
        let terms: Vec<&Term> = std::iter::once(&self.main).chain(more).collect();
        let dense = &self.dense;
        let sum_of =
            |f: usize| dense.b_enc.get(f).copied().unwrap_or(0.0) + terms.iter().map(|t| t.sum_of(f)).sum::<f32>();
        let db_enc: Vec<f32> = (0..state.n_latents()).into_par_iter().map(sum_of).collect();
        let mut db_dec = vec![0f32; o];
        self.main.grads[0].chunks_exact(o).for_each(|g| axpy(1.0, g, &mut db_dec));
        // Where it is taken off the input, it also stands in every pre-activation, with the other sign.
        if state.centres {
            for (g, row) in db_enc.iter().zip(state.w_enc.values.chunks_exact(d)).filter(|(g, _)| **g != 0.0) {
                axpy(-g, row, &mut db_dec);
            }
        }
        if let Some(skip) = &mut state.w_skip {
            let n = self.xs_ND.len() / d;
            let mut dw_skip = buffer(o * d);
            let (grad, x) = (Mat::rows(&self.main.grads[0], o).t(), Mat::rows(&self.xs_ND, d));
            gemm((o, d, n), &mut dw_skip, d, Into::Overwrite, 1.0, grad, x, true);
            let rows = (skip.values.par_chunks_mut(d), skip.m.par_chunks_mut(d), skip.v.par_chunks_mut(d));
            let rows = rows.0.zip(rows.1).zip(rows.2).zip(dw_skip.par_chunks(d));
            rows.for_each(|(((w, m), v), g)| update(step, w, m, v, g));
        }
        let block = o / state.blocks;
        let is_tied = self.settings.activation == Activation::MatchingPursuit;
        let is_unit = self.settings.decoder_rows == DecoderRows::Unit;
        let (enc, dec) = (ParamRows::new(&mut state.w_enc, d), ParamRows::new(&mut state.w_dec, o));
        let (centred_ND, norm_d_F) = (&self.centred_ND, &self.norm_d_F);
        (0..db_enc.len()).into_par_iter().with_min_len(16).for_each_init(
            || vec![0f32; d.max(o)],
            |grad, f| {
                // SAFETY: one task touches one latent's rows.
                let ((we, me, ve), (wd, md, vd)) = unsafe { (enc.row(f), dec.row(f)) };
                let to_enc = &mut grad[..d];
                first(to_enc, &dense.w_enc, f);
                for t in &terms {
                    t.by_latent.sum_rows(f, &t.d, centred_ND, to_enc);
                }
                update(step, we, me, ve, to_enc);
                let to_dec = &mut grad[..o];
                first(to_dec, &dense.w_dec, f);
                for t in terms.iter().filter(|t| t.decodes()) {
                    t.by_latent.sum_rows(f, &t.entries.values, t.grad_of(f), to_dec);
                }
                if let Some(norm_d) = norm_d_F.get(f).filter(|d| **d != 0.0) {
                    for (to_dec, wd) in to_dec.chunks_exact_mut(block).zip(wd.chunks_exact(block)) {
                        axpy(norm_d / dot(wd, wd).sqrt().max(1e-12), wd, to_dec);
                    }
                }
                if is_unit {
                    // Only the part of the gradient that turns a decoder row may move it.
                    let along = dot(to_dec, wd);
                    axpy(-along, wd, to_dec);
                }
                update(step, wd, md, vd, to_dec);
                if is_unit {
                    normalise(wd);
                }
                if is_tied {
                    we.copy_from_slice(wd);
                }
            },
        );
        let step_whole = |p: &mut Parameter, g: &[f32]| update(step, &mut p.values, &mut p.m, &mut p.v, g);
        let mut db_enc = db_enc;
        if self.settings.activation == Activation::Gated {
            // The gate's bias is no part of the magnitudes, whose gradients are in the sums.
            for ((g, r_mag), through) in db_enc.iter_mut().zip(&state.extras[0].values).zip(&self.extra_d[1]) {
                *g -= r_mag.exp() * through;
            }
        }
        step_whole(&mut state.b_enc, &db_enc);
        step_whole(&mut state.b_dec, &db_dec);
        let is_log = self.settings.threshold_form == ThresholdForm::Log;
        let jumps = self.settings.activation == Activation::JumpRelu;
        if jumps && is_log {
            self.extra_d[0].iter_mut().zip(&self.theta_F).for_each(|(g, theta)| *g *= theta);
        }
        for (extra, g) in state.extras.iter_mut().zip(&self.extra_d) {
            step_whole(extra, g);
        }
        if jumps && !is_log {
            state.extras[0].values.iter_mut().for_each(|t| *t = t.max(0.0));
        }
    }
}

/// Begins a row's gradient with what a dense step has summed, or with nothing.
fn first(grad: &mut [f32], sums: &[f32], row: usize) {
    match sums.get(row * grad.len()..(row + 1) * grad.len()) {
        Some(sum) => grad.copy_from_slice(sum),
        None => grad.fill(0.0),
    }
}

/// Rows of a parameter and its moments, shared among tasks that own a row each.
struct ParamRows {
    w: *mut f32,
    m: *mut f32,
    v: *mut f32,
    d: usize,
}

// SAFETY: `row` is only called for distinct rows at a time.
unsafe impl Sync for ParamRows {}

type Row<'a> = (&'a mut [f32], &'a mut [f32], &'a mut [f32]);

impl ParamRows {
    fn new(p: &mut Parameter, d: usize) -> Self {
        Self { w: p.values.as_mut_ptr(), m: p.m.as_mut_ptr(), v: p.v.as_mut_ptr(), d }
    }

    /// # Safety
    /// The row exists, the parameter is borrowed by no one else, and no other task holds the row.
    #[allow(clippy::mut_from_ref)]
    unsafe fn row(&self, f: usize) -> Row<'_> {
        // SAFETY: by the caller's promise.
        let at = |p: *mut f32| unsafe { std::slice::from_raw_parts_mut(p.add(f * self.d), self.d) };
        (at(self.w), at(self.m), at(self.v))
    }
}
