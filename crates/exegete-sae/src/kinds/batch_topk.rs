//! BatchTopK (Bussmann, Leask and Nanda 2024, arXiv 2412.06410): of all tokens' `relu(h)` together the k largest a token.
//!
//! A token's code depends on the tokens that are encoded with it. So a dictionary with a threshold is read as
//! [`JumpRelu`](super::JumpRelu); this is for those that were saved without one.

use super::{Kind, Relu, wrong_k};
use crate::Codes;

/// The rule of a BatchTopK dictionary without a threshold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchTopK {
    /// Latents kept for each token, on average.
    pub k: usize,
}

impl Kind for BatchTopK {
    const NAME: &'static str = "batchtopk";

    fn select(&self, pre_NF: &[f32], n_latents: usize, codes: &mut Codes) {
        Relu.select(pre_NF, n_latents, codes);
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
