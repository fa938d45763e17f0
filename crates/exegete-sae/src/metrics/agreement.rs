//! How far dictionaries of several seeds have the same latents, against directions drawn at random.

use exegete_base::sampling::pair_hash;
use serde::Serialize;

use super::geometry::{each_cosine_row, unit_rows};
use crate::{Result, SaeError};

/// A latent counts as found again where another dictionary has a decoder row of a cosine above this (Paulo and Belrose 2025).
pub const FOUND_AGAIN: f32 = 0.7;
/// Most latents that are matched one to one: the matrix of all cosines is held, 256 MiB at most.
const MOST_MATCHED: usize = 8192;

/// How far the decoder rows of one dictionary are found in another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Mean over latents of the largest cosine with any row of the other.
    pub mean_max_cosine: f64,
    /// Share of latents for which it is above [`FOUND_AGAIN`].
    pub share_found: f64,
    /// Mean cosine where each row is matched with another of its own, so that the sum of cosines is the largest there is;
    /// none above 8,192 latents, or where the other has fewer.
    pub matched_cosine: Option<f64>,
    /// Share of these matched pairs above [`FOUND_AGAIN`].
    pub matched_found: Option<f64>,
}

/// Compares the decoder rows of two dictionaries, `[F_a, D]` and `[F_b, D]`.
///
/// # Errors
/// Arrays that are no rows of width `d`.
pub fn agreement(a_FD: &[f32], b_FD: &[f32], d: usize) -> Result<Agreement> {
    if d == 0
        || a_FD.is_empty()
        || b_FD.is_empty()
        || !(a_FD.len() + b_FD.len()).is_multiple_of(d)
        || !a_FD.len().is_multiple_of(d)
    {
        let detail = format!("{} and {} values are no decoder rows of width {d}", a_FD.len(), b_FD.len());
        return Err(SaeError::Shape(detail));
    }
    let (n_a, n_b) = (a_FD.len() / d, b_FD.len() / d);
    let (a, b) = (unit_rows(a_FD, d), unit_rows(b_FD, d));
    let is_matched = n_a <= n_b && n_b <= MOST_MATCHED;
    let mut cosines = Vec::with_capacity(if is_matched { n_a * n_b } else { 0 });
    let (mut sum, mut found) = (0.0, 0usize);
    each_cosine_row(&a, &b, d, &mut |_, row| {
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        sum += f64::from(most);
        found += usize::from(most > FOUND_AGAIN);
        if is_matched {
            cosines.extend_from_slice(row);
        }
    });
    let pairs: Option<Vec<f32>> =
        is_matched.then(|| assignment(&cosines, n_b).iter().enumerate().map(|(i, j)| cosines[i * n_b + j]).collect());
    let mean = |pairs: &Vec<f32>| pairs.iter().map(|c| f64::from(*c)).sum::<f64>() / n_a as f64;
    let share = |pairs: &Vec<f32>| pairs.iter().filter(|c| **c > FOUND_AGAIN).count() as f64 / n_a as f64;
    Ok(Agreement {
        mean_max_cosine: sum / n_a as f64,
        share_found: found as f64 / n_a as f64,
        matched_cosine: pairs.as_ref().map(mean),
        matched_found: pairs.as_ref().map(share),
    })
}

/// Rows of a dictionary that knows nothing: directions drawn evenly over the sphere, `[F, D]`.
pub fn random_rows(n_latents: usize, d: usize, seed: u64) -> Vec<f32> {
    let unit = |hash: u64| (hash >> 11) as f64 / (1u64 << 53) as f64;
    let normal = |i: u64| {
        let (a, b) = (unit(pair_hash(seed, i, 1)), unit(pair_hash(seed, i, 2)));
        (-2.0 * (1.0 - a).ln()).sqrt() * (std::f64::consts::TAU * b).cos()
    };
    unit_rows(&(0..(n_latents * d) as u64).map(|i| normal(i) as f32).collect::<Vec<f32>>(), d)
}

