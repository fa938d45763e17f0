//! BatchTopK (Bussmann, Leask and Nanda 2024, arXiv 2412.06410): of all tokens' `relu(h)` together the k largest a token.
//!
//! A token's code depends on the tokens that are encoded with it. So a dictionary with a threshold is read as
//! [`JumpRelu`](super::JumpRelu); this is for those that were saved without one.

use super::{Block, JumpRelu, Kind, Relu, Rule, wrong_k};
use crate::screening::Wanted;
use crate::{Codes, Dictionary, Result, Sae};

/// The rule of a BatchTopK dictionary without a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchTopK {
    /// Latents kept for each token, on average.
    pub k: usize,
}

impl Sae {
    /// Of a BatchTopK dictionary, the JumpReLU dictionary with one threshold for all latents under which as many are active
    /// on these inputs: just below the least activation that is kept of them, taken together. Any other stays as it is.
    ///
    /// # Errors
    /// Inputs of another width.
    pub fn calibrated(self, x_ND: &[f32]) -> Result<Self> {
        let Rule::BatchTopK(_) = self.rule else { return Ok(self) };
        let codes = self.encode(x_ND)?;
        let least = codes.values().iter().copied().fold(f32::INFINITY, f32::min);
        let threshold = if least.is_finite() { least.next_down() } else { 0.0 };
        let threshold_F = vec![threshold; self.n_latents()];
        Ok(Self { rule: Rule::JumpRelu(JumpRelu { threshold_F }), ..self })
    }
}

impl Kind for BatchTopK {
    const NAME: &'static str = "batchtopk";

    fn select(&self, block: Block, codes: &mut Codes) {
        Relu.select(block, codes);
    }

    fn wanted(&self, n_latents: usize) -> Option<Wanted<'_>> {
        Relu.wanted(n_latents)
    }

    fn finish(&self, codes: &mut Codes) {
        let most = self.k * codes.n_tokens();
        if codes.n_active() <= most {
            return;
        }
        let mut values = codes.values().to_vec();
        let (_, least, _) = values.select_nth_unstable_by(most - 1, |a, b| b.total_cmp(a));
        let least = *least;
        codes.retain(|_, value| value >= least);
    }

    fn fault(&self, n_latents: usize) -> Option<String> {
        wrong_k(self.k, n_latents)
    }

    fn describe(&self) -> String {
        format!("k = {} a token over the tokens of a call; no threshold was saved", self.k)
    }
}
