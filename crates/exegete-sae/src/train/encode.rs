//! From a batch to the entries of its codes.

use exegete_base::settings::{Activation, TrainSettings};
use exegete_tensor::cpu::buffer;

use super::select::Dead;
use super::{TrainState, Trainer, rules, select};
use crate::sae::pre_activations;
use crate::{Result, SaeError};

/// Tokens of the batch whose pre-activations are held at once: enough to pay for packing the encoder, few enough to stay
/// near the cache.
pub(super) const BLOCK: usize = 1024;

impl Trainer {
    /// Takes in a batch, in scaled units, and less the decoder's bias where that is taken off.
    pub(super) fn take_in(&mut self, state: &TrainState, x_ND: &[f32]) {
        self.xs_ND.clear();
        self.xs_ND.extend(x_ND.iter().map(|x| x * state.scale));
        self.centred_ND.clear();
        self.centred_ND.extend_from_slice(&self.xs_ND);
        if state.centres {
            for row in self.centred_ND.chunks_exact_mut(state.d) {
                row.iter_mut().zip(&state.b_dec.values).for_each(|(c, b)| *c -= b);
            }
        }
    }

    /// The latents that count as dead.
    pub(super) fn find_dead(&mut self, state: &TrainState) {
        self.dead.clear();
        if self.settings.uses_aux() || self.settings.pre_act_weight > 0.0 {
            let is_dead = |(_, since): &(usize, &u64)| **since > self.settings.dead_after_tokens;
            self.dead.extend(state.since_fired_F.iter().enumerate().filter(is_dead).map(|(i, _)| i as u32));
        }
    }

    /// Entries of the batch with their activations, and the dead latents' entries while the pre-activations are at hand.
    pub(super) fn encode(&mut self, state: &mut TrainState, n: usize) -> Result<()> {
        let most = self.settings.k * n;
        let is_batch = self.settings.activation == Activation::BatchTopK;
        // Nothing is known at first of where the largest end, so some are taken of each token, and more if that may miss one.
        let few = (4 * self.settings.k).min(state.n_latents());
        let mut limit = (is_batch && state.reached == 0.0).then_some(few);
        loop {
            match self.settings.activation {
                Activation::MatchingPursuit => {
                    self.clear();
                    self.pursue(state);
                }
                _ => self.look_through(state, n, limit),
            }
            if !is_batch || select::keep_largest(&mut self.main.entries, most, limit, state) {
                break;
            }
            limit = Some(limit.map_or(few, |limit| (2 * limit).min(state.n_latents())));
        }
        if self.main.entries.idx.len() > u32::MAX as usize {
            return Err(SaeError::Shape("more than 2^32 activations in a batch: lower --batch".into()));
        }
        rules::activate(&self.settings, state, &self.theta_F, &mut self.main.entries);
        self.dense.clear();
        Ok(())
    }

    fn look_through(&mut self, state: &TrainState, n: usize, limit: Option<usize>) {
        let (d, f) = (state.d, state.n_latents());
        self.clear();
        let rule = self.selector.begin(&self.settings, state, &self.theta_F, limit);
        if self.is_screened(state, rule) {
            return self.screened(state, rule);
        }
        let dead = dead(&self.settings, d, &self.dead, &self.theta_F);
        let block = BLOCK.min(n);
        if self.pre.len() < block * f {
            self.pre = buffer(block * f);
        }
        for from in (0..n).step_by(block) {
            let rows = block.min(n - from);
            let pre = &mut self.pre[..rows * f];
            pre_activations(
                &self.centred_ND[from * d..(from + rows) * d],
                d,
                &state.w_enc.values,
                &state.b_enc.values,
                pre,
            );
            let into = [&mut self.main.entries, &mut self.aux.entries, &mut self.low.entries];
            self.selector.block(rule, (pre, f), dead, into);
        }
    }
    /// Takes all entries away.
    pub(super) fn clear(&mut self) {
        for term in [&mut self.main, &mut self.aux, &mut self.low] {
            term.entries.clear();
        }
    }
}

/// What a step wants of its dead latents.
pub(super) fn dead<'a>(settings: &TrainSettings, d: usize, latents: &'a [u32], theta_F: &'a [f32]) -> Dead<'a> {
    let highest = if settings.uses_aux() { settings.resolved_aux_k(d).min(latents.len()) } else { 0 };
    let below = (settings.pre_act_weight > 0.0 && !latents.is_empty()).then_some(theta_F);
    Dead { latents, highest, below }
}
