//! The study's tables: lines for people, CSV files, and one JSON file that holds everything.

use std::path::Path;

use anyhow::{Context, Result};
use exegete_base::stats::Estimate;
use exegete_lab::bimt::Report;
use exegete_lab::bimt::train::Rung;

/// Writes the tables and gives their names.
pub(super) fn write(dir: &Path, report: &Report) -> Result<Vec<String>> {
    let tables = [
        ("formulas.csv", formulas(report)),
        ("ladder.csv", ladder(report)),
        ("greedy.csv", greedy(report)),
        ("smoothness.csv", smoothness(report)),
        ("scaling.csv", scaling(report)),
        ("runs.csv", runs(report)),
        ("curves.csv", curves(report)),
    ];
    let mut names = vec!["report.json".to_owned()];
    put(dir, "report.json", &(serde_json::to_string_pretty(report)? + "\n"))?;
    for (name, rows) in tables.into_iter().filter(|(_, rows)| rows.len() > 1) {
        put(dir, name, &(rows.join("\n") + "\n"))?;
        names.push(name.to_owned());
    }
    Ok(names)
}

/// Writes one file of the directory.
pub(super) fn put(dir: &Path, name: &str, text: &str) -> Result<()> {
    std::fs::write(dir.join(name), text).with_context(|| format!("cannot write {name}"))
}

/// What people read in the terminal.
pub(super) fn text(report: &Report) -> Vec<String> {
    let (settings, mut lines) = (&report.settings, Vec::new());
    if !report.formulas.is_empty() {
        let (steps, n, width) = (settings.steps, report.samples, settings.width);
        lines.push(format!(
            "Formulas: test MSE of BIMT, {steps} steps, width {width}, {n} training and {n} test samples"
        ));
        let names = ("task", "published", "first seed", "mean over seeds, 95 %", "at most twice published");
        lines.push(format!("{:<17}{:>10} {:>18}   {:<34}{}", names.0, names.1, names.2, names.3, names.4));
        for row in &report.formulas {
            let first = format!("{:.1e} (seed {})", row.first_test_mse, row.first_seed);
            let within = format!("{} of {} seeds", row.within_twice, row.test_mse.n);
            let (task, published, mean) = (row.task.name(), row.published_mse, small(row.test_mse));
            lines.push(format!("{task:<17}{published:>10.1e} {first:>18}   {mean:<34}{within}"));
        }
    }
    if !report.ladder.is_empty() {
        let title = "Ladder: Newman's Q, its gain over none, its excess over rewired edges, mean length of the wiring, \
                     ensemble index E, test MSE";
        lines.extend(["".into(), title.into()]);
        for row in &report.ladder {
            let gain = if row.rung == Rung::None { String::new() } else { format!("gain {}", range(row.q_gain)) };
            let (task, rung, length, mse) =
                (row.task.name(), row.rung.name(), row.mean_length.value, small(row.test_mse));
            let (q, excess, ensemble) = (range(row.q), range(row.q_excess), range(row.ensemble));
            lines.push(format!(
                "{task:<17}{rung:<14} Q {q:<21} {gain:<26} excess {excess:<22} length {length:.3}  E {ensemble:<21} {mse}"
            ));
        }
        lines.push(format!("n = {} seeds a row; [95 % intervals]", settings.seeds));
    }
    if !report.greedy.is_empty() {
        lines.extend(["".into(), "Greedy acceptance: units are kept if the validation error falls".into()]);
        for row in &report.greedy {
            let accepted = row.accepted.map_or(String::new(), |a| format!("accepted {} of {} tried", range(a), a.n));
            let (task, method, units, layers) = (row.task.name(), row.method, row.units.value, row.layers.value);
            let (mse, q, ensemble) = (small(row.test_mse), row.q.value, range(row.ensemble));
            lines.push(format!(
                "{task:<17}{method:<13} {units:>5.1} units in {layers:.1} layers  MSE {mse:<32} Q {q:.2}  E {ensemble:<21} \
                 {accepted}"
            ));
        }
        lines.push(format!("n = {} seeds a row; E needs two layers", settings.seeds));
    }
    if !report.smoothness.is_empty() {
        let title = "Smoothness: Spearman's correlation with the test error at the last width, of roughness and of the \
                     curve's last loss";
        lines.extend(["".into(), title.into()]);
        for row in &report.smoothness {
            let (task, n, rough, p, loss) =
                (&row.task, row.roughness.n, range(row.roughness), row.permutation_p, range(row.last_loss));
            lines.push(format!(
                "{task:<17}roughness {rough:<23} p {p:.3} (random pairings)   last loss {loss:<23} n = {n} architectures"
            ));
        }
    }
    lines
}

