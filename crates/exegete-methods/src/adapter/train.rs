//! Training of adapters: the loss of what is said of a direction, behind the template with the direction in it.

use std::collections::BTreeMap;

use exegete_base::sampling::pair_hash;
use exegete_base::settings::Insertion;
use exegete_base::{Site, SiteKind};
use exegete_model::{Batch, Logits, Model};
use exegete_tensor::optim::{AdamW, Parameter};
use exegete_tensor::{Tape, f32s, tensor};
use serde::Serialize;

use super::{Adapter, Form, Projection};
use crate::self_explain::Inserted;
use crate::self_explain::asker::Asker;
use crate::{MethodError, Result};

/// A direction and what is said of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The direction, `[D]`.
    pub direction: Vec<f32>,
    /// What is said of it.
    pub text: String,
    /// Whether it is kept for the check and not trained on; decided by the direction's hash where nothing says so.
    pub held_out: Option<bool>,
    /// The latent whose direction it is, where it is one's.
    pub latent: Option<u32>,
}

impl Pair {
    /// All pairs of a direction are on one side.
    fn is_held_out(&self, seed: u64) -> bool {
        let hash = self.direction.iter().fold(seed, |hash, x| pair_hash(hash, x.to_bits().into(), 1));
        self.held_out.unwrap_or_else(|| hash.is_multiple_of(HELD_OUT))
    }
}

/// How an adapter is trained. The defaults are the published ones.
#[derive(Debug, Clone, PartialEq, clap::Args, Serialize)]
pub struct TrainSettings {
    /// The form of the map
    #[arg(long, value_enum, default_value_t = Form::ScalarAffine)]
    pub form: Form,
    /// Rank of the matrix, for forms that have one
    #[arg(long, default_value_t = 16)]
    pub rank: usize,
    /// The scale at which training begins
    #[arg(long, default_value_t = 5.0)]
    pub init_scale: f64,
    /// Times that each pair is read
    #[arg(long, default_value_t = 2)]
    pub epochs: usize,
    /// Pairs of a step
    #[arg(long, default_value_t = 80)]
    pub batch: usize,
    /// The highest learning rate; it rises over ten steps and falls as a cosine
    #[arg(long, default_value_t = 0.01)]
    pub lr: f64,
    /// Decoupled weight decay
    #[arg(long, default_value_t = 0.01)]
    pub weight_decay: f64,
    /// Gradients are shortened to this length
    #[arg(long, default_value_t = 0.5)]
    pub clip: f64,
}

impl Default for TrainSettings {
    /// The published ones.
    fn default() -> Self {
        Self {
            form: Form::ScalarAffine,
            rank: 16,
            init_scale: 5.0,
            epochs: 2,
            batch: 80,
            lr: 0.01,
            weight_decay: 0.01,
            clip: 0.5,
        }
    }
}

/// How far a training is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Progressed {
    /// Steps done.
    pub step: u64,
    /// Steps in all.
    pub steps: u64,
    /// Loss of the step's pairs, in nats a token.
    pub loss: f64,
}

/// What came of a training.
#[derive(Debug, Clone, PartialEq)]
pub struct Trained {
    /// The adapter with the least loss on the pairs held out.
    pub adapter: Adapter,
    /// Loss of those pairs before any step, in nats a token.
    pub loss_before: f64,
    /// Their least loss after a pass, by which the adapter was chosen.
    pub loss: f64,
    /// Its loss where every one is given another's direction: what the bias alone does. Not a number where there is one direction.
    pub loss_shuffled: f64,
    /// Pairs trained on, and held out.
    pub pairs: [usize; 2],
}

const WARM_UP: u64 = 10;
/// Every tenth pair is held out.
const HELD_OUT: u64 = 10;

