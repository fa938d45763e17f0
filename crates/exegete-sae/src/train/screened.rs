//! Entries without pre-activations: which can be active is told by products of bytes, and only these are computed.
//!
//! The bound of a token, for rules that rank, is guessed from the tokens before: a share of its length that the k-th largest
//! of nearly all of them exceeds. Where fewer than k are above it, all of that token's are computed, so that what comes out
//! does not depend on the guess.

use exegete_base::settings::{Activation, TrainSettings};
use exegete_tensor::cpu::buffer;
use exegete_tensor::cpu::screen::{Found, Screen, pays};
use exegete_tensor::cpu::simd::dot;

use super::encode::dead;
use super::select::Rule;
use super::{TrainState, Trainer};
use crate::sae::pre_activations;

/// Latents from which on rounding a matrix is made up for.
const FROM: usize = 2048;
/// Tokens of which one is expected to have fewer above its bound than are wanted.
const ONE_IN: usize = 200;
/// Tokens from which the first bound is guessed.
const PROBED: usize = 32;

/// Whether a step looks for its entries so. It decides the last bits of values, and so depends on nothing that a training
/// which goes on would not know.
pub(super) fn is_screened(settings: &TrainSettings, state: &TrainState, rule: Rule) -> bool {
    let ranks_few = match rule {
        Rule::Ranked(k) => k == settings.k && settings.activation != Activation::BatchTopK,
        Rule::Kth(_) => true,
        Rule::Above => !settings.ste_to_input,
        Rule::Nothing => false,
    };
    ranks_few && pays() && state.n_latents() >= FROM && state.d >= 32
}

