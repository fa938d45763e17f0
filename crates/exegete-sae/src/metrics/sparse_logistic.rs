//! Logistic regression on sparse codes with an L1 penalty: which latents speak for a class.
//!
//! Minimises `mean of s log(1 + exp(-y z)) + l1 |w|_1`, positives weighing as much as negatives together, by accelerated
//! proximal steps (Beck and Teboulle 2009), each latent with a step of its own that bounds the curvature. SAEBench seeks the
//! same minimum with 50 epochs of Adam (`k_sparse_probing.py`).

use super::logistic::sigmoid;
use crate::{Codes, Result, SaeError};

/// Steps, after which weights that matter have long settled.
const STEPS: usize = 400;

/// The weight of each latent, `[F]`.
///
/// # Errors
/// Another number of labels than of examples, and labels that are all the same.
pub fn fit(codes: &Codes, n_latents: usize, is_positive: &[bool], l1: f64) -> Result<Vec<f64>> {
    let (n, n_pos) = (codes.n_tokens(), is_positive.iter().filter(|p| **p).count());
    if n != is_positive.len() || n_pos == 0 || n_pos == n {
        let detail =
            format!("{n} codes with {} labels, {n_pos} of them positive, tell no two classes apart", is_positive.len());
        return Err(SaeError::Shape(detail));
    }
    let of_positive = (n - n_pos) as f64 / n_pos as f64;
    let weight = |i: usize| if is_positive[i] { of_positive } else { 1.0 } / n as f64;
    // The last place is the intercept's. By Gershgorin's circles these bound the Hessian from above.
    let mut bound = vec![0f64; n_latents + 1];
    for i in 0..n {
        let sum = 1.0 + codes.of(i).map(|(_, v)| f64::from(v.abs())).sum::<f64>();
        codes.of(i).for_each(|(f, v)| bound[f as usize] += 0.25 * weight(i) * f64::from(v.abs()) * sum);
        bound[n_latents] += 0.25 * weight(i) * sum;
    }
    let (mut w, mut ahead) = (vec![0f64; n_latents + 1], vec![0f64; n_latents + 1]);
    let mut momentum = 1f64;
    for _ in 0..STEPS {
        let mut gradient = vec![0f64; n_latents + 1];
        for i in 0..n {
            let z = ahead[n_latents] + codes.of(i).map(|(f, v)| ahead[f as usize] * f64::from(v)).sum::<f64>();
            let pull = weight(i) * (sigmoid(z) - f64::from(u8::from(is_positive[i])));
            codes.of(i).for_each(|(f, v)| gradient[f as usize] += pull * f64::from(v));
            gradient[n_latents] += pull;
        }
        let next_momentum = (1.0 + (1.0 + 4.0 * momentum * momentum).sqrt()) / 2.0;
        let (carry, mut against) = ((momentum - 1.0) / next_momentum, 0.0);
        for f in 0..=n_latents {
            if bound[f] == 0.0 {
                continue;
            }
            let there = ahead[f] - gradient[f] / bound[f];
            let shrink = if f < n_latents { l1 / bound[f] } else { 0.0 };
            let new = there.signum() * (there.abs() - shrink).max(0.0);
            against += (ahead[f] - new) * (new - w[f]) * bound[f];
            ahead[f] = new + carry * (new - w[f]);
            w[f] = new;
        }
        // Momentum that leads uphill is given up (O'Donoghue and Candès 2015).
        momentum = if against > 0.0 { 1.0 } else { next_momentum };
    }
    w.truncate(n_latents);
    Ok(w)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latents_of_a_class_have_the_weight_and_others_none() {
        let mut codes = Codes::default();
        let labels: Vec<bool> = (0..200).map(|i| i % 4 == 0).collect();
        for i in 0..200u32 {
            let own = (i % 4 == 0).then_some((2, 1.5 + (i % 3) as f32));
            codes.push([Some((0, 1.0 + (i % 5) as f32)), own].into_iter().flatten());
        }
        let w = fit(&codes, 5, &labels, 0.01).unwrap();
        assert!(w[2] > 0.5 && w[0].abs() < 0.05 && w[1] == 0.0 && w[4] == 0.0, "{w:?}");
        // A penalty that is too large leaves nothing.
        assert!(fit(&codes, 5, &labels, 10.0).unwrap().iter().all(|w| *w == 0.0));
        assert!(fit(&codes, 5, &[true; 200], 0.01).is_err());
    }
}
