//! Logistic regression with an L2 penalty, as scikit-learn's `LogisticRegression` defines it.
//!
//! Minimises `sum of s log(1 + exp(-y (x w + b))) + |w|^2 / (2 C)`, the intercept not penalised, by Newton steps whose
//! equations are solved by conjugate gradients (Nocedal and Wright, Numerical Optimization, 7.1): no matrix of the width's
//! square is made. Sums are in f64 and in a fixed order, so the result does not depend on the number of threads.

use rayon::prelude::*;

use crate::{Result, SaeError};

/// Examples whose sums are made by one thread.
const CHUNK: usize = 256;
/// Newton steps, and conjugate gradients in one, after which it ends; neither is reached in practice.
const MOST_STEPS: usize = 100;
const MOST_GRADIENTS: usize = 500;
/// It ends when a step promises to lower the objective by no more than this share of it.
const ENOUGH: f64 = 1e-12;

/// How a regression is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Inverse strength of the penalty.
    pub c: f64,
    /// Whether both classes weigh the same, whatever their sizes (`class_weight="balanced"`).
    pub is_balanced: bool,
}

impl Default for Fit {
    /// scikit-learn's defaults.
    fn default() -> Self {
        Self { c: 1.0, is_balanced: false }
    }
}

/// A linear classifier: positive where `x w + b > 0`.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// Weights, `[D]`.
    pub w_D: Vec<f64>,
    /// Intercept.
    pub b: f64,
}

impl Linear {
    /// Scores of examples, `x_ND -> [N]`.
    pub fn scores(&self, x_ND: &[f32]) -> Vec<f64> {
        x_ND.chunks_exact(self.w_D.len()).map(|x| self.b + dot(x, &self.w_D)).collect()
    }
}

/// Fits a classifier to examples `x_ND` of width `d`.
///
/// # Errors
/// Another number of labels than of examples, and labels that are all the same.
pub fn fit(x_ND: &[f32], d: usize, is_positive: &[bool], how: Fit) -> Result<Linear> {
    if d == 0 || x_ND.len() != d * is_positive.len() {
        let detail = format!("{} values are no {} examples of width {d}", x_ND.len(), is_positive.len());
        return Err(SaeError::Shape(detail));
    }
    let (n, n_pos) = (is_positive.len(), is_positive.iter().filter(|p| **p).count());
    if n_pos == 0 || n_pos == n {
        return Err(SaeError::Shape("a probe needs examples of both classes".into()));
    }
    let weight = |positive: bool| match how.is_balanced {
        true => n as f64 / (2.0 * if positive { n_pos } else { n - n_pos } as f64),
        false => 1.0,
    };
    let problem = Problem {
        x_ND,
        d,
        mean_D: column_means(x_ND, d),
        is_positive,
        weights: [weight(false), weight(true)],
        c: how.c,
    };
    let mut at = vec![0f64; d + 1];
    let mut value = problem.value(&at);
    for _ in 0..MOST_STEPS {
        let (gradient, curvature) = problem.gradient(&at);
        let step = problem.newton_step(&gradient, &curvature);
        let promised = -inner(&gradient, &step);
        if promised.is_nan() || promised <= ENOUGH * (1.0 + value) {
            break;
        }
        let mut length = 1.0;
        // The objective is convex, so some length lowers it, unless rounding says otherwise.
        let taken = loop {
            let there: Vec<f64> = at.iter().zip(&step).map(|(a, s)| a + length * s).collect();
            let lower = problem.value(&there);
            if lower <= value - 1e-4 * length * promised {
                break Some((there, lower));
            }
            length /= 2.0;
            if length < 1e-10 {
                break None;
            }
        };
        let Some((there, lower)) = taken else { break };
        (at, value) = (there, lower);
    }
    let b = at[d] - inner(&at[..d], &problem.mean_D);
    at.truncate(d);
    Ok(Linear { w_D: at, b })
}

