//! ReLU: `f = relu(h)` (Bricken et al. 2023, "Towards Monosemanticity").

use super::{Block, Kind, select_each};
use crate::Codes;

/// The rule of a ReLU dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Relu;

impl Kind for Relu {
    const NAME: &'static str = "standard";

    fn select(&self, Block { pre_NF, n_latents, .. }: Block, codes: &mut Codes) {
        select_each(pre_NF, n_latents, codes, |_, h| h);
    }

    fn fault(&self, _: usize) -> Option<String> {
        None
    }
}
