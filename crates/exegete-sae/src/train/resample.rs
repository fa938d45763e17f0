//! Resampling of dead latents: they start anew on inputs that are reconstructed badly (Bricken et al. 2023, "Towards
//! Monosemanticity", "Neuron Resampling"; dictionary_learning's StandardTrainer).

use exegete_base::sampling::pair_hash;
use exegete_base::settings::{Activation, TrainSettings};
use exegete_tensor::cpu::simd::{axpy, dot};
use exegete_tensor::optim::Parameter;
use rayon::prelude::*;

use super::state::{first_extras, normalise};
use super::{TrainState, Trainer};

/// Length of a new encoder row, in mean lengths of those of latents that live.
const LENGTH: f32 = 0.2;

/// Whether dead latents start anew behind a step.
pub(super) fn is_due(settings: &TrainSettings, step: u64) -> bool {
    settings.resample_every > 0 && (step + 1).is_multiple_of(settings.resample_every)
}

impl Trainer {
    /// Gives dead latents new rows: the direction of an input of the batch, drawn without replacement with a probability
    /// that is proportional to the square of its squared error. Where there are more of them than inputs, the others wait.
    pub(super) fn resample(&self, state: &mut TrainState) {
        let (d, o) = (state.d, state.d_out);
        let is_dead = |since: &u64| *since > self.settings.dead_after_tokens;
        let dead: Vec<usize> = (0..state.n_latents()).filter(|f| is_dead(&state.since_fired_F[*f])).collect();
        if dead.is_empty() {
            return;
        }
        let alive =
            state.w_enc.values.par_chunks_exact(d).zip(&state.since_fired_F).filter(|(_, since)| !is_dead(since));
        let lengths: Vec<f32> = alive.map(|(row, _)| dot(row, row).sqrt()).collect();
        let length = if lengths.is_empty() { 1.0 } else { lengths.iter().sum::<f32>() / lengths.len() as f32 };
        let first = first_extras(&self.settings);
        let mut target = vec![0f32; o];
        // Where no bias is taken off the input, most of it is the mean, which all new latents would point at.
        let mut mean = vec![0f32; d];
        if !state.centres {
            let n = self.centred_ND.len() / d;
            self.centred_ND.chunks_exact(d).for_each(|x| axpy(1.0 / n as f32, x, &mut mean));
        }
        for (f, n) in dead.into_iter().zip(self.drawn(state)) {
            let row = &mut state.w_enc.values[f * d..(f + 1) * d];
            row.copy_from_slice(&self.centred_ND[n * d..(n + 1) * d]);
            axpy(-1.0, &mean, row);
            normalise(row);
            row.iter_mut().for_each(|w| *w *= LENGTH * length);
            state.b_enc.values[f] = -dot(row, &mean);
            let y = self.ys_ND[n * o..(n + 1) * o].iter().zip(&state.b_dec.values);
            target.iter_mut().zip(y).for_each(|(t, (y, b))| *t = y - b);
            normalise(&mut target);
            state.w_dec.values[f * o..(f + 1) * o].copy_from_slice(&target);
            if self.settings.activation == Activation::MatchingPursuit {
                state.w_enc.values[f * d..(f + 1) * d].copy_from_slice(&target);
            }
            forget(&mut state.w_enc, f, d);
            forget(&mut state.w_dec, f, o);
            forget(&mut state.b_enc, f, 1);
            for (extra, first) in state.extras.iter_mut().zip(&first) {
                extra.values[f] = *first;
                forget(extra, f, 1);
            }
            state.since_fired_F[f] = 0;
        }
    }

    /// Tokens of the batch in the order in which they are drawn: that of waiting times `-ln(u) / weight`, with u by hash. Those
    /// without an error are never drawn.
    fn drawn(&self, state: &TrainState) -> impl Iterator<Item = usize> + use<> {
        let wait = |(n, left): (usize, &[f32])| {
            let square = f64::from(dot(left, left));
            let u = (pair_hash(state.seed, state.step, n as u64) >> 11) as f64 + 0.5;
            (-(u / (1u64 << 53) as f64).ln() / (square * square), n)
        };
        let mut waits: Vec<(f64, usize)> = self.left_ND.chunks_exact(state.d_out).enumerate().map(wait).collect();
        waits.retain(|(wait, _)| wait.is_finite());
        waits.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        waits.into_iter().map(|(_, n)| n)
    }
}

/// Takes the moments of a latent's row away.
fn forget(p: &mut Parameter, latent: usize, d: usize) {
    for moments in [&mut p.m, &mut p.v] {
        moments[latent * d..(latent + 1) * d].fill(0.0);
    }
}
