//! Bars over given bins.

use plotters::prelude::*;

use crate::axis::{Scale, drawable, range, short};
use crate::canvas::{Area, chart, empty, failed, render};
use crate::{FigureError, Labels, Result, Size, check_length, theme};

/// Bars of given height over given bins.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HistogramFigure {
    /// Title and labels.
    pub labels: Labels,
    /// Edges of the bins, ascending: one more than bars.
    pub edges: Vec<f64>,
    /// Heights of the bars.
    pub heights: Vec<f64>,
    /// Scale of the horizontal axis, on which geometric bins are equally wide.
    pub x_scale: Scale,
    /// Size of the figure.
    pub size: Size,
}

/// Draws bars.
///
/// # Errors
/// [`FigureError::Length`] if edges and heights do not fit, [`FigureError::Edges`] if the edges do not ascend.
pub fn histogram(figure: &HistogramFigure) -> Result<String> {
    check_length("edges", figure.edges.len(), figure.heights.len() + 1)?;
    let places: Vec<f64> = figure.edges.iter().map(|&edge| figure.x_scale.place(edge)).collect();
    if !places.iter().all(|&p| drawable(p)) || !places.is_sorted_by(|a, b| a < b) {
        return Err(FigureError::Edges);
    }
    render(&figure.labels, figure.size, |area| draw(area, figure, &places))
}

fn draw(area: &Area, figure: &HistogramFigure, places: &[f64]) -> Result<()> {
    let heights = figure.heights.iter().copied();
    let (Some(x), Some(y)) = (range(places.iter().copied(), 0.01), range(heights.clone().chain([0.0]), 0.0)) else {
        return empty(area, &figure.labels);
    };
    if !heights.clone().any(|height| drawable(height) && height != 0.0) {
        return empty(area, &figure.labels);
    }
    let y = y.start..y.end + (y.end - y.start) * 0.05;
    let ticks = |place: f64| figure.x_scale.label(place);
    let mut chart = chart(area, &figure.labels, x, y, &ticks, &short)?;
    let bars = places.windows(2).zip(heights).filter(|(_, height)| drawable(*height) && *height != 0.0);
    let style = theme::colour(0).mix(theme::FILL_ALPHA).filled();
    chart
        .draw_series(bars.map(|(edge, height)| {
            let mut bar = Rectangle::new([(edge[0], 0.0), (edge[1], height)], style);
            bar.set_margin(0, 0, 1, 0);
            bar
        }))
        .map_err(failed)?;
    Ok(())
}
