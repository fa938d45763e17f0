//! One term of the loss: sparse codes, their gradients, and the gradients at what they reconstruct.

use exegete_tensor::cpu::simd::dot;
use exegete_tensor::cpu::sparse::{self, ByLatent, Rows};
use rayon::prelude::*;

use super::select::Entries;

/// Sparse contributions of one term of the loss. Latents lie in nested groups (Matryoshka), mostly one of all.
#[derive(Default)]
pub(super) struct Term {
    pub(super) entries: Entries,
    /// Gradients at the activations, then at the pre-activations.
    pub(super) d: Vec<f32>,
    /// Of each group, the gradient at what its latents add to: `[N, D_out]`.
    pub(super) grads: Vec<Vec<f32>>,
    /// Where each group ends.
    pub(super) ends: Vec<usize>,
    pub(super) by_latent: ByLatent,
}

impl Term {
    /// The latents of a group.
    fn group(&self, group: usize) -> std::ops::Range<u32> {
        let from = if group == 0 { 0 } else { self.ends[group - 1] };
        from as u32..self.ends[group] as u32
    }

    /// Takes the gradient at what all latents add to, where they are one group.
    pub(super) fn take_grad(&mut self, grad_ND: &[f32]) {
        self.grads.resize_with(1, Vec::new);
        self.grads[0].clear();
        self.grads[0].extend_from_slice(grad_ND);
    }

    /// Whether its activations add to anything.
    pub(super) fn decodes(&self) -> bool {
        !self.grads.is_empty()
    }

    /// The gradient at what a latent adds to.
    pub(super) fn grad_of(&self, latent: usize) -> &[f32] {
        &self.grads[self.ends.partition_point(|end| *end <= latent)]
    }

    /// Adds what a group's latents decode to.
    pub(super) fn decode_onto(&self, group: usize, values: &[f32], w_dec_FD: &[f32], d: usize, out_ND: &mut [f32]) {
        let rows = Rows::Starts(&self.entries.starts);
        sparse::decode_onto(values, (&self.entries.idx, self.group(group)), rows, w_dec_FD, d, out_ND);
    }

    /// Gradients at the activations of all groups, into `d`: from their own, or from one at what all of them add to.
    pub(super) fn gather(&mut self, common_ND: Option<&[f32]>, w_dec_FD: &[f32], width: usize) {
        self.d.resize(self.entries.idx.len(), 0.0);
        for group in 0..self.ends.len() {
            let (of, rows) = (self.group(group), Rows::Starts(&self.entries.starts));
            let grad_ND = common_ND.unwrap_or_else(|| &self.grads[group]);
            sparse::gather_dots(grad_ND, width, (&self.entries.idx, of), rows, w_dec_FD, &mut self.d);
        }
    }

    /// Groups the entries that move anything by latent.
    pub(super) fn group_by_latent(&mut self, n_latents: usize) {
        let (d, values) = (&self.d, &self.entries.values);
        let moves = |e: usize| d[e] != 0.0 || values[e] != 0.0;
        self.by_latent.build(n_latents, &self.entries.idx, &self.entries.starts, moves);
    }

    /// The sum of a latent's gradients at its pre-activations.
    pub(super) fn sum_of(&self, latent: usize) -> f32 {
        self.by_latent.of(latent).iter().map(|e| self.d[*e as usize]).sum()
    }
}

/// Squared lengths of the rows of an error and of the target's distances from its mean, each summed over tokens.
///
/// Row by row in parallel, then summed in order, so that threads do not matter.
pub(super) fn squares(target_ND: &[f32], left_ND: &[f32], d: usize) -> (f64, f64) {
    let n = target_ND.len() / d;
    let mut mean_D = vec![0f64; d];
    for row in target_ND.chunks_exact(d) {
        mean_D.iter_mut().zip(row).for_each(|(m, x)| *m += f64::from(*x) / n as f64);
    }
    let mean_D: Vec<f32> = mean_D.iter().map(|m| *m as f32).collect();
    let one = |(x, l): (&[f32], &[f32])| {
        let spread: f32 = x.iter().zip(&mean_D).map(|(x, m)| (x - m) * (x - m)).sum();
        (f64::from(dot(l, l)), f64::from(spread))
    };
    let sums: Vec<(f64, f64)> = target_ND.par_chunks_exact(d).zip(left_ND.par_chunks_exact(d)).map(one).collect();
    sums.iter().fold((0.0, 0.0), |(a, b), (x, y)| (a + x, b + y))
}
