//! Active latents without all pre-activations: which can be active is told by products in bf16, and only these are
//! computed.
//!
//! The bound of a token, for rules that rank, is guessed from the tokens before: a share of its length that the k-th largest
//! of nearly all of them exceeds. Where fewer than k are above it, that token is looked through again, with a lower bound and
//! in the end without, so that what comes out does not depend on the guess.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use exegete_tensor::cpu::packed::screen::{Found, Scan, Screen, pays};
use exegete_tensor::cpu::simd::dot;
use rayon::prelude::*;

use crate::kinds::KthLargest;

/// Below so many latents, rounding the encoder costs more than it saves.
const FROM: usize = 2048;
/// Rows of less than a step of the matrix unit are mostly padding.
const FROM_WIDTH: usize = 32;
/// Cost of one of the products in bf16, over that of computing a value that may be above a bound.
const ROUGH: f64 = 1.0 / 16.0;
/// Tokens from which the first bound is guessed.
const PROBED: usize = 8;
/// Where a bound was too high, these parts of it come next. With normal values and k of 16,384 a whole one lets k pass, and
/// these about 4 k and 20 k.
const LOWER: [f32; 2] = [0.85, 0.6];
/// Tokens that are looked at to tell whether few latents are above their bounds.
const COUNTED: usize = 4;
/// Few is at most one in so many, as for steps of a training that are not dense.
const FEW: usize = 24;
/// Shares of tokens shorter than this part of the mean say nothing about the others.
const SHORT: f32 = 0.01;

/// Which latents of a token are looked for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Wanted<'a> {
    /// The k largest.
    Ranked(usize),
    /// The k-th largest, and all that are active if activations are measured from it.
    Kth(KthLargest),
    /// All that are above their bounds, `[F]`.
    Above(Cow<'a, [f32]>),
}

impl Wanted<'_> {
    /// The rank that is looked for, if there is one.
    fn rank(&self) -> Option<usize> {
        match self {
            Self::Ranked(k) | Self::Kth(KthLargest { k, .. }) => Some(*k),
            Self::Above(_) => None,
        }
    }

    /// Bounds of latents, if there are any.
    fn bounds(&self) -> &[f32] {
        if let Self::Above(bounds_F) = self { bounds_F } else { &[] }
    }

    /// The bound of a token whose k-th largest is guessed.
    fn bound(&self, kth: f32) -> f32 {
        if let Self::Kth(rule) = self { kth - rule.eps } else { kth }
    }

    /// The k-th largest of what was [settled](Self::settle).
    fn kth(&self, found: &Found) -> Option<f32> {
        let kth = if let Self::Kth(_) = self { found.first() } else { found.last() };
        kth.map(|(_, kth)| *kth)
    }

    /// Makes of all entries above a bound those that are wanted; false where some may be missing.
    fn settle(&self, bound: f32, found: &mut Found) -> bool {
        let is_all = bound == f32::NEG_INFINITY;
        match self {
            Self::Ranked(k) => {
                if found.len() < *k && !is_all {
                    return false;
                }
                keep_k(found, *k);
                give_back(found);
            }
            Self::Kth(rule) => {
                let mut largest = found.clone();
                keep_k(&mut largest, rule.k);
                let from = largest.get(rule.k - 1).map(|(_, kth)| rule.lowest(rule.cut(*kth)));
                // All from the k-th's own bound on must have been found.
                if !is_all && from.is_none_or(|from| from < bound) {
                    return false;
                }
                let Some((latent, kth)) = largest.last().copied() else { return true };
                found.retain(|(_, h)| *h > rule.lowest(rule.cut(kth)));
                found.insert(0, (latent, kth));
                give_back(found);
            }
            Self::Above(_) => {}
        }
        true
    }
}

/// A linear encoder, and tokens for it.
#[derive(Clone, Copy)]
pub(crate) struct Encoder<'a> {
    /// D.
    pub(crate) d: usize,
    /// Tokens as the encoder takes them, `[N, D]`.
    pub(crate) x_ND: &'a [f32],
    /// Rows, `[F, D]`.
    pub(crate) w_FD: &'a [f32],
    /// Biases, `[F]`.
    pub(crate) b_F: &'a [f32],
}