/// `0.41 [0.38, 0.44]`; without bounds where there are none.
fn range(e: Estimate) -> String {
    if e.value.is_nan() {
        return "-".into();
    }
    if e.low.is_finite() && e.high.is_finite() {
        return format!("{:.2} [{:.2}, {:.2}]", e.value, e.low, e.high);
    }
    format!("{:.2}", e.value)
}

/// `7.4e-3 [6.1e-3, 9.0e-3] n=10`.
fn small(e: Estimate) -> String {
    if e.low > 0.0 && e.high.is_finite() {
        return format!("{:.1e} [{:.1e}, {:.1e}] n={}", e.value, e.low, e.high, e.n);
    }
    format!("{:.1e} n={}", e.value, e.n)
}

/// Value, bounds and n as cells; what is no number is empty.
fn cells(e: Estimate) -> String {
    let cell = |v: f64| if v.is_finite() { v.to_string() } else { String::new() };
    format!("{},{},{},{}", cell(e.value), cell(e.low), cell(e.high), e.n)
}

fn head(name: &str) -> String {
    format!("{name},{name}_low,{name}_high,{name}_n")
}

fn formulas(report: &Report) -> Vec<String> {
    let mut rows =
        vec![format!("task,depth,published_mse,first_seed,first_test_mse,{},within_twice", head("test_mse"))];
    rows.extend(report.formulas.iter().map(|r| {
        let (task, mse) = (r.task.name(), cells(r.test_mse));
        let (published, first) = (r.published_mse, r.first_test_mse);
        format!("{task},{},{published},{},{first},{mse},{}", r.depth, r.first_seed, r.within_twice)
    }));
    rows
}

fn ladder(report: &Report) -> Vec<String> {
    let names = ["q", "q_rewired", "q_excess", "q_gain", "mean_length", "ensemble", "test_mse"].map(head);
    let mut rows = vec![format!("task,rung,{}", names.join(","))];
    rows.extend(report.ladder.iter().map(|r| {
        let values = [r.q, r.q_rewired, r.q_excess, r.q_gain, r.mean_length, r.ensemble, r.test_mse].map(cells);
        format!("{},{},{}", r.task.name(), r.rung.name(), values.join(","))
    }));
    rows
}

fn greedy(report: &Report) -> Vec<String> {
    let names = ["units", "layers", "accepted", "test_mse", "q", "ensemble"].map(head);
    let mut rows = vec![format!("task,method,{}", names.join(","))];
    let nothing = Estimate { value: f64::NAN, low: f64::NAN, high: f64::NAN, n: 0 };
    rows.extend(report.greedy.iter().map(|r| {
        let accepted = r.accepted.unwrap_or(nothing);
        let values = [r.units, r.layers, accepted, r.test_mse, r.q, r.ensemble].map(cells);
        format!("{},{},{}", r.task.name(), r.method, values.join(","))
    }));
    rows
}

fn smoothness(report: &Report) -> Vec<String> {
    let mut rows = vec![format!("task,{},permutation_p,{}", head("roughness"), head("last_loss"))];
    rows.extend(
        report
            .smoothness
            .iter()
            .map(|r| format!("{},{},{},{}", r.task, cells(r.roughness), r.permutation_p, cells(r.last_loss))),
    );
    rows
}

fn scaling(report: &Report) -> Vec<String> {
    let mut rows = vec![format!("task,depth,rung,width,compute,{},{}", head("valid_mse"), head("test_mse"))];
    rows.extend(report.scaling.iter().map(|r| {
        let (task, rung, valid, test) = (r.task.name(), r.rung.name(), cells(r.valid_mse), cells(r.test_mse));
        format!("{task},{},{rung},{},{},{valid},{test}", r.depth, r.width, r.compute)
    }));
    rows
}

fn runs(report: &Report) -> Vec<String> {
    let names = "task,rung,seed,train_mse,test_mse,cost,q,q_rewired,communities,edges,mean_length,ensemble,swaps";
    let mut rows = vec![names.to_owned()];
    rows.extend(report.runs.iter().map(|r| {
        let ensemble = r.ensemble.map_or(String::new(), |e| e.to_string());
        let (task, rung, errors) = (r.task.name(), r.rung.name(), format!("{},{}", r.train_mse, r.test_mse));
        let graph = format!("{},{},{},{},{}", r.q, r.q_rewired, r.communities, r.edges, r.mean_length);
        format!("{task},{rung},{},{errors},{},{graph},{ensemble},{}", r.seed, r.cost, r.swaps)
    }));
    rows
}

fn curves(report: &Report) -> Vec<String> {
    let mut rows = vec!["task,rung,step,train_mse,test_mse,cost".to_owned()];
    for shown in &report.shown {
        rows.extend(shown.trained.curve.iter().map(|p| {
            let (task, rung) = (shown.task.name(), shown.rung.name());
            format!("{task},{rung},{},{},{},{}", p.step, p.train_mse, p.test_mse, p.cost)
        }));
    }
    rows
}