/// What is kept from step to step; nothing of it decides what comes out.
#[derive(Default)]
pub(super) struct Screening {
    screen: Screen,
    /// The share of a token's length that its bound is.
    share: Option<f32>,
    lengths_N: Vec<f32>,
    bounds_N: Vec<f32>,
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

/// Frees what a token took of which all were computed: each token does so some day.
fn give_back(found: &mut Found) {
    if found.capacity() > 16 * found.len().max(64) {
        found.shrink_to(2 * found.len());
    }
}

impl Trainer {
    /// Appends the entries of a batch, and what is wanted of its dead latents.
    pub(super) fn screened(&mut self, state: &TrainState, rule: Rule) {
        let (d, x_ND) = (state.d, &self.centred_ND);
        let dead = dead(&self.settings, d, &self.dead, &self.theta_F);
        let (w_FD, b_F) = (&state.w_enc.values[..], &state.b_enc.values[..]);
        let Screening { screen, share, lengths_N, bounds_N } = &mut self.screening;
        screen.fill(w_FD, d);
        lengths_N.clear();
        lengths_N.extend(x_ND.chunks_exact(d).map(|x| dot(x, x).sqrt()));
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
                found[k - 1].1 / length.max(f32::MIN_POSITIVE)
            };
            let shares = x_ND.chunks_exact(d).zip(&*lengths_N).take(PROBED).map(probe);
            *share = shares.reduce(f32::min);
        }
        bounds_N.clear();
        let guess = share.unwrap_or(0.0);
        bounds_N.extend(lengths_N.iter().map(|length| if k > 0 { guess * length - below } else { f32::NEG_INFINITY }));
        let bounds_F = if rule == Rule::Above { self.selector.bounds() } else { &[] };
        let enough = |token: usize, found: &mut Found| {
            let bound = bounds_N[token];
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
                    let (latent, kth) = largest[k - 1];
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
                    let (latent, kth) = found[0];
                    let (kth, mut at) = (rule.cut(kth), None);
                    for (other, pre) in &found[1..] {
                        if *other == latent {
                            at = Some(main.idx.len());
                        }
                        main.push(*other, *pre, rule.value(*pre, kth));
                    }
                    main.kth.push(at);
                    Some(found[0].1)
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
            shares.extend(kth.map(|kth| kth / length.max(f32::MIN_POSITIVE)));
            main.end();
        }
        if !shares.is_empty() {
            let nth = shares.len() / ONE_IN;
            let (_, least, _) = shares.select_nth_unstable_by(nth, f32::total_cmp);
            // A little lower, for the next batch has other weights.
            *share = Some(*least - 0.02 * least.abs());
        }
        if !dead.latents.is_empty() && (dead.highest > 0 || dead.below.is_some()) {
            let of = |latent: &u32| &w_FD[*latent as usize * d..(*latent as usize + 1) * d];
            let w_dead: Vec<f32> = dead.latents.iter().flat_map(of).copied().collect();
            let b_dead: Vec<f32> = dead.latents.iter().map(|latent| b_F[*latent as usize]).collect();
            let mut pre = buffer(lengths_N.len() * b_dead.len());
            pre_activations(x_ND, d, &w_dead, &b_dead, &mut pre);
            self.selector.dead_block(&pre, dead, [&mut self.aux.entries, &mut self.low.entries]);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

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

    /// What the products of whole matrices give, and what screening gives.
    fn both(settings: &TrainSettings, reached: f32) -> [[Vec<(usize, u32, f32)>; 2]; 2] {
        let x: Vec<f32> = (0..N * D).map(|i| number(i) * if i % D == 3 { 9.0 } else { 1.0 }).collect();
        let mut state = TrainState::init(settings, D, 1.0, &[0.0; D], 3);
        state.b_enc.values.iter_mut().enumerate().for_each(|(i, b)| *b = 0.3 * number(1 << 20 | i) - 0.2);
        state.since_fired_F.iter_mut().step_by(97).for_each(|since| *since = u64::MAX);
        state.reached = reached;
        [false, true].map(|is_screened| {
            let mut trainer = Trainer::new(settings.clone(), 10).unwrap();
            trainer.take_in(&state, &x);
            trainer.find_dead(&state);
            trainer.theta_F = state.extras.first().map_or(Vec::new(), |theta| theta.values.clone());
            trainer.clear();
            let rule = trainer.selector.begin(settings, &state, &trainer.theta_F.clone(), None);
            match is_screened {
                true => {
                    trainer.screened(&state, rule);
                    // Once more: by now the bound is one that was measured.
                    trainer.clear();
                    trainer.screened(&state, rule);
                }
                false => {
                    let f = state.n_latents();
                    let mut pre = buffer(N * f);
                    pre_activations(&trainer.centred_ND, D, &state.w_enc.values, &state.b_enc.values, &mut pre);
                    let wanted = dead(settings, D, &trainer.dead, &trainer.theta_F);
                    let into = [&mut trainer.main.entries, &mut trainer.aux.entries, &mut trainer.low.entries];
                    trainer.selector.block(rule, (&pre, f), wanted, into);
                }
            }
            let listed = |entries: &Entries| {
                let tokens = entries.starts.windows(2).enumerate();
                tokens
                    .flat_map(|(n, r)| (r[0]..r[1]).map(move |e| (n, e)))
                    .map(|(n, e)| (n, entries.idx[e], entries.values[e]))
                    .collect()
            };
            [listed(&trainer.main.entries), listed(&trainer.aux.entries)]
        })
    }

    #[test]
    fn screening_finds_the_entries_of_whole_products() {
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
            (of(Activation::JumpRelu), 0.0),
        ] {
            let [whole, screened] = both(&settings, reached);
            for (a, b) in whole.iter().zip(&screened) {
                let values = |list: &[(usize, u32, f32)]| -> HashMap<(usize, u32), f32> {
                    list.iter().map(|(n, latent, value)| ((*n, *latent), *value)).collect()
                };
                let (a, b) = (values(a), values(b));
                // A value that lies at a bound may be rounded to either side.
                let only =
                    a.keys().filter(|key| !b.contains_key(key)).chain(b.keys().filter(|key| !a.contains_key(key)));
                let n = only.count();
                assert!(a.len() > 1000 && n <= 4, "{settings:?}: {n} of {} differ", a.len());
                for (key, a) in a.iter().filter(|(key, _)| b.contains_key(key)) {
                    // A gate of width 0.2 makes errors of pre-activations twenty times as large.
                    assert!((a - b[key]).abs() < 2e-4, "{key:?}: {a} and {} {settings:?}", b[key]);
                }
            }
        }
    }
}
