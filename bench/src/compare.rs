//! Taking turns, medians, and the row that comes of it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::machine::{Machine, Phase};
use crate::progress;
use crate::side::Side;

/// Rounds before measuring: they warm both sides up and choose among the peer's candidates.
const WARM_ROUNDS: usize = 3;

/// Largest relative distance between two sides' results that rounding explains.
const SAME_WORK: f64 = 1e-4;

/// Lets ours and the fastest of the peer's candidates take turns, and makes the row.
///
/// The ratio is the median over the rounds of theirs over ours within a round: on a machine that others use too,
/// neighbours in time are what can be compared.
pub(crate) fn compare(
    row: &str,
    mut ours: Side,
    mut candidates: Vec<Side>,
    rounds: usize,
    machine: Machine,
    folder: &Path,
) -> Result<Map<String, Value>> {
    ours.run()?;
    for candidate in &mut candidates {
        candidate.run()?;
    }
    let mut secs = vec![Vec::new(); candidates.len()];
    for _ in 0..WARM_ROUNDS {
        ours.run()?;
        for (candidate, secs) in candidates.iter_mut().zip(&mut secs) {
            secs.push(candidate.run()?);
        }
    }
    let medians: Vec<f64> = secs.iter().map(|secs| quantile(secs, 0.5)).collect();
    for (candidate, median) in candidates.iter().zip(&medians) {
        progress(format_args!("{row}: {} {:.2} ms", candidate.name, median * 1e3));
    }
    let best = (0..medians.len()).min_by(|a, b| medians[*a].total_cmp(&medians[*b])).context("no peer")?;
    let mut theirs = candidates.swap_remove(best);
    drop(candidates);

    let (mut our_secs, mut their_secs) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        // Who goes first changes, so that neither always inherits the other's heat and cache.
        if round % 2 == 0 {
            our_secs.push(ours.run()?);
        }
        their_secs.push(theirs.run()?);
        if round % 2 == 1 {
            our_secs.push(ours.run()?);
        }
        let (a, b) = (our_secs[round], their_secs[round]);
        progress(format_args!("{row}: round {round}: {:.2} ms against {:.2} ms", a * 1e3, b * 1e3));
    }
    let ratios: Vec<f64> = our_secs.iter().zip(&their_secs).map(|(ours, theirs)| theirs / ours).collect();
    let phases: Vec<Phase> = serde_json::from_value::<Vec<(f64, f64)>>(ours.ready["phases"].clone())?
        .into_iter()
        .map(|(flops, bytes)| Phase { flops, bytes })
        .collect();
    let (ours_ms, floor) = (quantile(&our_secs, 0.5) * 1e3, machine.floor_secs(&phases) * 1e3);
    let (our_peak, their_peak) = (ours.peak_mib()?, theirs.peak_mib()?);
    let (worst, rel_l2) = difference(&ours.result(folder)?, &theirs.result(folder)?)?;
    // A comparison of different work is none. Both sides compute in f32, so their sums differ only by rounding.
    anyhow::ensure!(
        rel_l2 < SAME_WORK,
        "{row}: results differ by {rel_l2:.1e} (relative L2), {SAME_WORK:.0e} is allowed"
    );
    let value = json!({
        "row": row,
        "peer": theirs.name,
        "ours": ours_ms,
        "theirs": quantile(&their_secs, 0.5) * 1e3,
        "unit": "ms",
        "ratio": quantile(&ratios, 0.5),
        "ratio_q1": quantile(&ratios, 0.25),
        "ratio_q3": quantile(&ratios, 0.75),
        "n": rounds,
        "floor": floor,
        "floor_fraction": floor / ours_ms,
        "peak_mib_ours": our_peak,
        "peak_mib_theirs": their_peak,
        // A float in JSON's general form keeps small differences readable.
        "max_abs_difference": format!("{worst:.1e}"),
        "rel_l2_difference": format!("{rel_l2:.1e}"),
        "machine_gflops": machine.flops / 1e9,
        "machine_gbytes": machine.bytes / 1e9,
    });
    value.as_object().cloned().context("a row is an object")
}

/// The q-quantile, between neighbours.
fn quantile(values: &[f64], q: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = q * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + (high - low) * at.fract()
}

/// Largest difference and relative L2 distance: proof that both sides did the same work.
fn difference(ours: &[f32], theirs: &[f32]) -> Result<(f64, f64)> {
    anyhow::ensure!(ours.len() == theirs.len(), "results of {} and {} values", ours.len(), theirs.len());
    let pairs = || ours.iter().zip(theirs).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let worst = pairs().map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    let (off, size) = pairs().fold((0.0, 0.0), |(off, size), (a, b)| (off + (a - b) * (a - b), size + b * b));
    Ok((worst, (off / size).sqrt()))
}