impl Encoder<'_> {
    fn token(&self, token: usize) -> &[f32] {
        &self.x_ND[token * self.d..(token + 1) * self.d]
    }

    fn all(&self, x_D: &[f32], found: &mut Found) {
        Screen::all(x_D, self.w_FD, self.b_F, found);
    }

    /// Whether to look for active latents so.
    pub(crate) fn is_screened(&self, wanted: &Wanted) -> bool {
        let f = self.b_F.len();
        if !is_large(f, self.d) {
            return false;
        }
        match wanted.rank() {
            Some(k) => k.saturating_mul(FEW) <= f,
            // Most latents may be above their bounds.
            None => self.is_rare(wanted.bounds()),
        }
    }

    /// Whether few latents are above their bounds, by a few tokens spread over all.
    fn is_rare(&self, bounds_F: &[f32]) -> bool {
        let n = self.x_ND.len() / self.d;
        let counted = COUNTED.min(n);
        let above = |token: usize| {
            let mut found = Found::default();
            self.all(self.token(token), &mut found);
            found.iter().filter(|(latent, h)| *h > bounds_F[*latent as usize]).count()
        };
        let above: usize = (0..counted).into_par_iter().map(|i| above(i * n / counted)).sum();
        above * FEW <= counted * self.b_F.len()
    }
}

/// Whether a matrix is large enough, on this machine.
pub(crate) fn is_large(f: usize, d: usize) -> bool {
    pays() && f >= FROM && d >= FROM_WIDTH
}

/// Bytes of a rounded encoder, where there may be one.
pub(crate) fn bytes(f: usize, d: usize) -> usize {
    if is_large(f, d) { f.saturating_mul(2 * d) } else { 0 }
}

/// A search for active latents. What is kept from batch to batch does not decide what comes out.
#[derive(Default)]
pub(crate) struct Screening {
    screen: Screen,
    scan: Scan,
    again: Scan,
    /// The share of a token's length that its bound is.
    pub(crate) share: Option<f32>,
    /// Lengths of tokens.
    lengths_N: Vec<f32>,
    bounds_N: Vec<f32>,
    /// Tokens that are looked through again, `[N', D]`.
    x_again: Vec<f32>,
}

/// Of equal values the first latents stay.
fn larger(a: &(u32, f32), b: &(u32, f32)) -> std::cmp::Ordering {
    b.1.total_cmp(&a.1).then(a.0.cmp(&b.0))
}

/// Brings entries down to the k largest, largest first.
fn keep_k(found: &mut Found, k: usize) {
    if found.len() > k {
        found.select_nth_unstable_by(k - 1, larger);
        found.truncate(k);
    }
    found.sort_unstable_by(larger);
}

/// Frees the memory of a token of which all values were computed; in the end each token would hold all.
fn give_back(found: &mut Found) {
    if found.capacity() > 16 * found.len().max(64) {
        found.shrink_to(2 * found.len());
    }
}

/// The share of their lengths that tokens' bounds should be, given those that the k-th largest of each were, and how many
/// values were above the last.
///
/// Where it is too low, values are computed in vain; where it is too high, some tokens have fewer than k above it, and are
/// looked through again. How many are above one is taken to fall exponentially, as in the tail of a distribution.
fn cheapest(mut shares: Vec<f32>, (last, n_found): (f32, usize), (k, f): (usize, usize)) -> f32 {
    shares.sort_unstable_by(f32::total_cmp);
    let n = shares.len();
    let mean = shares.iter().map(|s| f64::from(*s)).sum::<f64>() / n as f64;
    let fall = (n_found as f64 / (n * k) as f64).ln() / (mean - f64::from(last));
    if !fall.is_finite() || fall <= 0.0 {
        // Nothing is known yet of how it falls.
        return shares[n / 128];
    }
    let passing = |guess: f32| -> f64 {
        shares.iter().map(|s| (fall * f64::from(s - guess)).exp().min(f as f64 / k as f64)).sum()
    };
    let cost = |(below, guess): &(usize, f32)| k as f64 * passing(*guess) + ROUGH * (below * f) as f64;
    // Of all in this order some: the first, and then always twice as far on. A little lower, for the next batch has other
    // weights.
    let places = (0..).map(|i| (1usize << i) - 1).take_while(|place| *place < n);
    let guesses = places.map(|place| (place, shares[place] - 0.02 * shares[place].abs()));
    guesses.min_by(|a, b| cost(a).total_cmp(&cost(b))).map_or(last, |(_, guess)| guess)
}

impl Screening {
    /// Takes in an encoder, which may have changed.
    pub(crate) fn fill(&mut self, w_FD: &[f32], d: usize) {
        self.screen.fill(w_FD, d);
    }

