//! Entries without pre-activations, where few latents are active.

use exegete_base::settings::Activation;
use exegete_tensor::cpu::buffer;

use super::encode::{BLOCK, dead};
use super::select::Rule;
use super::{TrainState, Trainer};
use crate::sae::pre_activations;
use crate::screening::{Encoder, Wanted};

/// What a step would look for so. A batch's largest at first have no bounds.
fn wanted(rule: Rule, is_batch: bool, bounds_F: &[f32]) -> Option<Wanted<'_>> {
    match rule {
        Rule::Ranked(k) => (!is_batch).then_some(Wanted::Ranked(k)),
        Rule::Kth(rule) => Some(Wanted::Kth(rule)),
        Rule::Above => Some(Wanted::Above(bounds_F.into())),
        Rule::Nothing => None,
    }
}

/// The encoder with a batch for it.
fn encoder<'a>(state: &'a TrainState, x_ND: &'a [f32]) -> Encoder<'a> {
    Encoder { d: state.d, x_ND, w_FD: &state.w_enc.values, b_F: &state.b_enc.values }
}

impl Trainer {
    /// Whether a step looks for its entries so. It decides the last bits of values, and so depends on nothing that a
    /// training which goes on would not know.
    pub(super) fn is_screened(&self, state: &TrainState, rule: Rule) -> bool {
        let is_batch = self.settings.activation == Activation::BatchTopK;
        // Dead latents have whole products of their own.
        2 * self.dead.len() <= state.n_latents()
            && wanted(rule, is_batch, self.selector.bounds())
                .is_some_and(|wanted| encoder(state, &self.centred_ND).is_screened(&wanted))
    }

    /// Appends the entries of a batch, and what is wanted of its dead latents.
    pub(super) fn screened(&mut self, state: &TrainState, rule: Rule) {
        let (d, encoder) = (state.d, encoder(state, &self.centred_ND));
        let Some(wanted) = wanted(rule, false, self.selector.bounds()) else { return };
        self.screening.fill(encoder.w_FD, d);
        let main = &mut self.main.entries;
        for found in self.screening.find(encoder, &wanted) {
            match rule {
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
                }
                Rule::Ranked(_) => found.iter().for_each(|(latent, pre)| main.push(*latent, *pre, pre.max(0.0))),
                Rule::Above | Rule::Nothing => found.iter().for_each(|(latent, pre)| main.push(*latent, *pre, *pre)),
            }
            main.end();
        }
        let dead = dead(&self.settings, d, &self.dead, &self.theta_F);
        if !dead.latents.is_empty() && (dead.highest > 0 || dead.below.is_some()) {
            self.w_dead.clear();
            let rows =
                dead.latents.iter().map(|latent| &encoder.w_FD[*latent as usize * d..(*latent as usize + 1) * d]);
            rows.for_each(|row| self.w_dead.extend_from_slice(row));
            let b_dead: Vec<f32> = dead.latents.iter().map(|latent| encoder.b_F[*latent as usize]).collect();
            for x_ND in encoder.x_ND.chunks(BLOCK * d) {
                let len = x_ND.len() / d * b_dead.len();
                if self.pre.len() < len {
                    self.pre = buffer(len);
                }
                pre_activations(x_ND, d, &self.w_dead, &b_dead, &mut self.pre[..len]);
                let into = [&mut self.aux.entries, &mut self.low.entries];
                self.selector.dead_block(&self.pre[..len], dead, into);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use exegete_base::settings::{Activation, KthForm, TrainSettings};
    use exegete_tensor::cpu::packed::screen::{Found, Screen};

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
        // One whose length is no number of f32.
        trainer.centred_ND[11 * D] = 1e30;
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
                    let is_ranked = matches!(settings.activation, Activation::TopK | Activation::KthLargest);
                    assert!(!is_ranked || trainer.screening.share.is_some_and(f32::is_finite), "{settings:?}");
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
