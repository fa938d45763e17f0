//! ReLU: `f = relu(h)` (Bricken et al. 2023, "Towards Monosemanticity").

use super::{Block, Kind, positive, select_each};
use crate::Codes;
use crate::screening::Wanted;

/// The rule of a ReLU dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relu;

impl Kind for Relu {
    const NAME: &'static str = "standard";

    fn select(&self, Block { pre_NF, n_latents, .. }: Block, codes: &mut Codes) {
        select_each(pre_NF, n_latents, codes, self);
    }

    fn wanted(&self, n_latents: usize) -> Option<Wanted<'_>> {
        positive(n_latents)
    }

    fn fault(&self, _: usize) -> Option<String> {
        None
    }
}
