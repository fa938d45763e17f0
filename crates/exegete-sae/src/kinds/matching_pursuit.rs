//! Matching pursuit (Mallat and Zhang 1993; as a sparse autoencoder Costa et al. 2025, arXiv 2506.03093): with what is left
//! `r = x - b_dec`, again and again the latent of the largest `r . w`, whose activation `relu(r . w)` grows by that much,
//! and `r -= relu(r . w) w`.
//!
//! The encoder is the decoder. As in SAELens a token is done when its set of active latents stays as it was, which is when a
//! latent is chosen again, when what is left is shorter than a bound, or when nothing reaches above 0.
//!
//! Products of what is left with all rows are computed once: afterwards those of a chosen row with all others are taken off,
//! and rows of such products are computed as they are needed, 64 together, and kept through a call. So a token costs k
//! additions of F values on top of TopK's product, and its code does not depend on other tokens.

use std::collections::HashMap;

use exegete_tensor::cpu::gemm::{Into, Mat, gemm};
use exegete_tensor::cpu::simd::{axpy, dot};
use rayon::prelude::*;

use super::{Block, Kind};
use crate::Codes;

/// Rows of products that are computed together: always as many, so that bits do not depend on which are wanted.
const TOGETHER: usize = 64;
/// Values of products that are kept: 256 MiB.
const KEPT: usize = 64 << 20;

/// The rule of a matching pursuit dictionary.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MatchingPursuit {
    /// Choices a token has at most.
    pub max_iterations: usize,
    /// Length of what is left below which a token is done, in the units of the input; 0 for none.
    pub residual_threshold: f32,
    /// Whether a token is done when a latent is chosen again.
    pub stops_on_duplicate: bool,
}

/// Products of a decoder's rows among themselves, as far as they were needed.
pub(crate) struct Gram {
    /// Rows of products, `[slots, F]`.
    rows: Vec<f32>,
    slot_of: HashMap<u32, usize>,
    /// Rows of the decoder whose products are to be computed.
    chosen: Vec<f32>,
    /// Values that are kept, unless a single round needs more.
    most: usize,
}

impl Default for Gram {
    fn default() -> Self {
        Self { rows: Vec::new(), slot_of: HashMap::new(), chosen: Vec::new(), most: KEPT }
    }
}

impl Gram {
    /// Bytes that it takes at most, unless a single round needs more.
    pub(crate) fn most_bytes(n_latents: usize) -> usize {
        4 * n_latents.saturating_mul(n_latents).min(KEPT)
    }

    /// Forgets the products, not the memory: the decoder is another.
    pub(crate) fn clear(&mut self) {
        self.slot_of.clear();
        self.rows.clear();
    }

    /// Sees that the products of some latents are there.
    fn need(&mut self, (w_FD, d): (&[f32], usize), mut latents: Vec<u32>) {
        latents.sort_unstable();
        latents.dedup();
        let f = w_FD.len() / d;
        let n_new = latents.iter().filter(|latent| !self.slot_of.contains_key(latent)).count();
        if (self.slot_of.len() + n_new).saturating_mul(f) > self.most {
            self.clear();
        }
        latents.retain(|latent| !self.slot_of.contains_key(latent));
        for some in latents.chunks(TOGETHER) {
            self.chosen.clear();
            some.iter().for_each(|latent| self.chosen.extend_from_slice(&w_FD[*latent as usize * d..][..d]));
            self.chosen.resize(TOGETHER * d, 0.0);
            let from = self.slot_of.len() * f;
            self.rows.resize(from + TOGETHER * f, 0.0);
            let (chosen, all) = (Mat::rows(&self.chosen, d), Mat::rows(w_FD, d).t());
            gemm((TOGETHER, f, d), &mut self.rows[from..], f, Into::Overwrite, 1.0, chosen, all, true);
            self.rows.truncate(from + some.len() * f);
            for latent in some {
                self.slot_of.insert(*latent, self.slot_of.len());
            }
        }
    }

    fn row(&self, latent: u32, f: usize) -> &[f32] {
        &self.rows[self.slot_of[&latent] * f..][..f]
    }
}

/// Choices for each latent, at most, where a latent may be chosen without end.
const MOST_CHOICES: usize = 64;

/// A token on its way.
struct Walk<'a> {
    left_D: &'a mut [f32],
    scores_F: &'a mut [f32],
    choices: Vec<(u32, f32)>,
    is_done: bool,
}

