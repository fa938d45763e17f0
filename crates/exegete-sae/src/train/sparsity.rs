//! The penalty's part of a step: its weight, its formula at that step, its gradients.

use exegete_base::settings::{Activation, Penalty};

use super::term::Term;
use super::{Formula, TrainState, Trainer};

impl Trainer {
    /// The penalty's weight at the state's step.
    pub(super) fn sparsity(&self, state: &TrainState) -> f64 {
        self.settings.sparsity * self.settings.sparsity_factor(state.step, self.n_steps) * state.steering
    }

    /// The loss's gradient at the activities of each token, where it counts them; empty elsewhere.
    pub(super) fn per_active(&self, state: &TrainState, n: usize, sparsity: f64) -> Vec<f32> {
        let formula = self.formula(state.step);
        if !formula.counts() {
            return Vec::new();
        }
        let Term { entries, .. } = &self.main;
        let count = |values: &[f32]| values.iter().filter(|v| **v > 0.0).count();
        let (weight, mean_l0) = ((sparsity / n as f64) as f32, count(&entries.values) as f64 / n as f64);
        let rows = entries.starts.windows(2).map(|r| count(&entries.values[r[0]..r[1]]));
        rows.map(|count| weight * formula.per_active(count, mean_l0)).collect()
    }

    /// The next step's formula, where P-annealing changes its power: the weight then changes too, so that the penalty keeps
    /// its size.
    pub(super) fn annealed_to(&self, step: u64) -> Option<Formula> {
        let next = self.formula(step + 1);
        (self.settings.resolved_penalty() == Penalty::PAnneal && next != self.formula(step)).then_some(next)
    }

    /// The formula of a step's penalty.
    pub(super) fn formula(&self, step: u64) -> Formula {
        Formula::at(&self.settings, step as f64 / self.n_steps.max(1) as f64)
    }

    /// The mean penalty of a token, its gradients at the activations, and at the lengths of decoder rows that are free.
    pub(super) fn penalty(&mut self, state: &TrainState, n: usize, sparsity: f64) -> f64 {
        let (formula, next) = (self.formula(state.step), self.annealed_to(state.step));
        self.annealed = None;
        self.penalty_d.clear();
        self.norm_d_F.clear();
        if formula == Formula::None {
            return 0.0;
        }
        let Term { entries, .. } = &self.main;
        // What a gate lets through is what it costs.
        let is_gated = self.settings.activation == Activation::Gated;
        let values = if is_gated { &entries.pre } else { &entries.values };
        let norm = |latent: &u32| self.norms_F.get(*latent as usize).copied().unwrap_or(1.0);
        let u: Vec<f32> = values.iter().zip(&entries.idx).map(|(v, latent)| v * norm(latent)).collect();
        self.penalty_d.resize(u.len(), 0.0);
        let weight = (sparsity / n as f64) as f32;
        let (mut sum, mut sum_next) = (0.0, 0.0);
        let mut other = Vec::new();
        for range in entries.starts.windows(2).map(|r| r[0]..r[1]) {
            let u = &u[range.clone()];
            sum += formula.row(u, &mut self.penalty_d[range.clone()]);
            if let Some(next) = next {
                other.resize(u.len(), 0.0);
                sum_next += next.row(u, &mut other);
            }
        }
        self.annealed = (sum_next > 0.0).then(|| sum / sum_next);
        self.norm_d_F.resize(self.norms_F.len(), 0.0);
        if !self.norms_F.is_empty() {
            for ((d, latent), value) in self.penalty_d.iter().zip(&entries.idx).zip(values) {
                self.norm_d_F[*latent as usize] += weight * d * value;
            }
        }
        for (d, latent) in self.penalty_d.iter_mut().zip(&entries.idx) {
            *d *= weight * norm(latent);
        }
        formula.of_mean(sum / n as f64)
    }

    /// The pre-activation loss: dead latents are raised towards their thresholds, by `relu(theta - h)` times the length of their
    /// decoder rows, summed over them (Anthropic, January 2025; for dead latents alone, as SAELens has it). Mean over tokens.
    pub(super) fn pre_act_gradient(&mut self, n: usize) -> f64 {
        let weight = (self.settings.pre_act_weight / n as f64) as f32;
        self.norm_d_F.resize(self.norms_F.len(), 0.0);
        let low = &mut self.low;
        low.d.clear();
        let mut sum = 0.0;
        for (latent, pre) in low.entries.idx.iter().zip(&low.entries.pre) {
            let f = *latent as usize;
            let (norm, short) = (self.norms_F.get(f).copied().unwrap_or(1.0), self.theta_F[f] - pre);
            sum += f64::from(short * norm);
            low.d.push(-weight * norm);
            self.extra_d[0][f] += weight * norm;
            if let Some(norm_d) = self.norm_d_F.get_mut(f) {
                *norm_d += weight * short;
            }
        }
        low.group_by_latent(self.settings.latents);
        sum / n as f64
    }
}
