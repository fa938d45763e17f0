//! Entries without pre-activations: which can be active is told by products in bf16, and only these are computed.
//!
//! The bound of a token, for rules that rank, is guessed from the tokens before: a share of its length that the k-th largest
//! of nearly all of them exceeds. Where fewer than k are above it, all of that token's are computed, so that what comes out
//! does not depend on the guess.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use exegete_base::settings::{Activation, TrainSettings};
use exegete_tensor::cpu::buffer;
use exegete_tensor::cpu::packed::screen::{Found, Screen, pays};
use exegete_tensor::cpu::simd::dot;
use rayon::prelude::*;

use super::encode::{BLOCK, dead};
use super::select::Rule;
use super::{TrainState, Trainer};
use crate::sae::pre_activations;

/// Below so many latents, rounding the encoder costs more than it saves.
const FROM: usize = 2048;
/// Cost of computing one of all of a token's values, over that of one that may be above a bound: its row comes from memory.
const ALL: f64 = 2.0;
/// Tokens from which the first bound is guessed.
const PROBED: usize = 32;
/// Tokens that are looked at to tell whether few latents are above their bounds.
const COUNTED: usize = 4;
/// Few is at most one in so many, as for steps that are not dense.
const FEW: usize = 24;
/// Shares of tokens shorter than this part of the mean say nothing about the others.
const SHORT: f32 = 0.01;

/// Whether a step looks for its entries so. It decides the last bits of values, and so depends on nothing that a training
/// which goes on would not know.
pub(super) fn is_screened(
    settings: &TrainSettings,
    state: &TrainState,
    rule: Rule,
    (x_ND, bounds_F, dead): (&[f32], &[f32], &[u32]),
) -> bool {
    let f = state.n_latents();
    // Rows of less than a step of the unit are mostly padding, and dead latents have whole products of their own.
    if !pays() || f < FROM || state.d < 32 || 2 * dead.len() > f {
        return false;
    }
    match rule {
        Rule::Ranked(k) => settings.activation != Activation::BatchTopK && k * FEW <= f,
        Rule::Kth(rule) => rule.k * FEW <= f,
        // The band around a threshold may have most latents in it.
        Rule::Above => is_rare(state, x_ND, bounds_F),
        Rule::Nothing => false,
    }
}

/// Bytes of the rounded encoder, and of the dead half of it, where there may be one.
pub(super) fn bytes(f: usize, d: usize) -> usize {
    if pays() && f >= FROM { f.saturating_mul(4 * d) } else { 0 }
}

/// Whether few latents are above their bounds, by a few tokens spread over the batch.
fn is_rare(state: &TrainState, x_ND: &[f32], bounds_F: &[f32]) -> bool {
    let (n, d) = (x_ND.len() / state.d, state.d);
    let counted = COUNTED.min(n);
    let above = |token: usize| {
        let mut found = Found::default();
        Screen::all(&x_ND[token * d..(token + 1) * d], &state.w_enc.values, &state.b_enc.values, &mut found);
        found.iter().zip(bounds_F).filter(|((_, h), bound)| *h > **bound).count()
    };
    let above: usize = (0..counted).into_par_iter().map(|i| above(i * n / counted)).sum();
    above * FEW <= counted * state.n_latents()
}

/// What is kept from step to step; nothing of it decides what comes out.
#[derive(Default)]
pub(super) struct Screening {
    screen: Screen,
    /// The share of a token's length that its bound is.
    share: Option<f32>,
    lengths_N: Vec<f32>,
    bounds_N: Vec<f32>,
    /// Encoder rows of dead latents.
    w_dead: Vec<f32>,
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
/// Where it is too low, values are computed in vain; where it is too high, some tokens have fewer than k above it, and all
/// of theirs are computed. How many are above one is taken to fall exponentially, as in the tail of a distribution.
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
    let cost = |(below, guess): &(usize, f32)| k as f64 * passing(*guess) + ALL * (below * f) as f64;
    // Of all in this order some: the first, and then always twice as far on. A little lower, for the next batch has other
    // weights.
    let places = (0..).map(|i| (1usize << i) - 1).take_while(|place| *place < n);
    let guesses = places.map(|place| (place, shares[place] - 0.02 * shares[place].abs()));
    guesses.min_by(|a, b| cost(a).total_cmp(&cost(b))).map_or(last, |(_, guess)| guess)
}