impl MatchingPursuit {
    /// The choices of each token in their order, a latent that was chosen again standing twice. `left_ND` is the input less the
    /// decoder's bias, and then what is left; `scores_NF` its products with all rows of the decoder, and then scratch.
    pub(crate) fn pursue(
        &self,
        (w_FD, d): (&[f32], usize),
        left_ND: &mut [f32],
        scores_NF: &mut [f32],
        gram: &mut Gram,
    ) -> Vec<Vec<(u32, f32)>> {
        let f = w_FD.len() / d;
        let walk = |(left_D, scores_F)| Walk { left_D, scores_F, choices: Vec::new(), is_done: false };
        let mut walks: Vec<Walk> = left_ND.chunks_exact_mut(d).zip(scores_NF.chunks_exact_mut(f)).map(walk).collect();
        for i in 0..self.max_iterations {
            walks.par_iter_mut().filter(|walk| !walk.is_done).for_each(|walk| {
                if i > 0
                    && let Some((latent, value)) = walk.choices.last()
                {
                    axpy(-value, gram.row(*latent, f), walk.scores_F);
                }
                self.choose(walk, w_FD);
            });
            if i + 1 == self.max_iterations {
                break;
            }
            let under_way = walks.iter().filter(|walk| !walk.is_done);
            let latents: Vec<u32> =
                under_way.filter_map(|walk| walk.choices.last()).map(|(latent, _)| *latent).collect();
            if latents.is_empty() {
                break;
            }
            gram.need((w_FD, d), latents);
        }
        walks.into_iter().map(|walk| walk.choices).collect()
    }

    fn choose(&self, walk: &mut Walk, w_FD: &[f32]) {
        let latent = position_of_largest(walk.scores_F) as u32;
        let d = walk.left_D.len();
        let row = &w_FD[latent as usize * d..][..d];
        // Of what is left itself, which has no rounding of many steps in it.
        let value = dot(walk.left_D, row);
        if value.is_nan() || value <= 0.0 {
            walk.is_done = true;
            return;
        }
        let is_duplicate = walk.choices.iter().any(|(chosen, _)| *chosen == latent);
        walk.choices.push((latent, value));
        axpy(-value, row, walk.left_D);
        let is_short = dot(walk.left_D, walk.left_D).sqrt() < self.residual_threshold;
        walk.is_done = is_short || self.stops_on_duplicate && is_duplicate;
    }
}

/// Where the largest value is; of equal ones the first.
fn position_of_largest(values: &[f32]) -> usize {
    const LANES: usize = 16;
    let (wide, rest) = values.as_chunks::<LANES>();
    let mut most = [f32::NEG_INFINITY; LANES];
    for chunk in wide {
        for (m, v) in most.iter_mut().zip(chunk) {
            *m = if *v > *m { *v } else { *m };
        }
    }
    let most = most.iter().chain(rest).fold(f32::NEG_INFINITY, |m, v| if *v > m { *v } else { m });
    values.iter().position(|v| *v == most).unwrap_or(0)
}

impl Kind for MatchingPursuit {
    const NAME: &'static str = "matching_pursuit";

    fn select(&self, block: Block, codes: &mut Codes) {
        let mut left_ND = block.x_ND.to_vec();
        let decoder = (block.w_dec_FD, block.w_dec_FD.len() / block.n_latents);
        for mut choices in self.pursue(decoder, &mut left_ND, block.pre_NF, block.gram) {
            choices.sort_by_key(|(latent, _)| *latent);
            // What was chosen again is one activation.
            choices.dedup_by(|again, first| {
                let is_same = again.0 == first.0;
                first.1 += if is_same { again.1 } else { 0.0 };
                is_same
            });
            codes.push(choices);
        }
    }

    fn fault(&self, n_latents: usize) -> Option<String> {
        let bound = self.residual_threshold;
        // With rows that are short each choice takes little, and nothing else would end it.
        if !self.stops_on_duplicate && self.max_iterations > MOST_CHOICES.saturating_mul(n_latents) {
            let most = format!("{MOST_CHOICES} times its {n_latents} latents");
            return Some(format!("{} choices that may be of one latent are more than {most}", self.max_iterations));
        }
        (self.max_iterations == 0 || bound.is_nan() || bound < 0.0)
            .then(|| format!("{} iterations down to a length of {bound} are no pursuit", self.max_iterations))
    }

