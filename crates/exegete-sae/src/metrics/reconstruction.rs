//! How well a dictionary reconstructs, and how sparsely: sums over tokens, by document.

use exegete_base::stats::{Estimate, ratio_of_sums};
use serde::Serialize;

use super::density::Density;
use crate::{Codes, Dictionary, Result};

/// Below this length an input counts as zero, and its ratio and cosine as 0.
const NO_LENGTH: f64 = 1e-12;

/// What is measured of reconstructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Mean number of active latents on a token.
    L0,
    /// Mean sum of a token's activations.
    L1,
    /// Mean over tokens of the squared error, summed over the width.
    Mse,
    /// Fraction of variance unexplained: squared errors over squared distances from the mean of the whole evaluation set.
    Fvu,
    /// Mean cosine of input and reconstruction.
    Cosine,
    /// Mean ratio of the reconstruction's length to the input's.
    L2Ratio,
    /// Sum of squared lengths of reconstructions over the sum of their products with the inputs: 1 is unbiased (Rajamanoharan
    /// et al. 2024, equation 10).
    ReconstructionBias,
}

impl Measure {
    /// All, with the names that are printed.
    pub const NAMES: [(&'static str, Self); 7] = [
        ("L0", Self::L0),
        ("L1", Self::L1),
        ("MSE", Self::Mse),
        ("FVU", Self::Fvu),
        ("cosine", Self::Cosine),
        ("l2 ratio", Self::L2Ratio),
        ("relative reconstruction bias", Self::ReconstructionBias),
    ];
}

/// Sums over tokens, by document, from which the metrics follow. Sums are in f64.
#[derive(Debug, Clone)]
pub struct Reconstruction {
    documents: Vec<DocumentSums>,
    fired_F: Vec<u64>,
    d: usize,
}

#[derive(Debug, Clone, Default)]
struct DocumentSums {
    n: f64,
    active: f64,
    activation: f64,
    squared_error: f64,
    squared_norm: f64,
    squared_recon: f64,
    dot: f64,
    cosine: f64,
    ratio: f64,
    sum_D: Vec<f64>,
}

impl Reconstruction {
    /// Nothing measured yet, for outputs of width `d` and `n_latents` latents.
    pub fn new(d: usize, n_latents: usize) -> Self {
        Self { documents: Vec::new(), fired_F: vec![0; n_latents], d }
    }

    /// Adds the tokens of one document (or a further part of the last one if `continues`).
    pub fn add(&mut self, x_ND: &[f32], recon_ND: &[f32], codes: &Codes, continues: bool) {
        if !continues || self.documents.is_empty() {
            self.documents.push(DocumentSums { sum_D: vec![0.0; self.d], ..DocumentSums::default() });
        }
        let Some(doc) = self.documents.last_mut() else { return };
        for (x, r) in x_ND.chunks_exact(self.d).zip(recon_ND.chunks_exact(self.d)) {
            let (mut error, mut xx, mut rr, mut xr) = (0.0, 0.0, 0.0, 0.0);
            for ((x, r), sum) in x.iter().zip(r).zip(&mut doc.sum_D) {
                let (x, r) = (f64::from(*x), f64::from(*r));
                error += (x - r) * (x - r);
                xx += x * x;
                rr += r * r;
                xr += x * r;
                *sum += x;
            }
            doc.n += 1.0;
            doc.squared_error += error;
            doc.squared_norm += xx;
            doc.squared_recon += rr;
            doc.dot += xr;
            let (x_len, r_len) = (xx.sqrt(), rr.sqrt());
            if x_len > NO_LENGTH {
                doc.ratio += r_len / x_len;
                doc.cosine += if r_len > NO_LENGTH { xr / (x_len * r_len) } else { 0.0 };
            }
        }
        doc.active += codes.n_active() as f64;
        doc.activation += codes.values().iter().map(|v| f64::from(v.abs())).sum::<f64>();
        codes.latents().iter().for_each(|latent| self.fired_F[*latent as usize] += 1);
    }