    /// Finds what is wanted of each token, given the encoder that was [filled](Self::fill) in: latents with their
    /// pre-activations, which are no number of none. The k largest come largest first, and what is measured from the k-th
    /// comes behind the k-th itself, so that one latent may be there twice; else latents are in their order.
    pub(crate) fn find(&mut self, encoder: Encoder, wanted: &Wanted) -> impl Iterator<Item = &Found> {
        let Encoder { d, x_ND, w_FD, b_F } = encoder;
        self.lengths_N.clear();
        self.lengths_N.extend(x_ND.chunks_exact(d).map(|x| dot(x, x).sqrt()));
        let Some(k) = wanted.rank() else {
            self.bounds_N.clear();
            self.bounds_N.resize(self.lengths_N.len(), f32::NEG_INFINITY);
            let bounds = (&self.bounds_N[..], wanted.bounds());
            self.screen.scan(&mut self.scan, (x_ND, w_FD), b_F, bounds, |_, _| {});
            return self.scan.found();
        };
        // What is no number says nothing of the others, and is never longer than this.
        let lengths = self.lengths_N.iter().filter(|length| length.is_finite());
        let (n, sum) = lengths.fold((0, 0.0), |(n, sum), length| (n + 1, sum + length));
        let short = SHORT * sum / n as f32;
        let guess = self.share.or_else(|| self.probed(encoder, k, short)).unwrap_or(0.0);
        self.bounds_N.clear();
        self.bounds_N.extend(self.lengths_N.iter().map(|length| wanted.bound(guess * length)));
        let (n_found, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        self.screen.scan(&mut self.scan, (x_ND, w_FD), b_F, (&self.bounds_N, &[]), |token, found| {
            n_found.fetch_add(found.len(), Relaxed);
            if !wanted.settle(self.bounds_N[token], found) {
                missed.lock().unwrap_or_else(PoisonError::into_inner).push(token);
            }
        });
        let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.look_again(encoder, wanted, missed, guess);
        let known = self.scan.found().zip(&self.lengths_N).filter(|(_, length)| **length > short);
        let shares = known.filter_map(|(found, length)| Some(wanted.kth(found)? / length));
        let shares: Vec<f32> = shares.filter(|share| share.is_finite()).collect();
        if !shares.is_empty() {
            self.share = Some(cheapest(shares, (guess, n_found.into_inner()), (k, b_F.len())));
        }
        self.scan.found()
    }

    /// The first guess: the least share of a few tokens that are not short.
    fn probed(&self, encoder: Encoder, k: usize, short: f32) -> Option<f32> {
        let tokens = encoder.x_ND.chunks_exact(encoder.d).zip(&self.lengths_N).filter(|(_, length)| **length > short);
        let share = |(x, length): (&[f32], &f32)| {
            let mut found = Found::default();
            encoder.all(x, &mut found);
            keep_k(&mut found, k);
            found.last().map(|(_, kth)| kth / length)
        };
        tokens.take(PROBED).collect::<Vec<_>>().into_par_iter().filter_map(share).reduce_with(f32::min)
    }

    /// Finds what is wanted of tokens whose bounds were too high.
    fn look_again(&mut self, encoder: Encoder, wanted: &Wanted, mut missed: Vec<usize>, guess: f32) {
        missed.sort_unstable();
        for part in LOWER.into_iter().filter(|_| guess > 0.0) {
            if missed.is_empty() {
                return;
            }
            self.x_again.clear();
            missed.iter().for_each(|token| self.x_again.extend_from_slice(encoder.token(*token)));
            self.bounds_N.clear();
            self.bounds_N.extend(missed.iter().map(|token| wanted.bound(part * guess * self.lengths_N[*token])));
            let data = (&self.x_again[..], encoder.w_FD);
            self.screen.scan(&mut self.again, data, encoder.b_F, (&self.bounds_N, &[]), |_, _| {});
            let mut at = 0;
            missed.retain(|token| {
                let (found, bound) = (self.again.of(at), self.bounds_N[at]);
                at += 1;
                let is_settled = wanted.settle(bound, found);
                if is_settled {
                    std::mem::swap(self.scan.of(*token), found);
                }
                !is_settled
            });
        }
        let whole = |token: usize| {
            let mut found = Found::default();
            encoder.all(encoder.token(token), &mut found);
            wanted.settle(f32::NEG_INFINITY, &mut found);
            (token, found)
        };
        for (token, found) in missed.into_par_iter().map(whole).collect::<Vec<_>>() {
            *self.scan.of(token) = found;
        }
    }
}
