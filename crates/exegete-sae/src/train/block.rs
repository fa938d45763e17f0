//! What a dense step does with the activations of a block of tokens, and with their gradients.

use rayon::prelude::*;

use super::Formula;
use super::rules::Single;

/// The loss's gradient at the activities of a block's tokens; empty where it has none.
pub(super) fn per_active(formula: Formula, active: &[f32], f: usize, (weight, mean_l0): (f32, f64)) -> Vec<f32> {
    if !formula.counts() {
        return Vec::new();
    }
    let one = |row: &[f32]| weight * formula.per_active(row.iter().filter(|a| **a > 0.0).count(), mean_l0);
    active.par_chunks_exact(f).map(one).collect()
}

/// Penalties of a block's tokens, summed in their order, and their gradients at the activations.
pub(super) fn penalties(
    formula: Formula,
    weight: f32,
    active: &[f32],
    norms_F: &[f32],
    norm_d_F: &mut [f32],
    (slopes, f): (&mut [f32], usize),
) -> f64 {
    if formula == Formula::None {
        return 0.0;
    }
    let is_free = !norms_F.is_empty();
    let one = |(active, slopes): (&[f32], &mut [f32])| match is_free {
        true => {
            let u: Vec<f32> = active.iter().zip(norms_F).map(|(a, norm)| a * norm).collect();
            formula.row(&u, slopes)
        }
        false => formula.row(active, slopes),
    };
    let each: Vec<f64> = active.par_chunks_exact(f).zip(slopes.par_chunks_exact_mut(f)).map(one).collect();
    if is_free {
        for (active, slopes) in active.chunks_exact(f).zip(slopes.chunks_exact(f)) {
            norm_d_F.iter_mut().zip(active).zip(slopes).for_each(|((n, a), s)| *n += weight * a * s);
        }
    }
    slopes.par_chunks_exact_mut(f).for_each(|row| match is_free {
        true => row.iter_mut().zip(norms_F).for_each(|(s, norm)| *s *= weight * norm),
        false => row.iter_mut().for_each(|s| *s *= weight),
    });
    each.iter().sum()
}

/// What a block gives to a latent.
#[derive(Clone, Copy, Default)]
pub(super) struct Column {
    /// Its gradients at the pre-activations, summed.
    pub(super) d: f32,
    /// Its gradients at its extras.
    pub(super) extras: [f32; 2],
    /// Tokens at which it is active.
    pub(super) n_active: u32,
}

/// Turns gradients at activations into those at pre-activations, and sums each latent's over the tokens, in order.
pub(super) fn through_rule(
    rule: &Single,
    pre: &[f32],
    slopes: &mut [f32],
    (f, per_active_N): (usize, &[f32]),
) -> Vec<Column> {
    let mut columns = vec![Column::default(); f];
    // Each thread takes a stretch of latents of all tokens.
    let stretch = f.div_ceil(4 * rayon::current_num_threads()).max(64);
    let mut parts: Vec<Vec<&mut [f32]>> = (0..f.div_ceil(stretch)).map(|_| Vec::new()).collect();
    for row in slopes.chunks_exact_mut(f) {
        parts.iter_mut().zip(row.chunks_mut(stretch)).for_each(|(part, slopes)| part.push(slopes));
    }
    parts.into_par_iter().zip(columns.par_chunks_mut(stretch)).enumerate().for_each(|(i, (rows, columns))| {
        let first = i * stretch;
        for (n, slopes) in rows.into_iter().enumerate() {
            let pre = &pre[n * f + first..];
            let per_active = per_active_N.get(n).copied().unwrap_or(0.0);
            for (l, ((d, h), c)) in slopes.iter_mut().zip(pre).zip(columns.iter_mut()).enumerate() {
                let back = rule.back(first + l, *h, *d, per_active);
                c.n_active += u32::from(rule.value(first + l, *h) > 0.0);
                (*d, c.d) = (back.through, c.d + back.through);
                c.extras.iter_mut().zip(back.extras).for_each(|(sum, extra)| *sum += extra);
            }
        }
    });
    columns
}

/// Adds the gradients at an open gate's pre-activations to those through the magnitudes, and to the sums of their columns.
pub(super) fn through_gate(gate: &[f32], gate_slopes: &[f32], slopes: &mut [f32], sums_F: &mut [f32]) {
    let f = sums_F.len();
    slopes.par_iter_mut().with_min_len(f).zip(gate.par_iter().zip(gate_slopes)).for_each(|(slope, (gate, d))| {
        *slope += if *gate > 0.0 { *d } else { 0.0 };
    });
    for (gate, d) in gate.chunks_exact(f).zip(gate_slopes.chunks_exact(f)) {
        for ((sum, gate), d) in sums_F.iter_mut().zip(gate).zip(d) {
            *sum += if *gate > 0.0 { *d } else { 0.0 };
        }
    }
}

/// The latents of each group, of which so many end where the list says.
pub(super) fn groups(ends: &[usize]) -> impl Iterator<Item = std::ops::Range<usize>> + '_ {
    let first = |group: usize| if group == 0 { 0 } else { ends[group - 1] };
    ends.iter().enumerate().map(move |(group, end)| first(group)..*end)
}
