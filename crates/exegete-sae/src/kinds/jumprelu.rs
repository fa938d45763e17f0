//! JumpReLU (Rajamanoharan et al. 2024, arXiv 2407.14435): `f = h` where `h > threshold`, and 0 elsewhere.
//!
//! The comparison is strict, and a threshold below 0 counts as 0, as SAELens and Gemma Scope have it.

use super::{Block, Kind, select_each, wrong_size};
use crate::Codes;
use crate::screening::Wanted;

/// The rule of a JumpReLU dictionary.
#[derive(Debug, Clone, PartialEq)]
pub struct JumpRelu {
    /// Threshold of each latent, `[F]`, in the units of the pre-activations.
    pub threshold_F: Vec<f32>,
}

/// What pre-activations of a latent are above where it is active.
fn bound(threshold: f32) -> f32 {
    threshold.max(0.0)
}

impl Kind for JumpRelu {
    const NAME: &'static str = "jumprelu";

    fn select(&self, Block { pre_NF, n_latents, .. }: Block, codes: &mut Codes) {
        select_each(pre_NF, n_latents, codes, self);
    }

    fn wanted(&self, _: usize) -> Option<Wanted<'_>> {
        Some(Wanted::Above(self.threshold_F.iter().map(|t| bound(*t)).collect()))
    }

    fn activation(&self, latent: usize, h: f32) -> f32 {
        if h > bound(self.threshold_F[latent]) { h } else { 0.0 }
    }

    fn fault(&self, n_latents: usize) -> Option<String> {
        // A comparison with what is no number would let every latent through.
        let is_none = self.threshold_F.iter().any(|t| t.is_nan());
        let damaged = is_none.then(|| "a threshold is no number: the file is damaged".into());
        wrong_size("threshold", self.threshold_F.len(), n_latents).or(damaged)
    }

    fn describe(&self) -> String {
        let (low, high) = self.threshold_F.iter().fold((f32::MAX, f32::MIN), |(l, h), t| (l.min(*t), h.max(*t)));
        format!("thresholds {low:.4} to {high:.4}")
    }
}