/// Trains an adapter. `at` is told of each step and says whether to go on.
///
/// # Errors
/// Fewer than ten pairs, a direction of another width, a text without tokens, a loss that is no number, a stop.
pub fn train(
    model: &Model,
    template: &str,
    pairs: &[Pair],
    settings: &TrainSettings,
    seed: u64,
    at: &mut dyn FnMut(Progressed) -> bool,
) -> Result<Trained> {
    let rules = [
        (settings.rank >= 1, "--rank must be at least 1"),
        (settings.init_scale > 0.0 && settings.init_scale.is_finite(), "--init-scale must be a positive number"),
        (settings.epochs >= 1, "--epochs must be at least 1"),
        (settings.batch >= 1, "--batch must be at least 1"),
        (settings.lr > 0.0 && settings.lr.is_finite(), "--lr must be a positive number"),
        (settings.clip > 0.0, "--clip must be a positive number"),
    ];
    if let Some((_, text)) = rules.iter().find(|(holds, _)| !holds) {
        return Err(MethodError::Request((*text).into()));
    }
    if let Some(bad) = pairs.iter().find(|pair| pair.direction.len() != model.spec.d_model) {
        let (d, n) = (model.spec.d_model, bad.direction.len());
        return Err(MethodError::Request(format!("a direction has {n} values, and the model's residual stream {d}")));
    }
    let asker = Asker::new(model, template, super::LAYER)?;
    let targets: Vec<Vec<u32>> = pairs.iter().map(|pair| target(&asker, &pair.text)).collect::<Result<_>>()?;
    let is_held = |i: &usize| pairs[*i].is_held_out(seed);
    let (held, mut order): (Vec<usize>, Vec<usize>) = (0..pairs.len()).partition(is_held);
    if order.len() < 8 || held.is_empty() {
        let detail = format!("{} pairs to train on and {} to check with are too few", order.len(), held.len());
        return Err(MethodError::Request(detail));
    }
    let low_rank = settings.form.is_low_rank();
    let projection = Projection {
        form: settings.form,
        normalize_input: true,
        init_scale: Some(settings.init_scale),
        low_rank_rank: low_rank.then_some(settings.rank),
        low_rank_init_factor: low_rank.then_some(0.01),
    };
    let mut adapter = Adapter::begun(projection, model.spec.d_model, seed);
    let mut parameters: BTreeMap<&'static str, Parameter> =
        adapter.tensors.iter().map(|(name, values)| (*name, Parameter::new(values.clone()))).collect();
    // Whose direction each held pair meets as a control: the next other one's.
    let another = |i: usize| {
        let of = |step: usize| held[(i + step) % held.len()];
        (1..held.len()).map(of).find(|j| pairs[*j].direction != pairs[held[i]].direction)
    };
    let checked = |adapter: &Adapter, is_shuffled: bool| -> Result<f64> {
        let (mut sum, mut n) = (0.0, 0usize);
        for part in (0..held.len()).collect::<Vec<_>>().chunks(settings.batch) {
            let of = |i: &usize| if is_shuffled { another(*i) } else { Some(held[*i]) };
            let met: Vec<(usize, usize)> = part.iter().filter_map(|i| Some((held[*i], of(i)?))).collect();
            let rows: Vec<Inserted> = met.iter().map(|(_, j)| inserted(adapter, &pairs[*j])).collect::<Result<_>>()?;
            let wanted: Vec<Vec<u32>> = met.iter().map(|(i, _)| targets[*i].clone()).collect();
            if !rows.is_empty() {
                sum += losses(&asker, &rows, &wanted)?.iter().sum::<f64>();
                n += rows.len();
            }
        }
        Ok(sum / n as f64)
    };
    let loss_before = checked(&adapter, false)?;
    let mut best = (loss_before, adapter.clone());
    let steps = (order.len().div_ceil(settings.batch) * settings.epochs) as u64;
    let mut step = 0u64;
    for epoch in 0..settings.epochs {
        order.sort_by_key(|i| pair_hash(seed, *i as u64, 2 + epoch as u64));
        for part in order.chunks(settings.batch) {
            let (loss, mut grads) = gradients(&asker, &adapter, (pairs, &targets), part)?;
            let norm = grads.values().flatten().map(|g| f64::from(*g).powi(2)).sum::<f64>().sqrt();
            if !loss.is_finite() || !norm.is_finite() {
                return Err(MethodError::Request(format!(
                    "the loss at step {step} is no number; a smaller --lr may help"
                )));
            }
            let shorter = (settings.clip / norm.max(1e-12)).min(1.0) as f32;
            let lr = settings.lr * rate(step, steps);
            step += 1;
            for (name, parameter) in &mut parameters {
                let Some(grad) = grads.get_mut(name) else { continue };
                grad.iter_mut().for_each(|g| *g *= shorter);
                // The scale is not to shrink by itself.
                let decay = if *name == "log_scale" { 0.0 } else { settings.weight_decay };
                parameter.step(AdamW::default(), lr, decay, step, grad);
                adapter.tensors.insert(name, parameter.values.clone());
            }
            if !at(Progressed { step, steps, loss }) {
                return Err(MethodError::Request("stopped; nothing was written".into()));
            }
        }
        adapter.steps = step;
        let loss = checked(&adapter, false)?;
        if loss < best.0 {
            best = (loss, adapter.clone());
        }
    }
    let (loss, mut adapter) = best;
    adapter.best_loss = Some(loss);
    adapter.template = Some(template.to_owned());
    adapter.trained_on = order.iter().filter_map(|i| pairs[*i].latent).collect();
    adapter.trained_on.sort_unstable();
    adapter.trained_on.dedup();
    let loss_shuffled = checked(&adapter, true)?;
    Ok(Trained { adapter, loss_before, loss, loss_shuffled, pairs: [order.len(), held.len()] })
}

