//! The entries of a batch's sparse codes, from its pre-activations.
//!
//! An entry is a latent at a token whose activation is not 0, or at whose pre-activation a gradient may be: in the band
//! around a JumpReLU's threshold. Blocks of tokens are looked through by all threads, each into a list of its own.

use exegete_base::settings::{Activation, KthForm, TrainSettings};
use exegete_tensor::cpu::topk::above;
use rayon::prelude::*;

use super::TrainState;
use crate::kinds::{KthLargest, Search};

/// Entries of tokens behind each other.
#[derive(Default)]
pub(super) struct Entries {
    /// Those of token n are `starts[n]..starts[n + 1]`.
    pub(super) starts: Vec<usize>,
    /// Latents.
    pub(super) idx: Vec<u32>,
    /// Pre-activations.
    pub(super) pre: Vec<f32>,
    /// Activations.
    pub(super) values: Vec<f32>,
    /// For the rules that measure from it, which entry of each token is the k-th largest.
    pub(super) kth: Vec<Option<usize>>,
}

impl Entries {
    pub(super) fn clear(&mut self) {
        self.starts.clear();
        self.starts.push(0);
        self.idx.clear();
        self.pre.clear();
        self.values.clear();
        self.kth.clear();
    }

    /// Takes out the gradients of entries that are not active.
    pub(super) fn mask(&self, d: &mut [f32]) {
        d.iter_mut().zip(&self.values).filter(|(_, value)| **value <= 0.0).for_each(|(d, _)| *d = 0.0);
    }

    /// Ends a token.
    pub(super) fn end(&mut self) {
        self.starts.push(self.idx.len());
    }

    pub(super) fn push(&mut self, latent: u32, pre: f32, value: f32) {
        self.idx.push(latent);
        self.pre.push(pre);
        self.values.push(value);
    }

    /// Appends another's tokens.
    fn append(&mut self, other: &Self) {
        let at = self.idx.len();
        self.starts.extend(other.starts[1..].iter().map(|s| s + at));
        self.kth.extend(other.kth.iter().map(|e| e.map(|e| e + at)));
        self.idx.extend_from_slice(&other.idx);
        self.pre.extend_from_slice(&other.pre);
        self.values.extend_from_slice(&other.values);
    }

    /// Brings each token's entries into the order of their latents.
    fn sort(&mut self) {
        let mut held = Vec::new();
        for range in self.starts.windows(2).map(|r| r[0]..r[1]) {
            held.clear();
            held.extend(range.clone().map(|e| (self.idx[e], self.pre[e], self.values[e])));
            held.sort_unstable_by_key(|(latent, ..)| *latent);
            for (e, (latent, pre, value)) in range.zip(&held) {
                (self.idx[e], self.pre[e], self.values[e]) = (*latent, *pre, *value);
            }
        }
    }

    /// Keeps those entries that are wanted.
    fn retain(&mut self, keep: impl Fn(usize) -> bool) {
        let mut kept = 0;
        for n in 0..self.starts.len() - 1 {
            let range = self.starts[n]..self.starts[n + 1];
            self.starts[n] = kept;
            for e in range {
                if keep(e) {
                    self.idx[kept] = self.idx[e];
                    self.pre[kept] = self.pre[e];
                    self.values[kept] = self.values[e];
                    kept += 1;
                }
            }
        }
        if let Some(last) = self.starts.last_mut() {
            *last = kept;
        }
        self.idx.truncate(kept);
        self.pre.truncate(kept);
        self.values.truncate(kept);
    }
}

/// How a block of tokens is looked through.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Rule {
    /// The k largest of each.
    Ranked(usize),
    /// All that are above the latent's bound.
    Above,
    /// Measured from the k-th largest.
    Kth(KthLargest),
    /// Nothing of a token but its dead latents.
    Nothing,
}

/// What is wanted of dead latents.
#[derive(Clone, Copy)]
pub(super) struct Dead<'a> {
    /// Those that are dead.
    pub(super) latents: &'a [u32],
    /// How many of a token, the highest, for AuxK.
    pub(super) highest: usize,
    /// The thresholds below which all of them are wanted, for the pre-activation loss.
    pub(super) below: Option<&'a [f32]>,
}

