//! End-to-end training: the loss is the model's own with the reconstruction in the site's place (Braun et al. 2024, arXiv
//! 2405.12241): its cross-entropy, or its divergence from the model as it is.

use std::sync::Arc;

use exegete_base::Site;
use exegete_base::settings::Reconstruction;
use exegete_model::edits::{Replace, Vectors};
use exegete_model::{Batch, Edit, Hooks, Logits, Model, Positions};
use exegete_tensor::cpu::loss::softmax_in_place;
use exegete_tensor::{Tape, f32s, tensor};

use crate::rows::WindowRows;
use crate::{HarvestError, Result};

/// The loss of a model with reconstructions in place, in nats a predicted token, and its gradient at them.
///
/// Position 0 keeps its own activation, and what it predicts is not counted.
///
/// # Shapes
/// `recon_ND [rows of the windows, D]`; the gradient has its shape.
///
/// # Errors
/// The model's; windows that predict no token.
pub(super) fn loss_gradient(
    model: &Model,
    site: Site,
    windows: &[&WindowRows],
    recon_ND: &[f32],
    loss: Reconstruction,
) -> Result<(f64, Vec<f32>)> {
    let ids: Vec<Vec<u32>> = windows.iter().map(|w| w.window.token_ids.clone()).collect();
    let d = recon_ND.len() / windows.iter().map(|w| w.len()).sum::<usize>().max(1);
    let longest = ids.iter().map(Vec::len).max().unwrap_or(0);
    let (mut asked, mut targets, mut at) = (Vec::new(), Vec::new(), 0u32);
    for row in &ids {
        asked.extend(at + 1..at + row.len() as u32 - 1);
        targets.extend_from_slice(&row[2..]);
        at += row.len() as u32;
    }
    if targets.is_empty() {
        return Err(HarvestError::Request("windows of two tokens predict nothing: give longer text".into()));
    }
    let mut padded = vec![0f32; ids.len() * longest * d];
    let mut from = 0;
    for (row, w) in windows.iter().enumerate() {
        let (to, n) = ((row * longest + 1) * d, w.len() * d);
        padded[to..to + n].copy_from_slice(&recon_ND[from..from + n]);
        from += n;
    }
    let run = |tape: &Tape, hooks: &mut Hooks| {
        let logits = model.run(tape, &Batch::rows(&ids), None, hooks, Logits::At(asked.clone()))?;
        logits.ok_or_else(|| HarvestError::Request("the model gave no logits".into()))
    };
    let v = model.spec.vocab_size;
    let clean = match loss {
        Reconstruction::Kl => Some(f32s(run(&Tape::new(), &mut Hooks::none())?.tensor())?.to_vec()),
        _ => None,
    };
    let places = Vectors::PerPlace(tensor(padded, (ids.len(), longest, d))?);
    let behind = Positions::Where(Arc::new(|spot| spot.position > 0));
    let mut hooks = Hooks::none().edit(Edit::everywhere(site, Arc::new(Replace(places))).at(behind)).watch(site);
    let tape = Tape::new();
    let logits = run(&tape, &mut hooks)?;
    let mut seed = f32s(logits.tensor())?.to_vec();
    let n = targets.len() as f64;
    let mut sum = 0f64;
    for (i, q) in seed.chunks_exact_mut(v).enumerate() {
        match &clean {
            None => {
                let target = targets[i] as usize;
                let logit = q[target];
                sum += f64::from(softmax_in_place(q) - logit);
                q[target] -= 1.0;
            }
            Some(clean) => {
                let mut p = clean[i * v..(i + 1) * v].to_vec();
                let (logits_q, logits_p) = (q.to_vec(), p.clone());
                let (lse_q, lse_p) = (softmax_in_place(q), softmax_in_place(&mut p));
                let each = p.iter().zip(logits_p.iter().zip(&logits_q));
                sum += each.map(|(p, (lp, lq))| f64::from(*p) * f64::from((lp - lse_p) - (lq - lse_q))).sum::<f64>();
                q.iter_mut().zip(&p).for_each(|(q, p)| *q -= p);
            }
        }
        q.iter_mut().for_each(|q| *q /= n as f32);
    }
    let value = hooks.value(site).ok_or_else(|| HarvestError::Request(format!("{site} was not reached")))?;
    let gradients = tape.gradients(&logits, &tensor(seed, logits.tensor().dims())?, &[value])?;
    let all = f32s(&gradients[0])?;
    let (mut grad, mut at) = (Vec::with_capacity(recon_ND.len()), 0);
    for row in &ids {
        grad.extend_from_slice(&all[(at + 1) * d..(at + row.len()) * d]);
        at += row.len();
    }
    Ok((sum / n, grad))
}
