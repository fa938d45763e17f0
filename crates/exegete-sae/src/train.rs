//! One training step of a TopK dictionary with AuxK, sparse where the codes are sparse, Adam fused in.
//!
//! Inside, everything is in scaled units `x_s = scale * x`. The loss is that of `refs/sae_topk/make.py`:
//! `|x_s - x'|^2 / |x_s - mean|^2 + weight * |e - e'|^2 / |e - mean e|^2`, where `e = x_s - x'` is held fixed and
//! `e'` is its reconstruction from the k_aux dead latents that fire most (Gao et al. 2024, appendix A.2). The
//! auxiliary gradient reaches the encoder too. No weight gradient is ever stored: each latent's rows are summed
//! from its own tokens and handed to Adam at once, by one task, in the order of the tokens.

use exegete_base::settings::TrainSettings;
use exegete_tensor::cpu::adam::{AdamStep, update};
use exegete_tensor::cpu::simd::{axpy, dot};
use exegete_tensor::cpu::sparse::{self, ByLatent, Rows};
use exegete_tensor::cpu::{buffer, topk};
use rayon::prelude::*;

use crate::kinds::{Rule, TopK};
use crate::sae::pre_activations;
use crate::{Result, Sae, SaeError};

/// Rows of the batch whose pre-activations are held at once: enough to pay for packing the encoder, few enough
/// to stay near the cache.
const BLOCK: usize = 1024;

const BETAS: (f64, f64) = (0.9, 0.999);
const EPS: f64 = 1e-8;

/// A parameter array with Adam's moments.
#[derive(Debug, Clone, PartialEq)]
pub struct Param {
    /// Values.
    pub w: Vec<f32>,
    /// First moments.
    pub m: Vec<f32>,
    /// Second moments.
    pub v: Vec<f32>,
}

impl Param {
    fn new(w: Vec<f32>) -> Self {
        let zeros = vec![0f32; w.len()];
        Self { m: zeros.clone(), v: zeros, w }
    }
}

/// All that training carries from step to step; saved whole, it continues bit for bit.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainState {
    /// Width of the input.
    pub d: usize,
    /// Factor between the input and the scaled units of training.
    pub scale: f32,
    /// Encoder, `[F, D]`.
    pub w_enc: Param,
    /// Encoder bias, `[F]`.
    pub b_enc: Param,
    /// Decoder, `[F, D]`, rows of unit length.
    pub w_dec: Param,
    /// Decoder bias, `[D]`.
    pub b_dec: Param,
    /// Tokens since each latent last fired.
    pub since_fired_F: Vec<u64>,
    /// Steps done.
    pub step: u64,
}

/// What a step measured, before it moved the parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepStats {
    /// Whole loss.
    pub loss: f64,
    /// Reconstruction part: FVU about the batch mean.
    pub fvu: f64,
    /// Auxiliary part, before its weight; 0 where no latent is dead.
    pub aux: f64,
    /// Mean number of active latents.
    pub l0: f64,
    /// Latents that counted as dead.
    pub n_dead: usize,
}

impl TrainState {
    /// The start of training: random unit decoder rows from a seed, the encoder their copy, biases 0 and the
    /// mean of the (scaled) data.
    pub fn init(d: usize, n_latents: usize, scale: f32, mean_D: &[f32], seed: u64) -> Self {
        let mut w_dec: Vec<f32> = (0..n_latents * d).map(|i| gaussian(seed, i as u64)).collect();
        w_dec.par_chunks_mut(d).for_each(normalise);
        let b_dec = mean_D.iter().map(|m| m * scale).collect();
        Self::from_parts(d, scale, w_dec, b_dec)
    }

    /// The start of training from a given decoder and its bias.
    pub fn from_parts(d: usize, scale: f32, w_dec_FD: Vec<f32>, b_dec_D: Vec<f32>) -> Self {
        let f = w_dec_FD.len() / d;
        Self {
            d,
            scale,
            w_enc: Param::new(w_dec_FD.clone()),
            b_enc: Param::new(vec![0.0; f]),
            w_dec: Param::new(w_dec_FD),
            b_dec: Param::new(b_dec_D),
            since_fired_F: vec![0; f],
            step: 0,
        }
    }

    /// Number of latents.
    pub fn n_latents(&self) -> usize {
        self.b_enc.w.len()
    }