/// Scratch of a thread's share of a block.
#[derive(Default)]
struct Share {
    main: Entries,
    aux: Entries,
    low: Entries,
    search: Search,
    idx: Vec<u32>,
    bounds: Vec<f32>,
}

/// Makes entries of pre-activations.
#[derive(Default)]
pub(super) struct Selector {
    bounds_F: Vec<f32>,
    shares: Vec<Share>,
}

impl Selector {
    /// The rule of a step, and the bounds that go with it, for thresholds if there are. `limit` is the number of entries of a token that BatchTopK looks
    /// at, where no bound is known.
    pub(super) fn begin(
        &mut self,
        settings: &TrainSettings,
        state: &TrainState,
        theta_F: &[f32],
        limit: Option<usize>,
    ) -> Rule {
        let f = state.n_latents();
        let mut all_above = |bound: f32| {
            self.bounds_F.clear();
            self.bounds_F.resize(f, bound);
            Rule::Above
        };
        match settings.activation {
            Activation::TopK => Rule::Ranked(settings.k),
            Activation::KthLargest => match settings.kth_form {
                KthForm::A => Rule::Ranked(settings.k),
                form => Rule::Kth(kth_rule(settings, form)),
            },
            Activation::BatchTopK => match limit {
                Some(limit) => Rule::Ranked(limit),
                // A little lower than what was reached in the last batch.
                None => all_above(0.8 * state.reached),
            },
            // Matching pursuit has its own way.
            Activation::MatchingPursuit => Rule::Nothing,
            Activation::Relu | Activation::Gated => all_above(0.0),
            Activation::JumpRelu => {
                let half = settings.bandwidth as f32 / 2.0;
                self.bounds_F.clear();
                self.bounds_F.extend(theta_F.iter().map(|t| t - half));
                Rule::Above
            }
        }
    }

    /// Appends the entries of a block of tokens to `main`, and to `aux` and `low` what is wanted of dead latents. Values are
    /// `relu(h)`, or what the rule makes of it.
    pub(super) fn block(
        &mut self,
        rule: Rule,
        (pre_NF, f): (&[f32], usize),
        dead: Dead,
        [main, aux, low]: [&mut Entries; 3],
    ) {
        let each = (pre_NF.len() / f).div_ceil(8 * rayon::current_num_threads()).max(1);
        let n_shares = pre_NF.len().div_ceil(each * f);
        if self.shares.len() < n_shares {
            self.shares.resize_with(n_shares, Share::default);
        }
        let bounds_F = &self.bounds_F;
        pre_NF.par_chunks(each * f).zip(&mut self.shares).for_each(|(rows, share)| {
            share.main.clear();
            share.aux.clear();
            share.low.clear();
            for row in rows.chunks_exact(f) {
                share.row(rule, row, bounds_F);
                share.dead_row(dead, |_, latent| row[latent as usize]);
            }
        });
        for share in &self.shares[..n_shares] {
            main.append(&share.main);
            aux.append(&share.aux);
            low.append(&share.low);
        }
    }

    /// Appends what is wanted of dead latents, given their pre-activations alone, `[N, dead]`.
    pub(super) fn dead_block(&mut self, pre_ND: &[f32], dead: Dead, [aux, low]: [&mut Entries; 2]) {
        let width = dead.latents.len();
        let each = (pre_ND.len() / width).div_ceil(8 * rayon::current_num_threads()).max(1);
        let n_shares = pre_ND.len().div_ceil(each * width);
        self.shares.resize_with(n_shares.max(self.shares.len()), Share::default);
        pre_ND.par_chunks(each * width).zip(&mut self.shares).for_each(|(rows, share)| {
            share.aux.clear();
            share.low.clear();
            rows.chunks_exact(width).for_each(|row| share.dead_row(dead, |i, _| row[i]));
        });
        for share in &self.shares[..n_shares] {
            aux.append(&share.aux);
            low.append(&share.low);
        }
    }