struct Problem<'a> {
    x_ND: &'a [f32],
    d: usize,
    /// Taken off the examples: the intercept takes it up, so the solution is the same and the equations are better posed.
    mean_D: Vec<f64>,
    is_positive: &'a [bool],
    /// Of a negative and of a positive example.
    weights: [f64; 2],
    c: f64,
}

impl Problem<'_> {
    /// Adds up what each chunk of examples gives, in the order of the chunks.
    fn sum(&self, len: usize, f: impl Fn(usize, &[f32], &mut [f64]) + Sync) -> Vec<f64> {
        let of_chunk = |(chunk, rows): (usize, &[f32])| {
            let mut sums = vec![0f64; len];
            rows.chunks_exact(self.d).enumerate().for_each(|(i, x)| f(chunk * CHUNK + i, x, &mut sums));
            sums
        };
        let parts: Vec<Vec<f64>> = self.x_ND.par_chunks(CHUNK * self.d).enumerate().map(of_chunk).collect();
        let mut all = vec![0f64; len];
        parts.iter().for_each(|part| all.iter_mut().zip(part).for_each(|(a, p)| *a += p));
        all
    }

    /// What parameters give for an example with the mean taken off: the offset is that of the mean.
    fn offset(&self, at: &[f64]) -> f64 {
        at[self.d] - inner(&at[..self.d], &self.mean_D)
    }

    fn weight(&self, i: usize) -> f64 {
        self.weights[usize::from(self.is_positive[i])]
    }

    fn value(&self, at: &[f64]) -> f64 {
        let (offset, w) = (self.offset(at), &at[..self.d]);
        let loss = self.sum(1, |i, x, sum| {
            let z = dot(x, w) + offset;
            sum[0] += self.weight(i) * softplus(if self.is_positive[i] { -z } else { z });
        });
        loss[0] + inner(w, w) / (2.0 * self.c)
    }

    /// The gradient, and `s p (1 - p)` of each example.
    fn gradient(&self, at: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (offset, w, d) = (self.offset(at), &at[..self.d], self.d);
        let p: Vec<f64> = self.x_ND.par_chunks_exact(d).map(|x| sigmoid(dot(x, w) + offset)).collect();
        let mut gradient = self.sum(d + 1, |i, x, sums| {
            let pull = self.weight(i) * (p[i] - f64::from(u8::from(self.is_positive[i])));
            add(&mut sums[..d], x, pull);
            sums[d] += pull;
        });
        self.centre(&mut gradient);
        gradient[..d].iter_mut().zip(w).for_each(|(g, w)| *g += w / self.c);
        (gradient, p.iter().enumerate().map(|(i, p)| self.weight(i) * p * (1.0 - p)).collect())
    }

    /// Takes the mean off what was summed over examples as they are.
    fn centre(&self, sums: &mut [f64]) {
        let (along, last) = sums.split_at_mut(self.d);
        along.iter_mut().zip(&self.mean_D).for_each(|(s, m)| *s -= last[0] * m);
    }

    /// The Hessian times a direction.
    fn bend(&self, curvature: &[f64], direction: &[f64]) -> Vec<f64> {
        let (offset, w, d) = (self.offset(direction), &direction[..self.d], self.d);
        let mut out = self.sum(d + 1, |i, x, sums| {
            let pull = curvature[i] * (dot(x, w) + offset);
            add(&mut sums[..d], x, pull);
            sums[d] += pull;
        });
        self.centre(&mut out);
        out[..d].iter_mut().zip(w).for_each(|(o, w)| *o += w / self.c);
        out
    }

    /// The Hessian's diagonal, by which the equations are scaled.
    fn diagonal(&self, curvature: &[f64]) -> Vec<f64> {
        let d = self.d;
        let mut out = self.sum(d + 1, |i, x, sums| {
            sums[..d]
                .iter_mut()
                .zip(x)
                .zip(&self.mean_D)
                .for_each(|((s, x), m)| *s += curvature[i] * (f64::from(*x) - m).powi(2));
            sums[d] += curvature[i];
        });
        out[..d].iter_mut().for_each(|o| *o += 1.0 / self.c);
        out[d] = out[d].max(1e-12);
        out
    }

    /// Solves `H step = -gradient` by conjugate gradients, as exactly as the gradient deserves.
    fn newton_step(&self, gradient: &[f64], curvature: &[f64]) -> Vec<f64> {
        let diagonal = self.diagonal(curvature);
        let scaled = |r: &[f64]| -> Vec<f64> { r.iter().zip(&diagonal).map(|(r, d)| r / d).collect() };
        let mut step = vec![0f64; gradient.len()];
        let mut left: Vec<f64> = gradient.iter().map(|g| -g).collect();
        let mut direction = scaled(&left);
        let mut size = inner(&left, &direction);
        let until = size * size.min(1e-4);
        for _ in 0..MOST_GRADIENTS {
            if size <= until || size <= f64::MIN_POSITIVE {
                break;
            }
            let bent = self.bend(curvature, &direction);
            let by = size / inner(&direction, &bent);
            step.iter_mut().zip(&direction).for_each(|(s, d)| *s += by * d);
            left.iter_mut().zip(&bent).for_each(|(l, b)| *l -= by * b);
            let next = scaled(&left);
            let now = inner(&left, &next);
            direction.iter_mut().zip(&next).for_each(|(d, n)| *d = n + now / size * *d);
            size = now;
        }
        step
    }
}