    /// The dictionary in the input's own units. Scaling commutes with TopK, so only the biases change and the
    /// decoder's rows stay of unit length.
    pub fn dictionary(&self, k: usize) -> Sae {
        let unscaled = |b: &[f32]| b.iter().map(|b| b / self.scale).collect();
        Sae {
            w_enc_FD: self.w_enc.w.clone(),
            b_enc_F: unscaled(&self.b_enc.w),
            w_dec_FD: self.w_dec.w.clone(),
            b_dec_D: unscaled(&self.b_dec.w),
            centres_input: true,
            ..Sae::zeros(self.d, self.d, 0, Rule::TopK(TopK { k }))
        }
    }
}

/// Sparse contributions of one loss term: codes, their gradients, and the gradient at the reconstruction.
#[derive(Default)]
struct Term {
    k: usize,
    values_NK: Vec<f32>,
    idx_NK: Vec<u32>,
    dvalues_NK: Vec<f32>,
    grad_ND: Vec<f32>,
    by_latent: ByLatent,
}

impl Term {
    /// Groups the entries and works out the codes' gradients from that of the reconstruction.
    fn finish(&mut self, d: usize, n_latents: usize, w_dec: &[f32]) {
        self.by_latent.build(n_latents, &self.values_NK, &self.idx_NK);
        self.dvalues_NK.resize(self.values_NK.len(), 0.0);
        sparse::gather_dots(&self.grad_ND, d, &self.idx_NK, Rows::Each(self.k), w_dec, &mut self.dvalues_NK);
    }
}

/// Runs training steps; holds the scratch that they reuse.
pub struct Trainer {
    settings: TrainSettings,
    n_steps: u64,
    xs_ND: Vec<f32>,
    centred_ND: Vec<f32>,
    pre: Vec<f32>,
    recon_ND: Vec<f32>,
    main: Term,
    aux: Term,
    dead: Vec<u32>,
    dead_pre: Vec<f32>,
}

impl Trainer {
    /// A trainer for a run of `n_steps`.
    ///
    /// # Errors
    /// Settings out of range.
    pub fn new(settings: TrainSettings, n_steps: u64) -> Result<Self> {
        settings.check().map_err(SaeError::Shape)?;
        Ok(Self {
            settings,
            n_steps,
            xs_ND: Vec::new(),
            centred_ND: Vec::new(),
            pre: Vec::new(),
            recon_ND: Vec::new(),
            main: Term::default(),
            aux: Term::default(),
            dead: Vec::new(),
            dead_pre: Vec::new(),
        })
    }

    /// One step on a batch of activations, in the input's units.
    ///
    /// # Errors
    /// A batch of another width, or one that is not finite.
    pub fn step(&mut self, state: &mut TrainState, x_ND: &[f32]) -> Result<StepStats> {
        let stats = self.gradients(state, x_ND)?;
        let lr = self.settings.peak_lr() * self.settings.lr_factor(state.step, self.n_steps);
        self.apply(state, lr);
        let n = (x_ND.len() / state.d) as u64;
        let fired = |f: usize| !self.main.by_latent.of(f).is_empty();
        state.since_fired_F.iter_mut().enumerate().for_each(|(f, s)| *s = if fired(f) { 0 } else { *s + n });
        state.step += 1;
        Ok(stats)
    }

    /// The forward pass and everything of the backward pass that is not summed by latent.
    fn gradients(&mut self, state: &TrainState, x_ND: &[f32]) -> Result<StepStats> {
        let (d, f, k) = (state.d, state.n_latents(), self.settings.k);
        if x_ND.is_empty() || !x_ND.len().is_multiple_of(d) {
            return Err(SaeError::Shape(format!("a batch of {} values for a width of {d}", x_ND.len())));
        }
        let n = x_ND.len() / d;
        for scratch in [&mut self.xs_ND, &mut self.centred_ND, &mut self.recon_ND] {
            scratch.resize(n * d, 0.0);
        }
        self.xs_ND.iter_mut().zip(x_ND).for_each(|(s, x)| *s = x * state.scale);
        for (c, x) in self.centred_ND.chunks_exact_mut(d).zip(self.xs_ND.chunks_exact(d)) {
            c.iter_mut().zip(x).zip(&state.b_dec.w).for_each(|((c, x), b)| *c = x - b);
        }
        self.encode(state, n);
        self.main.k = k;
        let rows = Rows::Each(k);
        sparse::decode(
            &self.main.values_NK,
            &self.main.idx_NK,
            rows,
            &state.w_dec.w,
            &state.b_dec.w,
            &mut self.recon_ND,
        );
        // From here on `recon` holds the error x - x'.
        self.recon_ND.iter_mut().zip(&self.xs_ND).for_each(|(r, x)| *r = x - *r);
        let fvu = term_gradient(&mut self.main, &self.xs_ND, &self.recon_ND, d, 1.0);
        self.main.finish(d, f, &state.w_dec.w);
        let aux = if self.dead.is_empty() { 0.0 } else { self.aux_gradient(state) };
        let l0 = self.main.by_latent.entries.len() as f64 / n as f64;
        let loss = fvu + self.settings.aux_weight * aux;
        if !loss.is_finite() {
            let detail = "the loss is not finite: look for NaN or infinity in the activations, or lower --lr";
            return Err(SaeError::Shape(format!("step {}: {detail}", state.step)));
        }
        Ok(StepStats { loss, fvu, aux, l0, n_dead: self.dead.len() })
    }

