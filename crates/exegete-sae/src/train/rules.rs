//! What activations are made of while training, and the way back from their gradients.

use exegete_base::settings::{Activation, KthForm, TrainSettings};

use super::TrainState;
use super::select::{Entries, kth_rule};
use crate::kinds::KthLargest;

/// A rule of single latents.
pub(super) enum Single<'a> {
    /// Active above a threshold, which is 0 for ReLU. Straight-through gradients of a threshold are those of Rajamanoharan
    /// et al. 2024 (arXiv 2407.14435), equation 11, with a rectangle as kernel: `-(threshold / width)` times the
    /// activation's gradient, and `-1 / width` times an activity's, where the pre-activation is within half the width. The
    /// pre-activation passes its gradient on where it is active. Both depend on the pre-activation less the threshold
    /// alone, and where the settings say so, the pre-activation has the other sign of what the threshold feels (Anthropic,
    /// January 2025; SAELens's `jumprelu_ste_to_input`).
    Threshold {
        /// Thresholds, if there are.
        theta_F: Option<&'a [f32]>,
        /// Width of the band in which they are felt.
        width: f32,
        /// Whether pre-activations feel it too.
        to_input: bool,
    },
    /// `relu(e^r_mag (h - b_gate) + b_mag)` where the gate, `h > 0`, is open.
    Gated {
        /// `e^r_mag`
        scale_F: Vec<f32>,
        /// The gate's bias, which is in h.
        b_gate_F: &'a [f32],
        /// The magnitude's bias.
        b_mag_F: &'a [f32],
    },
}

/// Gradients behind those at an activation.
pub(super) struct Back {
    /// At the pre-activation.
    pub(super) through: f32,
    /// At the latent's extras.
    pub(super) extras: [f32; 2],
}

impl<'a> Single<'a> {
    /// That of some settings, for thresholds if there are.
    pub(super) fn of(settings: &TrainSettings, state: &'a TrainState, theta_F: &'a [f32]) -> Self {
        let jumps = settings.activation == Activation::JumpRelu;
        match (settings.activation, &state.extras[..]) {
            (Activation::Gated, [r_mag, b_mag]) => Self::Gated {
                scale_F: r_mag.values.iter().map(|r| r.exp()).collect(),
                b_gate_F: &state.b_enc.values,
                b_mag_F: &b_mag.values,
            },
            _ => Self::Threshold {
                theta_F: jumps.then_some(theta_F),
                width: settings.bandwidth as f32,
                to_input: settings.ste_to_input,
            },
        }
    }

    /// The activation.
    #[inline]
    pub(super) fn value(&self, f: usize, h: f32) -> f32 {
        match self {
            Self::Threshold { theta_F, .. } => {
                if h > theta_F.map_or(0.0, |theta| theta[f]) {
                    h
                } else {
                    0.0
                }
            }
            Self::Gated { scale_F, b_gate_F, b_mag_F } => match h > 0.0 {
                true => (scale_F[f] * (h - b_gate_F[f]) + b_mag_F[f]).max(0.0),
                false => 0.0,
            },
        }
    }

    /// The way back from the gradients at the activation and at the activity itself.
    #[inline]
    pub(super) fn back(&self, f: usize, h: f32, d: f32, per_active: f32) -> Back {
        match self {
            Self::Threshold { theta_F, width, to_input } => {
                let theta = theta_F.map_or(0.0, |theta| theta[f]);
                let is_felt = theta_F.is_some() && ((h - theta) / width).abs() < 0.5;
                let felt = if is_felt { (theta * d + per_active) / width } else { 0.0 };
                let through = if h > theta { d } else { 0.0 };
                Back { through: if *to_input { through + felt } else { through }, extras: [-felt, 0.0] }
            }
            Self::Gated { scale_F, b_gate_F, .. } => match self.value(f, h) > 0.0 {
                true => Back { through: d * scale_F[f], extras: [d * scale_F[f] * (h - b_gate_F[f]), d] },
                false => Back { through: 0.0, extras: [0.0; 2] },
            },
        }
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
    if let Activation::JumpRelu | Activation::Gated = settings.activation {
        let rule = Single::of(settings, state, theta_F);
        for ((value, pre), latent) in entries.values.iter_mut().zip(&entries.pre).zip(&entries.idx) {
            *value = rule.value(*latent as usize, *pre);
        }
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
        Activation::JumpRelu | Activation::Gated => {
            let rule = Single::of(settings, state, theta_F);
            for (n, range) in entries.starts.windows(2).enumerate() {
                let per_active = per_active_N.get(n).copied().unwrap_or(0.0);
                for e in range[0]..range[1] {
                    let latent = entries.idx[e] as usize;
                    let back = rule.back(latent, entries.pre[e], d[e], per_active);
                    d[e] = back.through;
                    extras.iter_mut().zip(back.extras).for_each(|(extra, d)| extra[latent] += d);
                }
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
