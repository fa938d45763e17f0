//! The study's figures.

use std::path::Path;

use anyhow::Result;
use exegete_figure::{Labels, LineFigure, NetworkFigure, Scale, ScatterFigure, Series, Size, line, network, scatter};
use exegete_lab::bimt::formula::Formula;
use exegete_lab::bimt::graph::EDGE_SHARE;
use exegete_lab::bimt::train::Rung;
use exegete_lab::bimt::{GreedyRow, LadderRow, Report, Shown};

use super::tables::put;

/// Writes the figures that the report has data for, and gives their names.
pub(super) fn write(dir: &Path, report: &Report) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for shown in &report.shown {
        let rung = shown.rung.name().replace('+', "-");
        files.push((format!("network_{}_{rung}.svg", shown.task.name()), connections(shown)?));
        if shown.rung == Rung::L1LocalSwap {
            files.push((format!("curve_{}.svg", shown.task.name()), curve(shown)?));
        }
    }
    let formulas = report.settings.formulas();
    if !report.ladder.is_empty() {
        for &task in &formulas {
            files.push((format!("ladder_{}.svg", task.name()), ladder(report, task)?));
        }
    }
    for row in report.greedy.iter().filter(|row| row.method == "greedy") {
        let labels = Labels {
            title: format!("Greedy acceptance: {}", row.task.name()),
            x: "candidates tried".into(),
            y: "log10 validation MSE".into(),
        };
        let others = report.greedy.iter().filter(|r| r.task == row.task && !r.trials.is_empty());
        files.push((format!("greedy_{}.svg", row.task.name()), greedy(labels, others.collect())?));
    }
    for row in &report.smoothness {
        let is_pooled = formulas.iter().all(|f| f.name() != row.task);
        let y_scale = if is_pooled { Scale::Linear } else { Scale::Log10 };
        let of = if is_pooled { ", ranks within formulas" } else { "" };
        let figure = ScatterFigure {
            labels: Labels {
                title: format!("Smoothness of scaling: {}, Spearman {:.2}", row.task, row.roughness.value),
                x: format!("roughness of the curve of smaller widths{of}"),
                y: "test MSE at the last width".into(),
            },
            points: row.points.clone(),
            x_scale: Scale::Linear,
            y_scale,
            size: Size::default(),
        };
        files.push((format!("smoothness_{}.svg", row.task), scatter(&figure)?));
    }
    for (name, svg) in &files {
        put(dir, name, svg)?;
    }
    Ok(files.into_iter().map(|(name, _)| name).collect())
}

fn connections(shown: &Shown) -> Result<String> {
    let net = &shown.trained.net;
    let mse = shown.trained.curve.last().map_or(f64::NAN, |point| point.test_mse);
    let title = format!("{}, {}: test MSE {mse:.1e}", shown.task.name(), shown.rung.name());
    Ok(network(&NetworkFigure {
        labels: Labels { title, ..Labels::default() },
        layers: net.shape().to_vec(),
        weights: (0..net.depth()).map(|layer| net.weights(layer).to_vec()).collect(),
        inputs: net.in_perm.iter().map(|i| format!("x{}", i + 1)).collect(),
        outputs: net.out_perm.iter().map(|&o| shown.task.outputs()[o].to_owned()).collect(),
        threshold: EDGE_SHARE as f32,
        size: Size { width: 480, height: 120 + 90 * net.depth() as u32 },
    })?)
}

fn curve(shown: &Shown) -> Result<String> {
    let points = &shown.trained.curve;
    let series = |name: &str, y: Vec<f64>| Series { name: name.into(), y };
    Ok(line(&LineFigure {
        labels: Labels {
            title: format!("{}: errors while lambda rises and falls", shown.task.name()),
            x: "step".into(),
            y: "log10 MSE".into(),
        },
        x: points.iter().map(|p| p.step as f64).collect(),
        series: vec![
            series("training", points.iter().map(|p| p.train_mse.log10()).collect()),
            series("test", points.iter().map(|p| p.test_mse.log10()).collect()),
        ],
        ..LineFigure::default()
    })?)
}

/// The whole method stands on the left, so that the curves fall away from the legend.
fn ladder(report: &Report, task: Formula) -> Result<String> {
    let rows: Vec<&LadderRow> = report.ladder.iter().filter(|row| row.task == task).rev().collect();
    let series =
        |name: &str, f: fn(&LadderRow) -> f64| Series { name: name.into(), y: rows.iter().map(|row| f(row)).collect() };
    let names: Vec<String> = rows.iter().enumerate().map(|(i, row)| format!("{i}: {}", row.rung.name())).collect();
    Ok(line(&LineFigure {
        labels: Labels {
            title: format!("The ladder: {}, mean of {} seeds", task.name(), report.settings.seeds),
            x: names.join(", "),
            y: "Q, length".into(),
        },
        x: (0..rows.len()).map(|i| i as f64).collect(),
        series: vec![
            series("Q", |row| row.q.value),
            series("Q of rewired edges", |row| row.q_rewired.value),
            series("mean length", |row| row.mean_length.value),
        ],
        size: Size { width: 860, height: 400 },
        ..LineFigure::default()
    })?)
}

fn greedy(labels: Labels, rows: Vec<&GreedyRow>) -> Result<String> {
    let longest = rows.iter().map(|row| row.trials.len()).max().unwrap_or(0);
    let series = rows.iter().map(|row| {
        let error = |i: usize| row.trials.get(i).map_or(f64::NAN, |trial| trial.valid_mse.log10());
        Series { name: row.method.into(), y: (0..longest).map(error).collect() }
    });
    Ok(line(&LineFigure {
        labels,
        x: (1..=longest).map(|i| i as f64).collect(),
        series: series.collect(),
        ..LineFigure::default()
    })?)
}