    /// Codes of the batch, and the dead latents' codes while the pre-activations are at hand.
    fn encode(&mut self, state: &TrainState, n: usize) {
        let (d, f, k) = (state.d, state.n_latents(), self.settings.k);
        self.dead.clear();
        if self.settings.aux_weight > 0.0 {
            let is_dead = |(_, since): &(usize, &u64)| **since > self.settings.dead_after_tokens;
            self.dead.extend(state.since_fired_F.iter().enumerate().filter(is_dead).map(|(i, _)| i as u32));
        }
        let k_aux = self.settings.resolved_aux_k(d).min(self.dead.len());
        self.aux.k = k_aux;
        for (term, k) in [(&mut self.main, k), (&mut self.aux, k_aux)] {
            term.values_NK.resize(n * k, 0.0);
            term.idx_NK.resize(n * k, 0);
        }
        let rows_each = BLOCK.min(n);
        if self.pre.len() < rows_each * f {
            self.pre = buffer(rows_each * f);
        }
        for from in (0..n).step_by(rows_each) {
            let rows = rows_each.min(n - from);
            let pre = &mut self.pre[..rows * f];
            pre_activations(&self.centred_ND[from * d..(from + rows) * d], d, &state.w_enc.w, &state.b_enc.w, pre);
            let span = |k: usize| from * k..(from + rows) * k;
            topk::row_topk(pre, f, k, &mut self.main.values_NK[span(k)], &mut self.main.idx_NK[span(k)]);
            if k_aux > 0 {
                let n_dead = self.dead.len();
                self.dead_pre.resize(rows * n_dead, 0.0);
                self.dead_pre.par_chunks_mut(n_dead).zip(pre.par_chunks(f)).for_each(|(out, row)| {
                    out.iter_mut().zip(&self.dead).for_each(|(o, latent)| *o = row[*latent as usize]);
                });
                let (values, idx) = (&mut self.aux.values_NK[span(k_aux)], &mut self.aux.idx_NK[span(k_aux)]);
                topk::row_topk(&self.dead_pre, n_dead, k_aux, values, idx);
                idx.iter_mut().for_each(|i| *i = self.dead[*i as usize]);
            }
        }
        for values in [&mut self.main.values_NK, &mut self.aux.values_NK] {
            values.iter_mut().for_each(|v| *v = v.max(0.0));
        }
    }

    /// The auxiliary loss on the error left by the main one.
    fn aux_gradient(&mut self, state: &TrainState) -> f64 {
        let d = state.d;
        let zero = vec![0f32; d];
        let mut left = buffer(self.recon_ND.len());
        let rows = Rows::Each(self.aux.k);
        sparse::decode(&self.aux.values_NK, &self.aux.idx_NK, rows, &state.w_dec.w, &zero, &mut left);
        left.iter_mut().zip(&self.recon_ND).for_each(|(l, e)| *l = e - *l);
        let aux = term_gradient(&mut self.aux, &self.recon_ND, &left, d, self.settings.aux_weight);
        self.aux.finish(d, state.n_latents(), &state.w_dec.w);
        aux
    }