fn column_means(x_ND: &[f32], d: usize) -> Vec<f64> {
    let mut sum_D = vec![0f64; d];
    x_ND.chunks_exact(d).for_each(|x| add(&mut sum_D, x, 1.0));
    let n = (x_ND.len() / d) as f64;
    sum_D.into_iter().map(|s| s / n).collect()
}

fn dot(x: &[f32], w: &[f64]) -> f64 {
    x.iter().zip(w).map(|(x, w)| f64::from(*x) * w).sum()
}

fn inner(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f64], x: &[f32], by: f64) {
    to.iter_mut().zip(x).for_each(|(t, x)| *t += by * f64::from(*x));
}

/// `log(1 + exp(z))`.
pub(super) fn softplus(z: f64) -> f64 {
    z.max(0.0) + (-z.abs()).exp().ln_1p()
}

/// `1 / (1 + exp(-z))`.
pub(super) fn sigmoid(z: f64) -> f64 {
    if z >= 0.0 { 1.0 / (1.0 + (-z).exp()) } else { z.exp() / (1.0 + z.exp()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gradient_is_zero_where_it_ends() {
        let d = 3;
        let x: Vec<f32> = (0..300).map(|i| (i as f32 * 0.61).sin() * (1.0 + (i % 3) as f32 * 40.0) + 100.0).collect();
        let labels: Vec<bool> = (0..100).map(|i| x[i * d] + 0.3 * x[i * d + 1] > 135.0 || i % 9 == 0).collect();
        for is_balanced in [false, true] {
            let how = Fit { c: 0.7, is_balanced };
            let fitted = fit(&x, d, &labels, how).unwrap();
            let n_pos = labels.iter().filter(|p| **p).count() as f64;
            let mut gradient = [fitted.w_D[0] / how.c, fitted.w_D[1] / how.c, fitted.w_D[2] / how.c, 0.0];
            for (x, label) in x.chunks_exact(d).zip(&labels) {
                let of_class = if *label { n_pos } else { 100.0 - n_pos };
                let s = if is_balanced { 50.0 / of_class } else { 1.0 };
                let pull = s * (sigmoid(fitted.scores(x)[0]) - f64::from(u8::from(*label)));
                (0..d).for_each(|i| gradient[i] += pull * f64::from(x[i]));
                gradient[d] += pull;
            }
            assert!(gradient.iter().all(|g| g.abs() < 1e-2), "{gradient:?}");
        }
        assert!(fit(&x, d, &[true; 100], Fit::default()).is_err() && fit(&x, d, &[true], Fit::default()).is_err());
    }
}
