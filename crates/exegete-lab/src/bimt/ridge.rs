//! Ridge regression for readouts of a few dozen units.

use super::formula::Samples;

/// Penalty on the squared weights, per sample; it only keeps the equations solvable.
const RIDGE: f64 = 1e-6;

/// Readout [outputs, units + 1] of unit values (one row a unit) onto the outputs of `samples`, constant last.
pub(crate) fn fit(units: &[Vec<f32>], samples: &Samples) -> Vec<f64> {
    let (n, k) = (samples.n, units.len() + 1);
    let value = |u: usize, s: usize| units.get(u).map_or(1.0, |row| f64::from(row[s]));
    let mut gram = vec![0.0; k * k];
    for (a, b) in (0..k).flat_map(|a| (0..=a).map(move |b| (a, b))) {
        gram[a * k + b] = (0..n).map(|s| value(a, s) * value(b, s)).sum::<f64>();
    }
    (0..units.len()).for_each(|u| gram[u * k + u] += RIDGE * n as f64);
    cholesky(&mut gram, k);
    let mut readout = Vec::new();
    for y in samples.y.chunks_exact(n) {
        let right = (0..k).map(|a| (0..n).map(|s| value(a, s) * f64::from(y[s])).sum()).collect();
        readout.extend(solve(&gram, k, right));
    }
    readout
}

/// Replaces the lower triangle of a positive definite matrix by its factor.
fn cholesky(a: &mut [f64], k: usize) {
    for col in 0..k {
        for row in col..k {
            let dot: f64 = (0..col).map(|i| a[row * k + i] * a[col * k + i]).sum();
            let rest = a[row * k + col] - dot;
            // Rounding can take a pivot of collinear units below the penalty that bounds it.
            a[row * k + col] = if row == col { rest.max(1e-12).sqrt() } else { rest / a[col * k + col] };
        }
    }
}

fn solve(factor: &[f64], k: usize, mut x: Vec<f64>) -> Vec<f64> {
    for row in 0..k {
        let dot: f64 = (0..row).map(|i| factor[row * k + i] * x[i]).sum();
        x[row] = (x[row] - dot) / factor[row * k + row];
    }
    for row in (0..k).rev() {
        let dot: f64 = (row + 1..k).map(|i| factor[i * k + row] * x[i]).sum();
        x[row] = (x[row] - dot) / factor[row * k + row];
    }
    x
}
