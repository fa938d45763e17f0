//! Measured from the k-th largest of a token: with `b` the k-th largest pre-activation and a small `eps`,
//! `f = max(0, h - b + eps)`, or `f = relu(h) clip((h - b) / eps + 1, 0, 1)` with `b` that of `relu(h)`.
//!
//! Unlike TopK both are continuous where ranks cross: k latents a token are at `eps` or above (or whole), besides those
//! within `eps` of the k-th.

use exegete_tensor::cpu::topk::Selection;
use rayon::prelude::*;

use super::{Block, Kind, wrong_k};
use crate::Codes;
use crate::screening::Wanted;

/// The rule of a dictionary whose activations are measured from the k-th largest.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KthLargest {
    /// Whether it is the second formula: a gate of width `eps`.
    pub is_gate: bool,
    /// The rank that is measured from.
    pub k: usize,
    /// Width of the band below the k-th, in the units of the pre-activations.
    pub eps: f32,
}

/// A search for the k largest of a token, whose memory is kept.
#[derive(Default)]
pub(crate) struct Search {
    selection: Selection,
    values: Vec<f32>,
    idx: Vec<u32>,
}

impl Search {
    /// The k largest pre-activations with their latents, largest first.
    pub(crate) fn largest(&mut self, pre_F: &[f32], k: usize) -> impl DoubleEndedIterator<Item = (u32, f32)> + '_ {
        self.values.resize(k, 0.0);
        self.idx.resize(k, 0);
        self.selection.run(pre_F, &mut self.values, &mut self.idx);
        self.idx.iter().copied().zip(self.values.iter().copied())
    }
}

impl KthLargest {
    /// The k-th largest of a token, and the latent that it is of.
    pub(crate) fn kth(&self, pre_F: &[f32], search: &mut Search) -> (f32, u32) {
        let (latent, kth) = search.largest(pre_F, self.k).next_back().unwrap_or_default();
        (self.cut(kth), latent)
    }

    /// What is measured from, given the k-th largest pre-activation.
    pub(crate) fn cut(&self, kth: f32) -> f32 {
        if self.is_gate { kth.max(0.0) } else { kth }
    }

    /// The pre-activation above which a latent is active, given what is measured from.
    pub(crate) fn lowest(&self, cut: f32) -> f32 {
        if self.is_gate { (cut - self.eps).max(0.0) } else { cut - self.eps }
    }

    /// An activation, given the k-th largest.
    pub(crate) fn value(&self, h: f32, kth: f32) -> f32 {
        match self.is_gate {
            true => h.max(0.0) * ((h - kth) / self.eps + 1.0).clamp(0.0, 1.0),
            false => (h - kth + self.eps).max(0.0),
        }
    }
}

impl Kind for KthLargest {
    const NAME: &'static str = "kth_largest";

    fn select(&self, Block { pre_NF, n_latents, .. }: Block, codes: &mut Codes) {
        let one = |search: &mut Search, pre: &[f32]| -> Vec<(u32, f32)> {
            let (kth, _) = self.kth(pre, search);
            let each = pre.iter().enumerate().map(|(latent, h)| (latent as u32, self.value(*h, kth)));
            each.filter(|(_, value)| *value > 0.0).collect()
        };
        let rows: Vec<Vec<(u32, f32)>> = pre_NF.par_chunks(n_latents).map_init(Search::default, one).collect();
        rows.into_iter().for_each(|row| codes.push(row));
    }

    fn wanted(&self, _: usize) -> Option<Wanted<'_>> {
        Some(Wanted::Kth(*self))
    }

    fn fault(&self, n_latents: usize) -> Option<String> {
        let no_band = (self.eps.is_nan() || self.eps <= 0.0).then(|| format!("eps is {}", self.eps));
        wrong_k(self.k, n_latents).or(no_band)
    }

    fn describe(&self) -> String {
        let form = if self.is_gate { "a gate" } else { "shifted" };
        format!("k = {}, eps = {}, {form}", self.k, self.eps)
    }
}