impl Trainer {
    /// Appends the entries of a batch, and what is wanted of its dead latents.
    pub(super) fn screened(&mut self, state: &TrainState, rule: Rule) {
        let (d, x_ND) = (state.d, &self.centred_ND);
        let dead = dead(&self.settings, d, &self.dead, &self.theta_F);
        let (w_FD, b_F) = (&state.w_enc.values[..], &state.b_enc.values[..]);
        let Screening { screen, share, lengths_N, bounds_N, w_dead } = &mut self.screening;
        screen.fill(w_FD, d);
        lengths_N.clear();
        lengths_N.extend(x_ND.chunks_exact(d).map(|x| dot(x, x).sqrt()));
        let short = SHORT * lengths_N.iter().sum::<f32>() / lengths_N.len() as f32;
        let (k, below) = match rule {
            Rule::Ranked(k) => (k, 0.0),
            Rule::Kth(rule) => (rule.k, rule.eps),
            _ => (0, 0.0),
        };
        if k > 0 && share.is_none() {
            let probe = |(x, length): (&[f32], &f32)| {
                let mut found = Found::default();
                Screen::all(x, w_FD, b_F, &mut found);
                keep_k(&mut found, k);
                found.last().map(|(_, kth)| kth / length)
            };
            let tokens = x_ND.chunks_exact(d).zip(&*lengths_N).filter(|(_, length)| **length > short);
            *share = tokens.take(PROBED).filter_map(probe).reduce(f32::min);
        }
        bounds_N.clear();
        let guess = share.unwrap_or(0.0);
        bounds_N.extend(lengths_N.iter().map(|length| if k > 0 { guess * length - below } else { f32::NEG_INFINITY }));
        let bounds_F = if rule == Rule::Above { self.selector.bounds() } else { &[] };
        let n_found = AtomicUsize::new(0);
        let enough = |token: usize, found: &mut Found| {
            let bound = bounds_N[token];
            n_found.fetch_add(found.len(), Relaxed);
            match rule {
                Rule::Ranked(k) => {
                    if found.len() < k {
                        Screen::all(&x_ND[token * d..(token + 1) * d], w_FD, b_F, found);
                    }
                    keep_k(found, k);
                    give_back(found);
                }
                Rule::Kth(rule) => {
                    let mut largest = found.clone();
                    keep_k(&mut largest, k);
                    // All from the k-th's own bound on must have been found.
                    if largest.get(k - 1).is_none_or(|(_, kth)| rule.lowest(rule.cut(*kth)) < bound) {
                        Screen::all(&x_ND[token * d..(token + 1) * d], w_FD, b_F, found);
                        largest.clone_from(found);
                        keep_k(&mut largest, k);
                    }
                    let Some((latent, kth)) = largest.last().copied() else { return };
                    found.retain(|(_, h)| *h > rule.lowest(rule.cut(kth)));
                    // The k-th stands before the others.
                    found.insert(0, (latent, kth));
                    give_back(found);
                }
                Rule::Above | Rule::Nothing => {}
            }
        };
        screen.scan((x_ND, w_FD), b_F, (bounds_N, bounds_F), enough);
        let (main, mut shares) = (&mut self.main.entries, Vec::new());
        for (found, length) in screen.found().zip(&*lengths_N) {
            let kth = match rule {
                Rule::Kth(rule) => {
                    let (first, others) = found.split_first().unzip();
                    let mut at = None;
                    for (other, pre) in others.into_iter().flatten() {
                        let Some((latent, kth)) = first else { continue };
                        if other == latent {
                            at = Some(main.idx.len());
                        }
                        main.push(*other, *pre, rule.value(*pre, rule.cut(*kth)));
                    }
                    main.kth.push(at);
                    first.map(|(_, kth)| *kth)
                }
                Rule::Ranked(_) => {
                    found.iter().for_each(|(latent, pre)| main.push(*latent, *pre, pre.max(0.0)));
                    found.last().map(|(_, kth)| *kth)
                }
                Rule::Above | Rule::Nothing => {
                    found.iter().for_each(|(latent, pre)| main.push(*latent, *pre, *pre));
                    None
                }
            };
            shares.extend(kth.filter(|_| *length > short).map(|kth| kth / length));
            main.end();
        }
        if !shares.is_empty() {
            *share = Some(cheapest(shares, (guess, n_found.into_inner()), (k, state.n_latents())));
        }
        if !dead.latents.is_empty() && (dead.highest > 0 || dead.below.is_some()) {
            let of = |latent: &u32| &w_FD[*latent as usize * d..(*latent as usize + 1) * d];
            w_dead.clear();
            dead.latents.iter().for_each(|latent| w_dead.extend_from_slice(of(latent)));
            let b_dead: Vec<f32> = dead.latents.iter().map(|latent| b_F[*latent as usize]).collect();
            for x_ND in x_ND.chunks(BLOCK * d) {
                let len = x_ND.len() / d * b_dead.len();
                if self.pre.len() < len {
                    self.pre = buffer(len);
                }
                pre_activations(x_ND, d, w_dead, &b_dead, &mut self.pre[..len]);
                let into = [&mut self.aux.entries, &mut self.low.entries];
                self.selector.dead_block(&self.pre[..len], dead, into);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use exegete_base::settings::{KthForm, TrainSettings};

    use super::super::select::Entries;
    use super::*;

    const D: usize = 48;
    const N: usize = 600;

    /// A number by its place, about normal.
    fn number(i: usize) -> f32 {
        let one = |salt: u64| exegete_base::sampling::pair_hash(7, i as u64, salt) as f32 / u64::MAX as f32 - 0.5;
        (0..6).map(one).sum()
    }

    /// Entries as they are: where each token's end, latents, pre-activations, values, which is the k-th.
    type Listed = (Vec<usize>, Vec<u32>, Vec<f32>, Vec<f32>, Vec<Option<usize>>);

    /// A trainer that has taken in a batch, with a state in which some latents are dead.
    fn begun(settings: &TrainSettings, reached: f32) -> (Trainer, TrainState) {
        let x: Vec<f32> = (0..N * D).map(|i| number(i) * if i % D == 3 { 9.0 } else { 1.0 }).collect();
        let mut state = TrainState::init(settings, D, 1.0, &[0.0; D], 3);
        state.b_enc.values.iter_mut().enumerate().for_each(|(i, b)| *b = 0.3 * number(1 << 20 | i) - 0.2);
        state.since_fired_F.iter_mut().step_by(97).for_each(|since| *since = u64::MAX);
        state.reached = reached;
        // A latent that is no number is never active.
        state.w_enc.values[5 * D] = f32::NAN;
        let mut trainer = Trainer::new(settings.clone(), 10).unwrap();
        trainer.take_in(&state, &x);
        // A token that is nearly nothing.
        trainer.centred_ND[7 * D..8 * D].fill(1e-30);
        trainer.find_dead(&state);
        trainer.theta_F = state.extras.first().map_or(Vec::new(), |theta| theta.values.clone());
        (trainer, state)
    }

    fn listed(entries: &Entries) -> Listed {
        let e = entries;
        (e.starts.clone(), e.idx.clone(), e.pre.clone(), e.values.clone(), e.kth.clone())
    }

    /// All entries of the batch: of all latents, of the dead for AuxK, and of the dead below their thresholds.
    fn all_of(trainer: &Trainer) -> [Listed; 3] {
        [&trainer.main, &trainer.aux, &trainer.low].map(|term| listed(&term.entries))
    }

    /// What is made of all pre-activations, computed as those of entries are.
    fn whole(settings: &TrainSettings, reached: f32) -> [Listed; 3] {
        let (mut trainer, state) = begun(settings, reached);
        let rule = trainer.selector.begin(settings, &state, &trainer.theta_F, None);
        let f = state.n_latents();
        let mut pre = vec![f32::NAN; N * f];
        for (x, pre) in trainer.centred_ND.chunks_exact(D).zip(pre.chunks_exact_mut(f)) {
            let mut found = Found::default();
            Screen::all(x, &state.w_enc.values, &state.b_enc.values, &mut found);
            found.iter().for_each(|(latent, h)| pre[*latent as usize] = *h);
        }
        trainer.clear();
        let wanted = dead(settings, D, &trainer.dead, &trainer.theta_F);
        let into = [&mut trainer.main.entries, &mut trainer.aux.entries, &mut trainer.low.entries];
        trainer.selector.block(rule, (&pre, f), wanted, into);
        all_of(&trainer)
    }

    #[test]
    fn screening_finds_the_entries_of_whole_products_whatever_is_guessed() {
        let ranked = TrainSettings { latents: 2048, k: 12, ..TrainSettings::default() };
        let kth =
            |kth_form| TrainSettings { activation: Activation::KthLargest, kth_form, kth_eps: 0.2, ..ranked.clone() };
        let of = |activation| TrainSettings { activation, threshold: 2.0, ..ranked.clone() };
        for (settings, reached) in [
            (ranked.clone(), 0.0),
            (kth(KthForm::B), 0.0),
            (kth(KthForm::C), 0.0),
            (of(Activation::BatchTopK), 1.5),
            (of(Activation::Relu), 0.0),
            (of(Activation::Gated), 0.0),
            (of(Activation::JumpRelu), 0.0),
            (TrainSettings { pre_act_weight: 1e-3, ..of(Activation::JumpRelu) }, 0.0),
        ] {
            let want = whole(&settings, reached);
            assert!(want[0].1.len() > 1000 && !want[0].1.contains(&5), "{settings:?}");
            let (mut trainer, state) = begun(&settings, reached);
            // What was measured at last comes first.
            for guess in [None, Some(0.0), Some(1e30), Some(-1e30), Some(f32::NAN)] {
                for share in [trainer.screening.share, guess] {
                    trainer.screening.share = share;
                    trainer.clear();
                    let rule = trainer.selector.begin(&settings, &state, &trainer.theta_F, None);
                    trainer.screened(&state, rule);
                    let got = all_of(&trainer);
                    assert!(got[0] == want[0], "guessed {share:?}, {settings:?}");
                    // Those of dead latents are of products of whole matrices, and lie far from each other.
                    for ((starts, idx, pre, ..), want) in got[1..].iter().zip(&want[1..]) {
                        assert!((starts, idx) == (&want.0, &want.1), "guessed {share:?}, {settings:?}");
                        assert!(pre.iter().zip(&want.2).all(|(a, b)| (a - b).abs() < 1e-4), "{settings:?}");
                    }
                }
            }
        }
    }
}
