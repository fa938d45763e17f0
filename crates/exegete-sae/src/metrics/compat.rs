//! The numbers that other tools print, by their formulas, including those that are known to be wrong.
//!
//! They are for comparison with published tables, and for nothing else. The tools work batch by batch and some of these
//! numbers depend on the batches; positions are those of the caller, where the tools may count the first one too. Where a
//! tool averages plain means over batches, batches are taken to be of one size.

use serde::Serialize;

use super::Reconstruction;
use super::reconstruction::Measure;
use crate::Codes;

/// A tool whose numbers are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Tool {
    /// SAELens 6.18, `evals.py`.
    #[serde(rename = "saelens-6.18")]
    SaeLens,
    /// SAEBench 0.6, `evals/core/main.py`.
    #[serde(rename = "saebench-0.6")]
    SaeBench,
    /// dictionary_learning 0.1, `evaluation.py`.
    #[serde(rename = "dictionary-learning")]
    DictionaryLearning,
}

/// A number as a tool prints it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CompatNumber {
    /// The tool's own name for it.
    pub name: &'static str,
    /// The number.
    pub value: f64,
    /// What is wrong with it, in a sentence.
    pub known_wrong: Option<&'static str>,
}

const DIVIDED_TWICE: &str =
    "each token's error is divided by the tokens of its batch, and averaged again: it shrinks with the batch";
const SQUARES_FOR_MEANS: &str = "its variance subtracts the square of a mean square where the squared mean was meant: nearly 1 - error / length for short \
     activations, nonsense for long ones";
const TOKEN_BY_TOKEN: &str =
    "a mean of ratios token by token, against the mean of the batch: tokens near it weigh most";
const NOT_SQUARED: &str = "a mean of lengths, not of squared lengths";
const MEAN_ERROR_FREE: &str = "by variances: a constant error costs nothing; a mean over batches, each by its own mean";

/// Sums over batches.
#[derive(Debug, Clone, Default)]
pub struct Batches {
    n_batches: f64,
    tokens: f64,
    mse: f64,
    legacy: f64,
    /// Sums over batches of means within them: squared input, its square over the width, squared error.
    squared_x: f64,
    squared_x_per_dim: f64,
    squared_error: f64,
    length_of_error: f64,
    variance_explained: f64,
    l0: f64,
    l1: f64,
    cosine: f64,
    ratio: f64,
    bias: f64,
}

impl Batches {
    /// Adds a batch: outputs, reconstructions and codes.
    ///
    /// # Shapes
    /// `x_ND, recon_ND, codes of N tokens`
    pub fn add(&mut self, x_ND: &[f32], recon_ND: &[f32], d: usize, codes: &Codes) {
        let n = (x_ND.len() / d) as f64;
        if n == 0.0 {
            return;
        }
        let mut whole = Reconstruction::new(d, codes.latents().iter().max().map_or(0, |l| *l as usize + 1));
        whole.add(x_ND, recon_ND, codes, false);
        let of = |measure| whole.of(measure).value;
        self.n_batches += 1.0;
        self.tokens += n;
        let squared_error = of(Measure::Mse);
        // A mean over tokens of (squared error / n), added up over all tokens of the batch.
        self.mse += squared_error;
        let mean_D = mean(x_ND, d);
        let mut residual = vec![0f32; x_ND.len()];
        residual.iter_mut().zip(x_ND).zip(recon_ND).for_each(|((e, x), r)| *e = x - r);
        let error_mean_D = mean(&residual, d);
        let (mut variance, mut error_variance) = (0.0, 0.0);
        for (x, e) in x_ND.chunks_exact(d).zip(residual.chunks_exact(d)) {
            let from = |row: &[f32], mean: &[f64]| -> f64 {
                row.iter().zip(mean).map(|(v, m)| (f64::from(*v) - m).powi(2)).sum()
            };
            let (error, spread) = (e.iter().map(|e| f64::from(*e).powi(2)).sum::<f64>(), from(x, &mean_D));
            self.legacy += 1.0 - error / spread;
            self.length_of_error += error.sqrt() / n;
            variance += spread;
            error_variance += from(e, &error_mean_D);
        }
        self.variance_explained += 1.0 - error_variance / variance;
        let squared_x = x_ND.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / n;
        self.squared_x += squared_x;
        self.squared_x_per_dim += squared_x / d as f64;
        self.squared_error += squared_error;
        self.l0 += of(Measure::L0) * n;
        self.l1 += of(Measure::L1) * n;
        self.cosine += of(Measure::Cosine) * n;
        self.ratio += of(Measure::L2Ratio) * n;
        self.bias += of(Measure::ReconstructionBias);
    }

