//! Taking turns, medians, and the row that comes of it.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::machine::{Machine, Phase, Rates};
use crate::progress;
use crate::rows::{Peer, Row};
use crate::side::Side;

/// Rounds before measuring, where the fastest of several candidates of the peer is chosen in them.
const CHOOSING_ROUNDS: usize = 3;
/// Of a row of so few rounds each is so long that the first run, which warms up, is enough to choose by.
const FEW_ROUNDS: usize = 3;

/// Lets ours and the fastest of the peer's candidates take turns, and makes the row.
///
/// The ratio is the median over the rounds of theirs over ours within a round: on a machine that others use too,
/// neighbours in time are what can be compared.
pub(crate) fn compare(
    row: &Row,
    mut ours: Side,
    mut candidates: Vec<Side>,
    rounds: usize,
    machine: &Machine,
    folder: &Path,
) -> Result<Map<String, Value>> {
    let name = row.name;
    ours.run()?;
    let mut secs = vec![Vec::new(); candidates.len()];
    for (candidate, secs) in candidates.iter_mut().zip(&mut secs) {
        let warming = candidate.run()?;
        if row.rounds <= FEW_ROUNDS {
            secs.push(warming);
        }
    }
    let choosing = match row.rounds {
        ..=FEW_ROUNDS => 0,
        _ if candidates.len() > 1 => CHOOSING_ROUNDS.min(rounds),
        _ => 1,
    };
    for _ in 0..choosing {
        ours.run()?;
        for (candidate, secs) in candidates.iter_mut().zip(&mut secs) {
            secs.push(candidate.run()?);
        }
    }
    let medians: Vec<f64> = secs.iter().map(|secs| quantile(secs, 0.5)).collect();
    for (candidate, median) in candidates.iter().zip(&medians) {
        progress(format_args!("{name}: {} {:.2} ms", candidate.name, median * 1e3));
    }
    let best = (0..medians.len()).min_by(|a, b| medians[*a].total_cmp(&medians[*b])).context("no peer")?;
    let mut least_peak = f64::INFINITY;
    for candidate in &mut candidates {
        least_peak = least_peak.min(candidate.peak_mib()?);
    }
    let mut theirs = candidates.swap_remove(best);
    drop(candidates);

    let (mut our_secs, mut their_secs, mut rates) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..rounds {
        // Who goes first changes, so that neither always inherits the other's heat and cache.
        if round % 2 == 0 {
            our_secs.push(ours.run()?);
        }
        their_secs.push(theirs.run()?);
        if round % 2 == 1 {
            our_secs.push(ours.run()?);
        }
        rates.push(machine.measure());
        let (a, b) = (our_secs[round], their_secs[round]);
        progress(format_args!("{name}: round {round}: {:.2} ms against {:.2} ms", a * 1e3, b * 1e3));
    }
    let ratios: Vec<f64> = our_secs.iter().zip(&their_secs).map(|(ours, theirs)| theirs / ours).collect();
    let phases: Vec<Phase> = serde_json::from_value(ours.ready["phases"].clone())?;
    let peaks = (ours.peak_mib()?, theirs.peak_mib()?);
    let (worst, rel_l2) = difference(&ours.result(folder)?, &theirs.result(folder)?)?;
    // A comparison of different work is none. Sums that are added up in another order differ by rounding.
    anyhow::ensure!(rel_l2 < row.same, "results differ by {rel_l2:.1e} (relative L2), {:.0e} is allowed", row.same);
    let best = rates.iter().copied().reduce(Rates::best).context("no rounds")?;
    let mut value = json!({
        "row": name,
        "peer": theirs.name,
        "ours": quantile(&our_secs, 0.5) * 1e3,
        "theirs": quantile(&their_secs, 0.5) * 1e3,
        "unit": "ms",
        "ratio": quantile(&ratios, 0.5),
        "ratio_q1": quantile(&ratios, 0.25),
        "ratio_q3": quantile(&ratios, 0.75),
        "n": rounds,
        // A float in JSON's general form keeps small differences readable.
        "max_abs_difference": format!("{worst:.1e}"),
        "rel_l2_difference": format!("{rel_l2:.1e}"),
        "machine_gflops": best.flops / 1e9,
        "machine_gbytes": best.bytes / 1e9,
    });
    // Where the sides start processes, their own memory says nothing.
    if !matches!(row.peer, Peer::PythonCold(_)) {
        value["peak_mib_ours"] = json!(peaks.0);
        value["peak_mib_theirs"] = json!(peaks.1);
        value["peak_ratio"] = json!(peaks.0 / peaks.1);
    }
    if row.memory.is_some() {
        value["least_peak_mib_theirs"] = json!(least_peak);
    }
    if row.bf16 {
        value["machine_bf16_gflops"] = json!(best.bf16_flops.map(|f| f / 1e9));
    }
    if let Some(secs) = best.floor_secs(&phases) {
        // As with the ratio: what the machine could do just then, not what it could at its best moment.
        let floors = rates.iter().zip(&our_secs).filter_map(|(rates, ours)| Some(rates.floor_secs(&phases)? / ours));
        value["floor"] = json!(secs * 1e3);
        value["floor_fraction"] = json!(quantile(&floors.collect::<Vec<_>>(), 0.5));
    }
    Ok(finish(row, value.as_object().cloned().context("a row is an object")?))
}

/// Adds what the row is held to, and whether it was met.
pub(crate) fn finish(row: &Row, mut value: Map<String, Value>) -> Map<String, Value> {
    let number = |value: &Map<String, Value>, key: &str| value.get(key).and_then(Value::as_f64);
    let (ratio, floor) = (number(&value, "ratio"), number(&value, "floor_fraction"));
    let peak = number(&value, "peak_ratio");
    let bars = &row.bars;
    if let Some(bar) = bars.ratio {
        let by_floor = bars.floor.zip(floor).is_some_and(|(bar, floor)| floor >= bar);
        value.insert("bar".into(), json!(bar));
        if let Some(bar) = bars.floor {
            value.insert("bar_floor".into(), json!(bar));
        }
        value.insert("met".into(), json!(by_floor || ratio.is_some_and(|ratio| ratio >= bar)));
    }
    if let (Some(bar), Some(peak)) = (bars.peak, peak) {
        value.insert("bar_peak".into(), json!(bar));
        value.insert("peak_met".into(), json!(peak <= bar));
    }
    value
}

/// The row of the peaks of memory, where a row has one.
pub(crate) fn memory(row: &Row, value: &Map<String, Value>) -> Option<Map<String, Value>> {
    let (name, bar) = row.memory?;
    let number = |key: &str| value.get(key).and_then(Value::as_f64);
    let (ours, theirs) = (number("peak_mib_ours")?, number("least_peak_mib_theirs")?);
    let told = json!({
        "row": name, "peer": value.get("peer")?, "ours": ours, "theirs": theirs, "unit": "MiB", "ratio": theirs / ours,
        "n": value.get("n")?, "bar": bar, "met": theirs / ours >= bar,
    });
    told.as_object().cloned()
}

/// The q-quantile, between neighbours.
pub(crate) fn quantile(values: &[f64], q: f64) -> f64 {
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