    /// Sums each latent's gradients and steps all parameters.
    fn apply(&mut self, state: &mut TrainState, lr: f64) {
        let d = state.d;
        let step = AdamStep::new(lr, BETAS, EPS, state.step + 1);
        let terms: &[&Term] = if self.dead.is_empty() { &[&self.main] } else { &[&self.main, &self.aux] };
        let db_enc: Vec<f32> = (0..state.n_latents())
            .into_par_iter()
            .map(|f| terms.iter().flat_map(|t| t.by_latent.of(f).iter().map(|e| t.dvalues_NK[*e as usize])).sum())
            .collect();
        // b_dec stands in the reconstruction and, with the other sign, in every pre-activation.
        let mut db_dec = vec![0f32; d];
        self.main.grad_ND.chunks_exact(d).for_each(|g| axpy(1.0, g, &mut db_dec));
        for (g, row) in db_enc.iter().zip(state.w_enc.w.chunks_exact(d)).filter(|(g, _)| **g != 0.0) {
            axpy(-g, row, &mut db_dec);
        }
        let rows = |p: &mut Param| -> *mut Param { p };
        let (enc, dec) = (ParamRows::new(rows(&mut state.w_enc), d), ParamRows::new(rows(&mut state.w_dec), d));
        let centred_ND = &self.centred_ND;
        (0..db_enc.len()).into_par_iter().with_min_len(16).for_each_init(
            || vec![0f32; d],
            |grad, f| {
                // SAFETY: one task touches one latent's rows.
                let ((we, me, ve), (wd, md, vd)) = unsafe { (enc.row(f), dec.row(f)) };
                grad.fill(0.0);
                for t in terms {
                    sparse::sum_rows(t.by_latent.of(f), t.k, &t.dvalues_NK, centred_ND, grad);
                }
                update(step, we, me, ve, grad);
                grad.fill(0.0);
                for t in terms {
                    sparse::sum_rows(t.by_latent.of(f), t.k, &t.values_NK, &t.grad_ND, grad);
                }
                // Only the part of the gradient that turns a decoder row may move it.
                let along = dot(grad, wd);
                axpy(-along, wd, grad);
                update(step, wd, md, vd, grad);
                normalise(wd);
            },
        );
        let step_whole = |p: &mut Param, g: &[f32]| update(step, &mut p.w, &mut p.m, &mut p.v, g);
        step_whole(&mut state.b_enc, &db_enc);
        step_whole(&mut state.b_dec, &db_dec);
    }
}

/// The loss `sum |left|^2 / sum |target - mean|^2` and its gradient at the reconstruction, `-2 left / denominator`,
/// times `weight`.
fn term_gradient(term: &mut Term, target_ND: &[f32], left_ND: &[f32], d: usize, weight: f64) -> f64 {
    let n = target_ND.len() / d;
    let mut mean_D = vec![0f64; d];
    for row in target_ND.chunks_exact(d) {
        mean_D.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x) / n as f64);
    }
    let mean_D: Vec<f32> = mean_D.iter().map(|m| *m as f32).collect();
    // Row by row in parallel, then summed in order, so that threads do not matter.
    let sums: Vec<(f64, f64)> = target_ND
        .par_chunks_exact(d)
        .zip(left_ND.par_chunks_exact(d))
        .map(|(x, l)| {
            let spread: f32 = x.iter().zip(&mean_D).map(|(x, m)| (x - m) * (x - m)).sum();
            (f64::from(dot(l, l)), f64::from(spread))
        })
        .collect();
    let (num, den) = sums.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y));
    let factor = (-2.0 * weight / den) as f32;
    term.grad_ND.resize(left_ND.len(), 0.0);
    term.grad_ND.iter_mut().zip(left_ND).for_each(|(g, l)| *g = factor * l);
    num / den
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
    fn new(param: *mut Param, d: usize) -> Self {
        // SAFETY: the pointer comes from a reference that is borrowed for the whole step.
        let p = unsafe { &mut *param };
        Self { w: p.w.as_mut_ptr(), m: p.m.as_mut_ptr(), v: p.v.as_mut_ptr(), d }
    }

    /// # Safety
    /// The row exists and no other task holds it.
    #[allow(clippy::mut_from_ref)]
    unsafe fn row(&self, f: usize) -> Row<'_> {
        // SAFETY: by the caller's promise.
        let at = |p: *mut f32| unsafe { std::slice::from_raw_parts_mut(p.add(f * self.d), self.d) };
        (at(self.w), at(self.m), at(self.v))
    }
}

/// Brings a vector to unit length; the zero vector stays.
fn normalise(row: &mut [f32]) {
    let norm = dot(row, row).sqrt();
    if norm > 0.0 {
        row.iter_mut().for_each(|x| *x /= norm);
    }
}

/// A standard normal number by hash (Box-Muller), the same on every machine and in any order.
fn gaussian(seed: u64, i: u64) -> f32 {
    let hash = exegete_base::sampling::pair_hash(seed, i, 0x6761_7573_7369_616e);
    let unit = |bits: u64| (bits as f64 + 0.5) / f64::from(u32::MAX);
    let (a, b) = (unit(hash >> 32), unit(hash & 0xffff_ffff));
    ((-2.0 * a.min(1.0 - 1e-12).ln()).sqrt() * (std::f64::consts::TAU * b).cos()) as f32
}