    /// What a tool would print of these batches.
    pub fn numbers(&self, tool: Tool) -> Vec<CompatNumber> {
        let (tokens, batches) = (self.tokens, self.n_batches);
        let right = |name, value| CompatNumber { name, value, known_wrong: None };
        let wrong = |name, value, why| CompatNumber { name, value, known_wrong: Some(why) };
        match tool {
            // SAEBench took its core evaluation from SAELens, and both have kept the same formulas.
            Tool::SaeLens | Tool::SaeBench => {
                let square = (self.squared_x_per_dim / batches).powi(2);
                let explained = 1.0 - (self.squared_error / batches) / (self.squared_x / batches - square);
                vec![
                    right("l0", self.l0 / tokens),
                    right("l1", self.l1 / tokens),
                    wrong("mse", self.mse / tokens, DIVIDED_TWICE),
                    wrong("explained_variance", explained, SQUARES_FOR_MEANS),
                    wrong("explained_variance_legacy", self.legacy / tokens, TOKEN_BY_TOKEN),
                    right("cossim", self.cosine / tokens),
                    right("l2_ratio", self.ratio / tokens),
                    right("relative_reconstruction_bias", self.bias / batches),
                ]
            }
            Tool::DictionaryLearning => vec![
                wrong("l2_loss", self.length_of_error / batches, NOT_SQUARED),
                right("l1_loss", self.l1 / tokens),
                right("l0", self.l0 / tokens),
                wrong("frac_variance_explained", self.variance_explained / batches, MEAN_ERROR_FREE),
                right("cossim", self.cosine / tokens),
                right("l2_ratio", self.ratio / tokens),
                right("relative_reconstruction_bias", self.bias / batches),
            ],
        }
    }
}

fn mean(x_ND: &[f32], d: usize) -> Vec<f64> {
    let mut sum_D = vec![0f64; d];
    x_ND.chunks_exact(d).for_each(|row| sum_D.iter_mut().zip(row).for_each(|(s, x)| *s += f64::from(*x)));
    sum_D.iter().map(|s| s * d as f64 / x_ND.len() as f64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_wrong_ones_are_wrong_as_they_are_known_to_be() {
        let x: Vec<f32> = (0..40).map(|i| (i as f32 * 0.7).sin() * 2.0 + 1.0).collect();
        let shifted: Vec<f32> = x.iter().map(|x| x + 0.5).collect();
        let codes = |n: usize| {
            let mut codes = Codes::default();
            (0..n).for_each(|_| codes.push([(1, 2.0)]));
            codes
        };
        let number = |batches: &Batches, tool, name| {
            batches.numbers(tool).into_iter().find(|n| n.name == name).map(|n| n.value).unwrap()
        };
        let (mut one, mut two) = (Batches::default(), Batches::default());
        one.add(&x, &shifted, 4, &codes(10));
        two.add(&x[..20], &shifted[..20], 4, &codes(5));
        two.add(&x[20..], &shifted[20..], 4, &codes(5));
        // The error is 4 times 0.25 on each token, and both batches have the same.
        assert!((number(&one, Tool::SaeBench, "mse") - 0.1).abs() < 1e-6);
        assert!((number(&two, Tool::SaeBench, "mse") - 0.2).abs() < 1e-6);
        assert!((number(&one, Tool::DictionaryLearning, "frac_variance_explained") - 1.0).abs() < 1e-6);
        assert!((number(&one, Tool::DictionaryLearning, "l2_loss") - 1.0).abs() < 1e-6);
        assert_eq!(number(&two, Tool::SaeLens, "l0"), 1.0);
    }
}
