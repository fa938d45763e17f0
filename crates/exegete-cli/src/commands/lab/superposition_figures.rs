//! Figures of `exegete lab superposition`.

use anyhow::Result;
use exegete_figure::{HeatFigure, Labels, LineFigure, Scale, ScatterFigure, Series, Size, heat_map, line, scatter};
use exegete_lab::superposition::Report;
use exegete_lab::superposition::dimensions::Level;
use exegete_lab::superposition::phases::{Cell, Phase};
use exegete_lab::superposition::widths::{BALANCED, naive_mse};

/// Every figure under its file's name.
pub(crate) fn all(report: &Report) -> Result<Vec<(&'static str, String)>> {
    let trained = |cell: &Cell| shade(cell.phase, cell.weights[1].abs().min(1.0));
    let predicted = |cell: &Cell| shade(cell.predicted, 1.0);
    Ok(vec![
        ("phases.svg", phases(report, "Extra feature, trained", &trained)?),
        ("phases-predicted.svg", phases(report, "Extra feature, smallest expected loss", &predicted)?),
        ("dimensionality.svg", dimensionality(report)?),
        ("pairs.svg", pairs(report)?),
        ("probe.svg", probe(report)?),
        ("uand.svg", uand(report)?),
    ])
}

/// The first colour for a dimension of its own, the second for superposition, nothing for what is not represented.
fn shade(phase: Phase, strength: f64) -> f64 {
    match phase {
        Phase::OwnDimension => strength,
        Phase::Superposition => -strength,
        Phase::NotRepresented => 0.0,
        Phase::Other => f64::NAN,
    }
}

fn phases(report: &Report, what: &str, value: &dyn Fn(&Cell) -> f64) -> Result<String> {
    let n = report.settings.grid;
    // Importance grows upwards.
    let values = report.phases.cells.chunks(n).rev().flatten().map(value).collect();
    let row_edges = report.settings.grid_importance_edges().into_iter().rev().collect();
    Ok(heat_map(&HeatFigure {
        labels: Labels {
            title: format!("{what}: blue alone, orange antipodal, blank dropped"),
            x: "density 1 - S".into(),
            y: "relative importance".into(),
        },
        n_rows: n,
        n_columns: n,
        values,
        row_edges,
        column_edges: report.settings.grid_density_edges(),
        size: Size { width: 560, height: 380 },
    })?)
}

fn dimensionality(report: &Report) -> Result<String> {
    let of =
        |level: &Level| level.dimensionality_F.iter().map(|value| (1.0 / level.density, *value)).collect::<Vec<_>>();
    let (n, m) = (report.settings.features, report.settings.hidden);
    Ok(scatter(&ScatterFigure {
        labels: Labels {
            title: format!("Dimensionality of {n} features in {m} dimensions"),
            x: "1 / (1 - S)".into(),
            y: "D_i".into(),
        },
        points: report.dimensions.iter().flat_map(of).collect(),
        x_scale: Scale::Log2,
        size: Size { width: 560, height: 340 },
        ..ScatterFigure::default()
    })?)
}

fn pairs(report: &Report) -> Result<String> {
    let levels = &report.dimensions;
    let series = |name: &str, value: &dyn Fn(usize) -> f64| Series {
        name: name.into(),
        y: (0..levels.len()).map(value).collect(),
    };
    Ok(line(&LineFigure {
        labels: Labels {
            title: "Dimensions per feature, and features in antipodal pairs".into(),
            x: "log2 of 1 / (1 - S)".into(),
            y: "share".into(),
        },
        x: levels.iter().map(|level| -level.density.log2()).collect(),
        series: vec![
            series("m / |W|^2", &|i| levels[i].dimensions_per_feature),
            series("in antipodal pairs", &|i| levels[i].in_pairs.value),
        ],
        size: Size { width: 560, height: 300 },
        ..LineFigure::default()
    })?)
}

/// Capacities in order, so that features stand at their share of all features.
fn probe(report: &Report) -> Result<String> {
    const PLACES: usize = 41;
    let sorted = |name: String, capacities: &[f64]| {
        let mut sorted = capacities.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        let at = |i: usize| sorted.get(i * last / (PLACES - 1)).copied().unwrap_or(f64::NAN);
        Series { name, y: (0..PLACES).map(at).collect() }
    };
    // Built layers whose features share dimensions somewhere, and the trained one with more features than neurons.
    let cases: Vec<_> = report.probes.iter().filter(|case| case.truth.as_deref() != Some("none")).collect();
    let shown = [("superposed", 0), ("one-hot", 1), ("trained", cases.len().saturating_sub(1))];
    let series =
        shown.into_iter().filter_map(|(name, at)| cases.get(at).map(|case| (name, case))).flat_map(|(name, case)| {
            [
                sorted(format!("{name}, hidden"), &case.probe.capacity_hidden_F),
                sorted(format!("{name}, output"), &case.probe.capacity_output_F),
            ]
        });
    Ok(line(&LineFigure {
        labels: Labels {
            title: "Capacity before and after the projection".into(),
            x: "share of features, from the smallest capacity".into(),
            y: "D_i".into(),
        },
        x: (0..PLACES).map(|i| i as f64 / (PLACES - 1) as f64).collect(),
        series: series.collect(),
        size: Size { width: 560, height: 340 },
        ..LineFigure::default()
    })?)
}

/// Measured errors as points on the lines of the expected ones. Points of a series stand alone where its neighbours are
/// no numbers, so a place without measurement is put between every two widths.
fn uand(report: &Report) -> Result<String> {
    let Some(first) = report.uand.first() else { return Ok(line(&LineFigure::default())?) };
    let mut widths: Vec<u64> = first.widths.iter().map(|w| w.d).collect();
    widths.sort_unstable();
    widths.dedup();
    let between = widths.windows(2).map(|pair| ((pair[0] * pair[1]) as f64).sqrt() as u64);
    let mut places: Vec<u64> = widths.iter().copied().chain(between).collect();
    places.sort_unstable();
    let y = |value: &dyn Fn(u64) -> Option<f64>| -> Vec<f64> {
        let log = |d: &u64| value(*d).filter(|v| *v > 0.0).map_or(f64::NAN, f64::log10);
        places.iter().map(log).collect()
    };
    let mut series = Vec::new();
    for sweep in &report.uand {
        let name = sweep.design.name();
        let expected = |d: u64| {
            let classes = sweep.design.expected_mse(d as usize, sweep.inputs.active);
            Some(classes.iter().zip(BALANCED).map(|(mse, share)| mse * share).sum::<f64>().sqrt())
        };
        let measured = |d: u64| sweep.widths.iter().find(|w| w.d == d).map(|w| w.rms.value);
        series.push(Series { name: format!("{name}, expected"), y: y(&expected) });
        series.push(Series { name: format!("{name}, measured"), y: y(&measured) });
    }
    // Nothing is left of the baseline's error where every AND has a neuron.
    let naive = |d: u64| Some(naive_mse(first.inputs, d as usize, BALANCED).sqrt());
    series.push(Series { name: "one AND per neuron".into(), y: y(&naive) });
    Ok(line(&LineFigure {
        labels: Labels {
            title: format!("Universal AND of {} pairs: root mean square error", first.n_pairs),
            x: "log2 of neurons".into(),
            y: "log10 of error".into(),
        },
        x: places.iter().map(|d| (*d as f64).log2()).collect(),
        series,
        size: Size { width: 560, height: 340 },
        ..LineFigure::default()
    })?)
}
