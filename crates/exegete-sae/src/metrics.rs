//! Metrics over arrays. Definitions are version 1; see `docs/metrics.md`.

use exegete_base::stats::{Estimate, ratio_of_sums};

use crate::{Codes, Dictionary, Result};

/// Version of the definitions, stored beside every reported number.
pub const VERSION: u32 = 1;

/// Sums over tokens, by document, from which the metrics follow. Sums are in f64.
#[derive(Debug, Clone)]
pub struct Reconstruction {
    documents: Vec<DocumentSums>,
    n_tokens: u64,
    n_active: u64,
    d: usize,
}

#[derive(Debug, Clone)]
struct DocumentSums {
    n: f64,
    squared_error: f64,
    squared_norm: f64,
    sum_D: Vec<f64>,
}

impl Reconstruction {
    /// Nothing measured yet, for inputs of width `d`.
    pub fn new(d: usize) -> Self {
        Self { documents: Vec::new(), n_tokens: 0, n_active: 0, d }
    }

    /// Adds the tokens of one document (or a further part of the last one if `continues`).
    pub fn add(&mut self, x_ND: &[f32], recon_ND: &[f32], codes: &Codes, continues: bool) {
        if !continues || self.documents.is_empty() {
            let sum_D = vec![0.0; self.d];
            self.documents.push(DocumentSums { n: 0.0, squared_error: 0.0, squared_norm: 0.0, sum_D });
        }
        let Some(doc) = self.documents.last_mut() else { return };
        for (x, r) in x_ND.chunks_exact(self.d).zip(recon_ND.chunks_exact(self.d)) {
            doc.n += 1.0;
            for i in 0..self.d {
                let (x, r) = (f64::from(x[i]), f64::from(r[i]));
                doc.squared_error += (x - r) * (x - r);
                doc.squared_norm += x * x;
                doc.sum_D[i] += x;
            }
            self.n_tokens += 1;
        }
        self.n_active += codes.n_active() as u64;
    }

    /// Fraction of variance unexplained: sum of squared errors over the sum of squared distances from the mean of
    /// the whole evaluation set. The interval takes the document as the unit.
    pub fn fvu(&self) -> Estimate {
        let n: f64 = self.documents.iter().map(|d| d.n).sum();
        let mean_D: Vec<f64> =
            (0..self.d).map(|i| self.documents.iter().map(|doc| doc.sum_D[i]).sum::<f64>() / n).collect();
        let mean_square: f64 = mean_D.iter().map(|m| m * m).sum();
        let variance = |doc: &DocumentSums| {
            let along: f64 = doc.sum_D.iter().zip(&mean_D).map(|(s, m)| s * m).sum();
            doc.squared_norm - 2.0 * along + doc.n * mean_square
        };
        let pairs: Vec<(f64, f64)> = self.documents.iter().map(|doc| (doc.squared_error, variance(doc))).collect();
        ratio_of_sums(&pairs)
    }

    /// Mean number of latents active on a token.
    pub fn l0(&self) -> f64 {
        self.n_active as f64 / self.n_tokens as f64
    }

    /// Tokens measured.
    pub fn n_tokens(&self) -> u64 {
        self.n_tokens
    }
}

/// FVU and L0 of a dictionary on documents of activations.
///
/// # Errors
/// Those of the dictionary.
pub fn reconstruction<'a>(
    dictionary: &dyn Dictionary,
    documents: impl IntoIterator<Item = &'a [f32]>,
) -> Result<Reconstruction> {
    let mut sums = Reconstruction::new(dictionary.d_in());
    for x_ND in documents {
        let codes = dictionary.encode(x_ND)?;
        let mut recon = vec![0f32; x_ND.len()];
        dictionary.reconstruct(x_ND, &codes, &mut recon)?;
        sums.add(x_ND, &recon, &codes, false);
    }
    Ok(sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_explains_nothing_and_the_input_everything() {
        let x: Vec<f32> = (0..60).map(|i| (i as f32 * 0.9).sin() + 3.0).collect();
        let mean: Vec<f32> = (0..3).map(|c| (0..20).map(|r| x[r * 3 + c]).sum::<f32>() / 20.0).collect();
        let mut part = Codes::default();
        (0..10).for_each(|_| part.push([(0, 1.0)]));
        let fvu = |recon: &[f32]| {
            let mut sums = Reconstruction::new(3);
            for doc in 0..2 {
                let rows = doc * 30..(doc + 1) * 30;
                sums.add(&x[rows.clone()], &recon[rows], &part, false);
            }
            assert_eq!(sums.l0(), 1.0);
            sums.fvu().value
        };
        assert!((fvu(&mean.repeat(20)) - 1.0).abs() < 1e-6);
        assert_eq!(fvu(&x), 0.0);
    }
}
