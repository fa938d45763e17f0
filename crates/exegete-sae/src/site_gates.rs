//! Gates of a crosscoder's sites: a latent that is active may write to some of its sites and not to others.
//!
//! Llamascopium compares `h |row|` with a latent's threshold for each site by itself, `row` being what the latent writes
//! there. `h` is the same for all sites, so a code stays one value a latent, and the sites that it reaches follow from it.

use crate::{Codes, Sae};

/// For each latent and site, above which activation the latent writes there.
#[derive(Debug, Clone, PartialEq)]
pub struct SiteGates {
    /// Sites, which lie behind each other in the output and are of one width.
    pub n_sites: usize,
    /// Activations, `[F, S]`; infinite for a site that a latent never reaches.
    pub above_FS: Vec<f32>,
}

impl SiteGates {
    /// The least of a latent's gates: above it, the latent is active.
    pub fn least(&self) -> Vec<f32> {
        let least = |row: &[f32]| row.iter().copied().fold(f32::INFINITY, f32::min);
        self.above_FS.chunks_exact(self.n_sites.max(1)).map(least).collect()
    }

    /// What is wrong with them for outputs of this width, as a sentence.
    pub(crate) fn fault(&self, n_latents: usize, d_out: usize) -> Option<String> {
        let (s, found) = (self.n_sites, self.above_FS.len());
        if s == 0 || !d_out.is_multiple_of(s) || Some(found) != n_latents.checked_mul(s) {
            return Some(format!("{found} gates of {s} sites do not fit {n_latents} latents and {d_out} outputs"));
        }
        self.above_FS.iter().any(|g| g.is_nan() || *g < 0.0).then(|| "a gate of a site is no number above 0".into())
    }

    /// The places of a row of the decoder that a latent of this activation writes to.
    fn open(&self, latent: usize, value: f32, d_out: usize) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
        let d = d_out / self.n_sites;
        let gates = &self.above_FS[latent * self.n_sites..(latent + 1) * self.n_sites];
        gates.iter().enumerate().filter(move |(_, gate)| value > **gate).map(move |(s, _)| s * d..(s + 1) * d)
    }

    /// As [`Dictionary::decode`](crate::Dictionary::decode), of sizes that have been checked.
    pub(crate) fn decode(&self, sae: &Sae, codes: &Codes, out_ND: &mut [f32]) {
        exegete_tensor::cpu::for_rows(out_ND, sae.d_out, |token, out| {
            out.copy_from_slice(&sae.b_dec_D);
            for (latent, value) in codes.of(token) {
                let row = &sae.w_dec_FD[latent as usize * sae.d_out..][..sae.d_out];
                for places in self.open(latent as usize, value, sae.d_out) {
                    out[places.clone()].iter_mut().zip(&row[places]).for_each(|(o, w)| *o += value * w);
                }
            }
        });
    }

    /// Gradients of the activations of `codes`, given that of the output.
    pub(crate) fn gradients(&self, sae: &Sae, codes: &Codes, grad_ND: &[f32]) -> Vec<f32> {
        let each = grad_ND.chunks_exact(sae.d_out).enumerate().flat_map(|(token, grad)| {
            codes.of(token).map(move |(latent, value)| {
                let row = &sae.w_dec_FD[latent as usize * sae.d_out..][..sae.d_out];
                let of = |at: std::ops::Range<usize>| -> f32 {
                    row[at.clone()].iter().zip(&grad[at]).map(|(w, g)| w * g).sum()
                };
                self.open(latent as usize, value, sae.d_out).map(of).sum()
            })
        });
        each.collect()
    }
}
