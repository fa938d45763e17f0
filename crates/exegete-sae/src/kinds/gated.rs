//! Gated (Rajamanoharan et al. 2024, arXiv 2404.16014): `f = 1[x W_enc + b_gate > 0] * relu(x (W_enc e^r_mag) + b_mag)`.
//!
//! Both factors share the encoder's matrix. So with `h = x W_enc + b_gate`, which is what the encoder gives, the magnitude
//! is `e^r_mag h + (b_mag - e^r_mag b_gate)`: a scale and a shift for each latent.

use super::{Block, Kind, positive, select_each, wrong_size};
use crate::Codes;
use crate::screening::Wanted;

/// The rule of a gated dictionary. The encoder's bias is that of the gate.
#[derive(Debug, Clone, PartialEq)]
pub struct Gated {
    /// Scale of each latent's magnitude, `e^r_mag`, `[F]`.
    pub scale_F: Vec<f32>,
    /// Shift of each latent's magnitude, `b_mag - e^r_mag b_gate`, `[F]`.
    pub shift_F: Vec<f32>,
}

impl Gated {
    /// From the parameters that are saved.
    pub fn new(r_mag_F: &[f32], b_gate_F: &[f32], b_mag_F: &[f32]) -> Self {
        let scale_F: Vec<f32> = r_mag_F.iter().map(|r| r.exp()).collect();
        let shift = |((s, gate), mag): ((&f32, &f32), &f32)| mag - s * gate;
        Self { shift_F: scale_F.iter().zip(b_gate_F).zip(b_mag_F).map(shift).collect(), scale_F }
    }
}

impl Kind for Gated {
    const NAME: &'static str = "gated";

    fn select(&self, Block { pre_NF, n_latents, .. }: Block, codes: &mut Codes) {
        select_each(pre_NF, n_latents, codes, self);
    }

    fn wanted(&self, n_latents: usize) -> Option<Wanted<'_>> {
        positive(n_latents)
    }

    fn activation(&self, latent: usize, h: f32) -> f32 {
        if h > 0.0 { self.scale_F[latent] * h + self.shift_F[latent] } else { 0.0 }
    }

    fn slope(&self, latent: usize) -> f32 {
        self.scale_F[latent]
    }

    fn fault(&self, n_latents: usize) -> Option<String> {
        wrong_size("r_mag", self.scale_F.len(), n_latents)
            .or_else(|| wrong_size("b_mag", self.shift_F.len(), n_latents))
            .or_else(|| {
                let is_none = self.scale_F.iter().chain(&self.shift_F).any(|v| !v.is_finite());
                is_none.then(|| "r_mag or b_mag has a value that is no number: the file is damaged".into())
            })
    }
}