/// For each row of a matrix with `n_cols` columns, and no more rows than that, a column of its own, so that the sum of the
/// chosen values is the largest there is: shortest augmenting paths with potentials (Kuhn 1955, Munkres 1957).
fn assignment(values: &[f32], n_cols: usize) -> Vec<usize> {
    const FREE: usize = usize::MAX;
    let n_rows = values.len() / n_cols;
    let (mut row_potential, mut col_potential) = (vec![0f64; n_rows], vec![0f64; n_cols]);
    let mut row_of = vec![FREE; n_cols];
    for start in 0..n_rows {
        let (mut least, mut before) = (vec![f64::INFINITY; n_cols], vec![FREE; n_cols]);
        let mut is_done = vec![false; n_cols];
        let (mut row, mut from) = (start, FREE);
        // The column at which the path ends: one that no row has yet.
        let end = loop {
            let (mut step, mut next) = (f64::INFINITY, FREE);
            let costs = &values[row * n_cols..(row + 1) * n_cols];
            for col in 0..n_cols {
                if is_done[col] {
                    continue;
                }
                let cost = -f64::from(costs[col]) - row_potential[row] - col_potential[col];
                if cost < least[col] {
                    (least[col], before[col]) = (cost, from);
                }
                if least[col] < step {
                    (step, next) = (least[col], col);
                }
            }
            if next == FREE {
                // Values that are no numbers: whatever is left will do.
                break (0..n_cols).find(|col| row_of[*col] == FREE).unwrap_or(0);
            }
            row_potential[start] += step;
            for col in 0..n_cols {
                if is_done[col] {
                    row_potential[row_of[col]] += step;
                    col_potential[col] -= step;
                } else {
                    least[col] -= step;
                }
            }
            is_done[next] = true;
            if row_of[next] == FREE {
                break next;
            }
            (row, from) = (row_of[next], next);
        };
        // Along the path every column takes over the row of the one before it.
        let mut col = end;
        while before[col] != FREE {
            row_of[col] = row_of[before[col]];
            col = before[col];
        }
        row_of[col] = start;
    }
    let mut chosen = vec![0; n_rows];
    row_of.iter().enumerate().filter(|(_, row)| **row != FREE).for_each(|(col, row)| chosen[*row] = col);
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_agrees_with_itself_and_with_a_random_one_as_far_as_chance() {
        let (a, b) = (random_rows(60, 8, 1), random_rows(60, 8, 2));
        let shuffled: Vec<f32> = a.chunks(8).rev().flatten().copied().collect();
        let same = agreement(&a, &shuffled, 8).unwrap();
        assert!((same.mean_max_cosine - 1.0).abs() < 1e-6 && same.share_found == 1.0, "{same:?}");
        assert!((same.matched_cosine.unwrap() - 1.0).abs() < 1e-6 && same.matched_found == Some(1.0), "{same:?}");
        let chance = agreement(&a, &b, 8).unwrap();
        let other = agreement(&a, &random_rows(60, 8, 3), 8).unwrap();
        assert!((chance.mean_max_cosine - other.mean_max_cosine).abs() < 0.05, "{chance:?} {other:?}");
        assert!(chance.matched_cosine.unwrap() < chance.mean_max_cosine && chance.mean_max_cosine < 0.85, "{chance:?}");
    }

    #[test]
    fn one_row_is_not_matched_twice() {
        // Both rows of a look like the first of b; the best sum gives the second row the second column.
        let a = [1.0, 0.0, 0.9, 0.1];
        let found = agreement(&a, &[1.0, 0.0, 0.0, 1.0], 2).unwrap();
        let second = 0.1 / (0.81f64 + 0.01).sqrt();
        assert!((found.matched_cosine.unwrap() - (1.0 + second) / 2.0).abs() < 1e-6, "{found:?}");
        assert!(found.share_found == 1.0 && found.matched_found == Some(0.5), "{found:?}");
        assert!(agreement(&a, &[1.0, 0.0, 0.0], 2).is_err());
    }

    #[test]
    fn an_assignment_is_the_best_of_all() {
        let values: Vec<f32> = (0..25u64).map(|i| (pair_hash(5, i, 0) % 1000) as f32).collect();
        let sum = |chosen: &[usize]| chosen.iter().enumerate().map(|(r, c)| values[r * 5 + c]).sum::<f32>();
        let chosen = assignment(&values, 5);
        let mut best = 0f32;
        let mut all = vec![vec![]];
        for _ in 0..5 {
            all = all
                .iter()
                .flat_map(|p: &Vec<usize>| (0..5).filter(|c| !p.contains(c)).map(|c| [&p[..], &[c]].concat()))
                .collect();
        }
        all.iter().for_each(|p| best = best.max(sum(p)));
        assert_eq!(sum(&chosen), best);
    }
}