    fn describe(&self) -> String {
        format!("at most {} choices, down to a length of {}", self.max_iterations, self.residual_threshold)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(seed: u64, n: usize) -> Vec<f32> {
        let hash = |i: usize| exegete_base::sampling::pair_hash(seed, i as u64, 0) >> 40;
        (0..n).map(|i| hash(i) as f32 / (1u64 << 23) as f32 - 1.0).collect()
    }

    /// Products with all rows anew for each choice, in f64.
    fn naive(rule: &MatchingPursuit, w_FD: &[f32], x_D: &[f32]) -> Vec<(u32, f64)> {
        let d = x_D.len();
        let mut left: Vec<f64> = x_D.iter().map(|x| f64::from(*x)).collect();
        let mut choices: Vec<(u32, f64)> = Vec::new();
        for _ in 0..rule.max_iterations {
            let score = |row: &[f32]| row.iter().zip(&left).map(|(w, l)| f64::from(*w) * l).sum::<f64>();
            let scores: Vec<f64> = w_FD.chunks(d).map(score).collect();
            let best = (0..scores.len()).max_by(|a, b| scores[*a].total_cmp(&scores[*b])).unwrap();
            if scores[best] <= 0.0 {
                break;
            }
            let again = choices.iter().any(|(latent, _)| *latent == best as u32);
            choices.push((best as u32, scores[best]));
            let row = &w_FD[best * d..(best + 1) * d];
            left.iter_mut().zip(row).for_each(|(l, w)| *l -= scores[best] * f64::from(*w));
            let length = left.iter().map(|l| l * l).sum::<f64>().sqrt();
            if length < f64::from(rule.residual_threshold) || rule.stops_on_duplicate && again {
                break;
            }
        }
        choices
    }

    #[test]
    fn products_of_chosen_rows_do_what_products_anew_do_whatever_is_kept() {
        let (d, f, n) = (12, 200, 70);
        let mut w = noise(1, f * d);
        w.chunks_exact_mut(d).for_each(|row| {
            let length = dot(row, row).sqrt();
            row.iter_mut().for_each(|w| *w /= length);
        });
        let x = noise(2, n * d);
        for (max_iterations, residual_threshold, stops_on_duplicate) in
            [(6, 0.0, true), (20, 0.2, true), (9, 0.0, false)]
        {
            let rule = MatchingPursuit { max_iterations, residual_threshold, stops_on_duplicate };
            let run = |x: &[f32], most: usize| {
                let mut scores: Vec<f32> =
                    x.chunks(d).flat_map(|x| w.chunks(d).map(|row| dot(x, row)).collect::<Vec<f32>>()).collect();
                let mut gram = Gram { most, ..Gram::default() };
                rule.pursue((&w, d), &mut x.to_vec(), &mut scores, &mut gram)
            };
            let all = run(&x, KEPT);
            for (x, choices) in x.chunks(d).zip(&all) {
                let want = naive(&rule, &w, x);
                assert_eq!(choices.len(), want.len());
                for ((latent, value), (want_latent, want_value)) in choices.iter().zip(&want) {
                    assert!(
                        latent == want_latent && (f64::from(*value) - want_value).abs() < 1e-5,
                        "{choices:?} {want:?}"
                    );
                }
            }
            // A token's bits depend neither on the others nor on how many products are kept.
            assert!(run(&x, 3 * f) == all);
            assert!(x.chunks(d).zip(&all).all(|(x, choices)| run(x, KEPT)[0] == *choices));
        }
    }

    #[test]
    fn the_first_of_the_largest_is_found() {
        for n in [1, 15, 16, 17, 100] {
            let mut values = noise(3, n);
            for at in [0, n / 2, n - 1] {
                values[at] += 10.0;
                assert_eq!(position_of_largest(&values), at);
                values[at] = -1.0;
            }
            values.fill(0.5);
            assert_eq!(position_of_largest(&values), 0);
        }
    }

    #[test]
    fn a_pursuit_that_nothing_ends_is_refused() {
        let rule = |max_iterations, stops_on_duplicate| MatchingPursuit {
            max_iterations,
            residual_threshold: 0.0,
            stops_on_duplicate,
        };
        assert!(rule(usize::MAX, true).fault(10).is_none());
        assert!(rule(640, false).fault(10).is_none());
        assert!(rule(641, false).fault(10).unwrap().contains("10 latents"));
    }
}