/// The share of the highest learning rate: it rises over the first steps and falls as a cosine over the others.
fn rate(step: u64, steps: u64) -> f64 {
    let warm = WARM_UP.min(steps / 2);
    match step < warm {
        true => (step + 1) as f64 / warm as f64,
        false => 0.5 * (1.0 + (std::f64::consts::PI * (step - warm) as f64 / (steps - warm).max(1) as f64).cos()),
    }
}

fn inserted(adapter: &Adapter, pair: &Pair) -> Result<Inserted> {
    Ok(Inserted { vector: adapter.apply(&pair.direction)?, how: Insertion::Replace, factor: 1.0 })
}

/// The tokens of an answer, its end behind it.
pub(super) fn target(asker: &Asker, text: &str) -> Result<Vec<u32>> {
    let tokenizer = asker.model.tokenizer()?;
    let end = asker.prompt.end();
    let mut ids = tokenizer.encode_prompt(&format!("{}{end}", text.trim()))?;
    ids.extend(asker.model.spec.eos_ids.first());
    match text.trim().is_empty() {
        true => Err(MethodError::Request("a text without any words cannot be learnt or scored".into())),
        false => Ok(ids),
    }
}

/// The batch of prompts with answers behind them: tokens whose logits count, and what they are to say.
fn batch(asker: &Asker, targets: &[Vec<u32>]) -> (Batch, Vec<u32>, Vec<u32>) {
    let (mut rows, mut read, mut wanted, mut from) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for target in targets {
        let mut row = asker.prompt.ids.clone();
        let first = from + row.len() - 1;
        row.extend_from_slice(&target[..target.len() - 1]);
        read.extend((first..first + target.len()).map(|i| i as u32));
        wanted.extend_from_slice(target);
        from += row.len();
        rows.push(row);
    }
    (Batch::rows(&rows), read, wanted)
}

/// Mean loss of each row's answer, in nats a token.
pub(super) fn losses(asker: &Asker, rows: &[Inserted], targets: &[Vec<u32>]) -> Result<Vec<f64>> {
    let (batch, read, wanted) = batch(asker, targets);
    let tape = Tape::new();
    let logits = asker.model.run(&tape, &batch, None, &mut asker.hooks(rows), Logits::At(read))?;
    let logits = logits.ok_or_else(|| MethodError::Request("the model gave no logits".into()))?;
    let losses = tape.cross_entropy(&logits, &wanted)?;
    Ok(by_row(&f32s(losses.tensor())?, targets))
}

fn by_row(losses: &[f32], targets: &[Vec<u32>]) -> Vec<f64> {
    let mut from = 0;
    let mean = |target: &Vec<u32>| {
        let part = &losses[from..from + target.len()];
        from += target.len();
        part.iter().map(|x| f64::from(*x)).sum::<f64>() / target.len() as f64
    };
    targets.iter().map(mean).collect()
}

