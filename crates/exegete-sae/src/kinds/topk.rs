//! TopK (Gao et al. 2024, arXiv 2406.04093): `f = relu(topk(h, k))`.

use exegete_tensor::cpu::{buffer, topk};

use super::{Block, Kind, wrong_k};
use crate::Codes;
use crate::screening::Wanted;

/// The rule of a TopK dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopK {
    /// Latents kept for each token.
    pub k: usize,
}

impl Kind for TopK {
    const NAME: &'static str = "topk";

    fn select(&self, Block { pre_NF, n_latents, .. }: Block, codes: &mut Codes) {
        let (n, k) = (pre_NF.len() / n_latents, self.k);
        let (mut values, mut idx) = (buffer(n * k), vec![0u32; n * k]);
        topk::row_topk(pre_NF, n_latents, k, &mut values, &mut idx);
        let mut row = Vec::with_capacity(k);
        for (values, idx) in values.chunks_exact(k).zip(idx.chunks_exact(k)) {
            row.clear();
            row.extend(idx.iter().copied().zip(values.iter().copied()).filter(|(_, value)| *value > 0.0));
            row.sort_unstable_by_key(|(latent, _)| *latent);
            codes.push(row.iter().copied());
        }
    }

    fn wanted(&self, _: usize) -> Option<Wanted<'_>> {
        Some(Wanted::Ranked(self.k))
    }

    fn fault(&self, n_latents: usize) -> Option<String> {
        wrong_k(self.k, n_latents)
    }

    fn describe(&self) -> String {
        format!("k = {}", self.k)
    }
}
