//! How often latents are active.

use exegete_base::stats::{Estimate, wilson};
use serde::Serialize;

/// A latent that is active on more than this share of tokens is dense. Both shares are in use.
pub const DENSE: [f64; 2] = [0.1, 0.01];
/// Bins of the histogram in a factor of ten.
const BINS_A_DECADE: usize = 2;
/// Factors of ten below 1 that the histogram covers.
const DECADES: usize = 7;

/// Counts of tokens on which latents were active.
#[derive(Debug, Clone, Copy)]
pub struct Density<'a> {
    /// Tokens on which each latent was active, `[F]`.
    pub fired_F: &'a [u64],
    /// Tokens measured.
    pub n_tokens: u64,
}

/// A bin of the histogram of densities.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct DensityBin {
    /// Lower edge, as a share of tokens.
    pub from: f64,
    /// Upper edge.
    pub to: f64,
    /// Latents whose density lies at or above `from`, and below `to`.
    pub latents: u64,
}

impl Density<'_> {
    /// Share of the tokens on which each latent is active.
    pub fn shares(&self) -> Vec<f64> {
        self.fired_F.iter().map(|fired| *fired as f64 / self.n_tokens as f64).collect()
    }

    /// Latents that were active on none of the tokens. A statement about these tokens: those that are dead on a million may
    /// not be so on ten.
    pub fn n_dead(&self) -> usize {
        self.fired_F.iter().filter(|fired| **fired == 0).count()
    }

    /// Share of latents that were active on none of the tokens. The interval is over latents.
    pub fn dead(&self) -> Estimate {
        wilson(self.n_dead() as u64, self.fired_F.len() as u64)
    }

    /// Share of latents that were active on more than `above` of the tokens. The interval is over latents.
    pub fn dense(&self, above: f64) -> Estimate {
        let n = self.shares().iter().filter(|share| **share > above).count();
        wilson(n as u64, self.fired_F.len() as u64)
    }

    /// Histogram of the densities above 0, on fixed edges 10^(-i/2) from 1 downward; the lowest bin takes all below it.
    pub fn histogram(&self) -> Vec<DensityBin> {
        let n_bins = BINS_A_DECADE * DECADES;
        let edge = |i: usize| 10f64.powf(i as f64 / BINS_A_DECADE as f64 - DECADES as f64);
        let mut bins: Vec<DensityBin> =
            (0..n_bins).map(|i| DensityBin { from: edge(i), to: edge(i + 1), latents: 0 }).collect();
        for share in self.shares().into_iter().filter(|share| *share > 0.0) {
            let at = bins.partition_point(|bin| bin.to <= share).min(n_bins - 1);
            bins[at].latents += 1;
        }
        bins
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_latent_is_dead_or_in_one_bin() {
        let density = Density { fired_F: &[0, 1, 5, 20, 100, 1000, 0], n_tokens: 1000 };
        let in_bins: u64 = density.histogram().iter().map(|bin| bin.latents).sum();
        assert_eq!((density.n_dead(), in_bins), (2, 5));
        // 100 of 1000 is a tenth, not more.
        assert!((density.dense(0.1).value - 1.0 / 7.0).abs() < 1e-12);
        assert!((density.dense(0.01).value - 3.0 / 7.0).abs() < 1e-12);
        assert_eq!(density.histogram().last().map(|bin| bin.latents), Some(1));
    }
}