    /// Numerator and denominator of a measure for each document: the measure is the ratio of their sums.
    pub fn pairs(&self, measure: Measure) -> Vec<(f64, f64)> {
        let each = |f: fn(&DocumentSums) -> (f64, f64)| self.documents.iter().map(f).collect();
        match measure {
            Measure::L0 => each(|doc| (doc.active, doc.n)),
            Measure::L1 => each(|doc| (doc.activation, doc.n)),
            Measure::Mse => each(|doc| (doc.squared_error, doc.n)),
            Measure::Cosine => each(|doc| (doc.cosine, doc.n)),
            Measure::L2Ratio => each(|doc| (doc.ratio, doc.n)),
            Measure::ReconstructionBias => each(|doc| (doc.squared_recon, doc.dot)),
            Measure::Fvu => {
                let n: f64 = self.documents.iter().map(|d| d.n).sum();
                let mean_D: Vec<f64> =
                    (0..self.d).map(|i| self.documents.iter().map(|doc| doc.sum_D[i]).sum::<f64>() / n).collect();
                let mean_square: f64 = mean_D.iter().map(|m| m * m).sum();
                let variance = |doc: &DocumentSums| {
                    let along: f64 = doc.sum_D.iter().zip(&mean_D).map(|(s, m)| s * m).sum();
                    doc.squared_norm - 2.0 * along + doc.n * mean_square
                };
                self.documents.iter().map(|doc| (doc.squared_error, variance(doc))).collect()
            }
        }
    }

    /// A measure with its interval, which takes the document as the unit.
    pub fn of(&self, measure: Measure) -> Estimate {
        ratio_of_sums(&self.pairs(measure))
    }

    /// [`Measure::Fvu`], of which training reports the interval.
    pub fn fvu(&self) -> Estimate {
        self.of(Measure::Fvu)
    }

    /// [`Measure::L0`] alone.
    pub fn l0(&self) -> f64 {
        self.of(Measure::L0).value
    }

    /// On how many tokens each latent was active.
    pub fn density(&self) -> Density<'_> {
        Density { fired_F: &self.fired_F, n_tokens: self.n_tokens() }
    }

    /// Tokens measured.
    pub fn n_tokens(&self) -> u64 {
        self.documents.iter().map(|doc| doc.n as u64).sum()
    }
}

/// Measures a dictionary on documents of activations.
///
/// # Errors
/// Those of the dictionary.
pub fn reconstruction<'a>(
    dictionary: &dyn Dictionary,
    documents: impl IntoIterator<Item = &'a [f32]>,
) -> Result<Reconstruction> {
    let mut sums = Reconstruction::new(dictionary.d_out(), dictionary.n_latents());
    for x_ND in documents {
        let codes = dictionary.encode(x_ND)?;
        let mut recon = vec![0f32; codes.n_tokens() * dictionary.d_out()];
        dictionary.reconstruct(x_ND, &codes, &mut recon)?;
        sums.add(x_ND, &recon, &codes, false);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(x: &[f32], recon: &[f32]) -> Reconstruction {
        let mut codes = Codes::default();
        (0..10).for_each(|_| codes.push([(0, 1.0)]));
        let mut sums = Reconstruction::new(3, 4);
        for doc in 0..2 {
            let rows = doc * 30..(doc + 1) * 30;
            sums.add(&x[rows.clone()], &recon[rows], &codes, false);
        }
        sums
    }

    #[test]
    fn the_mean_explains_nothing_and_the_input_everything() {
        let x: Vec<f32> = (0..60).map(|i| (i as f32 * 0.9).sin() + 3.0).collect();
        let mean: Vec<f32> = (0..3).map(|c| (0..20).map(|r| x[r * 3 + c]).sum::<f32>() / 20.0).collect();
        assert!((sums(&x, &mean.repeat(20)).of(Measure::Fvu).value - 1.0).abs() < 1e-6);
        let exact = sums(&x, &x);
        for (measure, want) in [
            (Measure::Fvu, 0.0),
            (Measure::Mse, 0.0),
            (Measure::L0, 1.0),
            (Measure::L1, 1.0),
            (Measure::Cosine, 1.0),
            (Measure::L2Ratio, 1.0),
            (Measure::ReconstructionBias, 1.0),
        ] {
            assert!((exact.of(measure).value - want).abs() < 1e-12, "{measure:?}");
        }
        assert_eq!((exact.n_tokens(), exact.density().shares()), (20, vec![1.0, 0.0, 0.0, 0.0]));
    }

    #[test]
    fn a_reconstruction_that_is_too_short_is_biased() {
        let x: Vec<f32> = (0..60).map(|i| (i as f32 * 0.9).sin() + 3.0).collect();
        let half: Vec<f32> = x.iter().map(|x| x / 2.0).collect();
        let sums = sums(&x, &half);
        assert!((sums.of(Measure::ReconstructionBias).value - 0.5).abs() < 1e-12);
        assert!((sums.of(Measure::L2Ratio).value - 0.5).abs() < 1e-12);
        assert!((sums.of(Measure::Cosine).value - 1.0).abs() < 1e-12);
        let squares: f64 = half.iter().map(|h| f64::from(*h).powi(2)).sum();
        assert!((sums.of(Measure::Mse).value - squares / 20.0).abs() < 1e-9);
    }
}