    /// The bounds that go with the rule of the step.
    pub(super) fn bounds(&self) -> &[f32] {
        &self.bounds_F
    }
}

pub(super) fn kth_rule(settings: &TrainSettings, form: KthForm) -> KthLargest {
    KthLargest { is_gate: form == KthForm::C, k: settings.k, eps: settings.kth_eps as f32 }
}

impl Share {
    fn row(&mut self, rule: Rule, row: &[f32], bounds_F: &[f32]) {
        match rule {
            Rule::Nothing => {}
            Rule::Ranked(k) => {
                for (latent, pre) in self.search.largest(row, k) {
                    self.main.push(latent, pre, pre.max(0.0));
                }
            }
            Rule::Above => {
                self.idx.clear();
                above(row, bounds_F, &mut self.idx);
                for latent in &self.idx {
                    let pre = row[*latent as usize];
                    self.main.push(*latent, pre, pre);
                }
            }
            Rule::Kth(rule) => {
                let (kth, kth_latent) = rule.kth(row, &mut self.search);
                self.bounds.clear();
                self.bounds.resize(row.len(), rule.lowest(kth));
                self.idx.clear();
                above(row, &self.bounds, &mut self.idx);
                let mut at = None;
                for latent in &self.idx {
                    if *latent == kth_latent {
                        at = Some(self.main.idx.len());
                    }
                    let pre = row[*latent as usize];
                    self.main.push(*latent, pre, rule.value(pre, kth));
                }
                // None where the k-th largest is not above 0, and a gate measures from 0.
                self.main.kth.push(at);
            }
        }
        self.main.end();
    }

    /// What is wanted of a token's dead latents, whose pre-activations are given by their place among these and by latent.
    fn dead_row(&mut self, dead: Dead, pre_of: impl Fn(usize, u32) -> f32) {
        if dead.highest > 0 {
            self.bounds.clear();
            self.bounds.extend(dead.latents.iter().enumerate().map(|(i, latent)| pre_of(i, *latent)));
            for (i, pre) in self.search.largest(&self.bounds, dead.highest) {
                self.aux.push(dead.latents[i as usize], pre, pre.max(0.0));
            }
            self.aux.end();
        }
        if let Some(theta_F) = dead.below {
            for (i, latent) in dead.latents.iter().enumerate() {
                let pre = pre_of(i, *latent);
                if pre < theta_F[*latent as usize] {
                    self.low.push(*latent, pre, 0.0);
                }
            }
            self.low.end();
        }
    }
}

/// Brings the entries of a batch down to the `most` that are largest; false if it cannot be known that they are among
/// them. Of equal ones the first stay. What is kept does not depend on how it was looked for.
pub(super) fn keep_largest(entries: &mut Entries, most: usize, limit: Option<usize>, state: &mut TrainState) -> bool {
    // The lowest that was looked at of each token; one above the bound may have others behind it.
    let lowest: Vec<f32> =
        entries.starts.windows(2).filter_map(|r| entries.values[r[0]..r[1]].last().copied()).collect();
    if limit.is_some() {
        entries.sort();
    }
    let order = |e: usize| (u64::from(entries.values[e].to_bits()) << 32) | u64::from(!(e as u32));
    let mut packed: Vec<u64> = (0..entries.values.len()).filter(|e| entries.values[*e] > 0.0).map(order).collect();
    let least = match packed.len() > most {
        true => *packed.select_nth_unstable_by(most - 1, |a, b| b.cmp(a)).1,
        false => 0,
    };
    let reached = f32::from_bits((least >> 32) as u32);
    let is_sure = match limit {
        Some(limit) => limit >= state.n_latents() || lowest.iter().all(|v| *v <= 0.0 || *v < reached),
        None => packed.len() >= most || state.reached == 0.0,
    };
    if !is_sure {
        return false;
    }
    let keep: Vec<bool> = (0..entries.values.len()).map(|e| entries.values[e] > 0.0 && order(e) >= least).collect();
    entries.retain(|e| keep[e]);
    state.reached = reached;
    true
}