/// The loss of some pairs, a mean over each answer and then over pairs, and its gradients.
fn gradients(
    asker: &Asker,
    adapter: &Adapter,
    (pairs, targets): (&[Pair], &[Vec<u32>]),
    part: &[usize],
) -> Result<(f64, BTreeMap<&'static str, Vec<f32>>)> {
    let rows: Vec<Inserted> = part.iter().map(|i| inserted(adapter, &pairs[*i])).collect::<Result<_>>()?;
    let targets: Vec<Vec<u32>> = part.iter().map(|i| targets[*i].clone()).collect();
    let (batch, read, wanted) = batch(asker, &targets);
    let lens = batch.lens_B.clone();
    let site = Site::at(SiteKind::ResidPre, asker.layer);
    let mut hooks = asker.hooks(&rows).watch(site);
    // Eighty prompts through every layer are gigabytes; one layer's at a time are not.
    hooks.recompute = true;
    let tape = Tape::new();
    let logits = asker.model.run(&tape, &batch, None, &mut hooks, Logits::At(read))?;
    let (Some(logits), Some(at)) = (logits, hooks.value(site)) else {
        return Err(MethodError::Request(format!("{site} was not reached")));
    };
    let losses = tape.cross_entropy(&logits, &wanted)?;
    let weight = |target: &Vec<u32>| vec![1.0 / (target.len() * targets.len()) as f32; target.len()];
    let seed: Vec<f32> = targets.iter().flat_map(weight).collect();
    let seed = tensor(seed, losses.tensor().dims())?;
    let grads = tape.gradients(&losses, &seed, &[at])?;
    let (grads, d) = (f32s(&grads[0])?, adapter.d);
    let mut sums: BTreeMap<&'static str, Vec<f32>> =
        adapter.tensors.iter().map(|(name, values)| (*name, vec![0f32; values.len()])).collect();
    let mut from = 0;
    for (i, len) in part.iter().zip(lens) {
        // The same vector stands at each placeholder.
        let mut grad = vec![0f32; d];
        for place in &asker.prompt.placeholders {
            let row = &grads[(from + place) * d..(from + place + 1) * d];
            grad.iter_mut().zip(row).for_each(|(sum, g)| *sum += g);
        }
        adapter.add_gradient(&pairs[*i].direction, &grad, &mut sums);
        from += len;
    }
    let loss = by_row(&f32s(losses.tensor())?, &targets).iter().sum::<f64>() / part.len() as f64;
    Ok((loss, sums))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_rises_and_falls() {
        assert_eq!((rate(0, 100), rate(9, 100), rate(10, 100)), (0.1, 1.0, 1.0));
        assert!(rate(99, 100) < 0.01 && rate(0, 1) == 1.0 && rate(1, 4) == 1.0);
    }

    #[test]
    fn gradients_through_the_model_are_differences_of_the_loss() {
        let Some(dir) = exegete_testkit::data_dir() else {
            return exegete_testkit::not_run("EXEGETE_DATA is not set: stories260K is not here");
        };
        let model = Model::open(&dir.join("models/stories260K/stories260K.bin")).unwrap();
        let asker = Asker::new(&model, "selfie", 0).unwrap();
        let d = model.spec.d_model;
        let pair = |text: &str, number: u64| Pair {
            direction: crate::direction::random(d, 3, number),
            text: text.into(),
            held_out: None,
            latent: None,
        };
        let pairs = [pair("a dog", 1), pair("the sun is up", 2)];
        let targets: Vec<Vec<u32>> = pairs.iter().map(|p| target(&asker, &p.text).unwrap()).collect();
        let projection = Projection {
            form: Form::ScalarAffine,
            normalize_input: true,
            init_scale: Some(2.0),
            low_rank_rank: None,
            low_rank_init_factor: None,
        };
        let adapter = Adapter::begun(projection, d, 1);
        let (loss, grads) = gradients(&asker, &adapter, (&pairs, &targets), &[0, 1]).unwrap();
        let loss_of = |adapter: &Adapter| {
            let rows: Vec<Inserted> = pairs.iter().map(|p| inserted(adapter, p).unwrap()).collect();
            losses(&asker, &rows, &targets).unwrap().iter().sum::<f64>() / 2.0
        };
        assert!((loss - loss_of(&adapter)).abs() < 1e-5);
        let largest = grads["bias"].iter().fold(0f32, |a, g| a.max(g.abs()));
        for (name, i) in [("log_scale", 0), ("bias", 0), ("bias", 7), ("bias", 40)] {
            let moved = |by: f32| {
                let mut other = adapter.clone();
                other.tensors.get_mut(name).unwrap()[i] += by;
                loss_of(&other)
            };
            let difference = (moved(1e-2) - moved(-1e-2)) / 2e-2;
            let gradient = f64::from(grads[name][i]);
            assert!((difference - gradient).abs() < 0.02 * f64::from(largest), "{name} {i}: {difference} {gradient}");
        }
    }
}
