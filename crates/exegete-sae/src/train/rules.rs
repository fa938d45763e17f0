//! What activations are made of while training, and the way back from their gradients.

use exegete_base::settings::{Activation, KthForm, TrainSettings};

use super::TrainState;
use super::select::{Entries, kth_rule};
use crate::kinds::KthLargest;

/// A rule of single latents: active above a threshold, which is 0 for ReLU. Straight-through gradients of a threshold are
/// those of Rajamanoharan et al. 2024 (arXiv 2407.14435), equation 11, with a rectangle as kernel: `-(threshold / width)`
/// times the activation's gradient, and `-1 / width` times an activity's, where the pre-activation is within half the
/// width. The pre-activation passes its gradient on where it is active. Both depend on the pre-activation less the
/// threshold alone, and where the settings say so, the pre-activation has the other sign of what the threshold feels
/// (Anthropic, January 2025; SAELens's `jumprelu_ste_to_input`).
pub(super) struct Threshold<'a> {
    theta_F: Option<&'a [f32]>,
    width: f32,
    to_input: bool,
}

impl<'a> Threshold<'a> {
    /// That of some settings, for thresholds if there are.
    pub(super) fn new(settings: &TrainSettings, theta_F: &'a [f32]) -> Self {
        let theta_F = (settings.activation == Activation::JumpRelu).then_some(theta_F);
        Self { theta_F, width: settings.bandwidth as f32, to_input: settings.ste_to_input }
    }

    fn theta(&self, latent: usize) -> f32 {
        self.theta_F.map_or(0.0, |theta| theta[latent])
    }

    /// The activation.
    pub(super) fn value(&self, latent: usize, h: f32) -> f32 {
        if h > self.theta(latent) { h } else { 0.0 }
    }

    /// The gradient at the pre-activation, given those at the activation and at the activity itself, and that at the
    /// threshold.
    pub(super) fn back(&self, latent: usize, h: f32, d: f32, per_active: f32) -> (f32, f32) {
        let theta = self.theta(latent);
        let is_felt = self.theta_F.is_some() && (h > 0.0 || self.to_input) && ((h - theta) / self.width).abs() < 0.5;
        let felt = if is_felt { (theta * d + per_active) / self.width } else { 0.0 };
        let through = if h > theta { d } else { 0.0 };
        (if self.to_input { through + felt } else { through }, -felt)
    }
}

/// The thresholds of a JumpReLU, of any other nothing.
pub(super) fn thresholds(settings: &TrainSettings, state: &TrainState, theta_F: &mut Vec<f32>) {
    theta_F.clear();
    if settings.activation == Activation::JumpRelu {
        theta_F.extend(state.extras[0].values.iter().map(|t| settings.threshold_form.threshold(*t)));
    }
}

/// What the activations of entries have become for the loss: turns relu(h) into the activation where the rule is one of
/// single latents.
pub(super) fn activate(settings: &TrainSettings, state: &TrainState, theta_F: &[f32], entries: &mut Entries) {
    match settings.activation {
        Activation::JumpRelu => {
            let rule = Threshold::new(settings, theta_F);
            for (value, latent) in entries.values.iter_mut().zip(&entries.idx) {
                *value = rule.value(*latent as usize, *value);
            }
        }
        Activation::Gated => {
            let [r_mag, b_mag] = [&state.extras[0].values, &state.extras[1].values];
            for ((value, pre), latent) in entries.values.iter_mut().zip(&entries.pre).zip(&entries.idx) {
                let f = *latent as usize;
                *value = (r_mag[f].exp() * (pre - state.b_enc.values[f]) + b_mag[f]).max(0.0);
            }
        }
        _ => {}
    }
}

/// Turns gradients at activations into gradients at pre-activations, in place, and gives those of the latents' extras.
/// `per_active_N` is the loss's gradient at each token's activities themselves (L0), and empty where it has none.
pub(super) fn backward(
    settings: &TrainSettings,
    (state, theta_F): (&TrainState, &[f32]),
    entries: &Entries,
    per_active_N: &[f32],
    d: &mut [f32],
) -> Vec<Vec<f32>> {
    let mut extras: Vec<Vec<f32>> = state.extras.iter().map(|p| vec![0f32; p.values.len()]).collect();
    match settings.activation {
        Activation::TopK | Activation::BatchTopK | Activation::Relu | Activation::MatchingPursuit => entries.mask(d),
        Activation::JumpRelu => {
            let rule = Threshold::new(settings, theta_F);
            for (n, range) in entries.starts.windows(2).enumerate() {
                let per_active = per_active_N.get(n).copied().unwrap_or(0.0);
                for e in range[0]..range[1] {
                    let latent = entries.idx[e] as usize;
                    let (through, extra) = rule.back(latent, entries.pre[e], d[e], per_active);
                    (d[e], extras[0][latent]) = (through, extras[0][latent] + extra);
                }
            }
        }
        Activation::Gated => {
            for (e, (d, latent)) in d.iter_mut().zip(&entries.idx).enumerate() {
                let f = *latent as usize;
                if entries.values[e] <= 0.0 {
                    *d = 0.0;
                    continue;
                }
                let scale = state.extras[0].values[f].exp();
                extras[0][f] += *d * scale * (entries.pre[e] - state.b_enc.values[f]);
                extras[1][f] += *d;
                *d *= scale;
            }
        }
        Activation::KthLargest => match settings.kth_form {
            KthForm::A => entries.mask(d),
            form => kth_backward(&kth_rule(settings, form), entries, d),
        },
    }
    extras
}

fn kth_backward(rule: &KthLargest, entries: &Entries, d: &mut [f32]) {
    for (range, kth) in entries.starts.windows(2).zip(&entries.kth) {
        let at_kth = kth.map_or(0.0, |kth| entries.pre[kth]);
        let mut through_kth = 0f32;
        for e in range[0]..range[1] {
            match (rule.is_gate, entries.pre[e]) {
                (false, _) => through_kth -= d[e],
                (true, h) if h < at_kth => {
                    through_kth -= d[e] * h / rule.eps;
                    d[e] *= (h - at_kth) / rule.eps + 1.0 + h / rule.eps;
                }
                (true, _) => {}
            }
        }
        if let Some(kth) = kth {
            d[*kth] += through_kth;
        }
    }
}
