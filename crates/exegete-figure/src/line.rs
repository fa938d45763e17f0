//! Lines over a common axis, with optional vertical markers.

use std::ops::Range;

use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::axis::{Scale, drawable, range, short};
use crate::canvas::{Area, Chart, chart, empty, failed, plain, render, text};
use crate::{Labels, Result, Size, check_length, theme};

/// Lengths of a dashed line's dashes and gaps.
const DASH: i32 = 5;
const GAP: i32 = 3;
/// Length of the piece of a line in the legend.
const KEY: i32 = 14;
/// Height of a row of the legend.
const ROW: i32 = 21;
/// Where a legend beside the lines begins.
const ABOVE_LEGEND: i32 = 34;
/// The largest share of the lines' width that a legend may take beside them.
const MOST_BESIDE: f64 = 0.4;

/// Named lines over a common axis.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LineFigure {
    /// Title and labels.
    pub labels: Labels,
    /// Places of the points.
    pub x: Vec<f64>,
    /// The lines; a single one needs no legend, and lines without names have none.
    pub series: Vec<Series>,
    /// Vertical lines.
    pub markers: Vec<Marker>,
    /// Scale of the vertical axis. Values that have no place on it leave gaps.
    pub y_scale: Scale,
    /// Size of the figure.
    pub size: Size,
}

/// One line: a value for each `x`. A value that is no number leaves a gap.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Series {
    /// Name in the legend.
    pub name: String,
    /// Values.
    pub y: Vec<f64>,
}

/// A vertical line at a place of note.
#[derive(Debug, Clone, PartialEq)]
pub struct Marker {
    /// The place.
    pub x: f64,
    /// What it marks.
    pub label: String,
}

/// Draws lines.
///
/// # Errors
/// [`crate::FigureError::Length`] if a series does not fit `x`.
pub fn line(figure: &LineFigure) -> Result<String> {
    for series in &figure.series {
        check_length(&format!("series {:?}", series.name), series.y.len(), figure.x.len())?;
    }
    let place = |series: &Series| Series {
        name: series.name.clone(),
        y: series.y.iter().map(|y| figure.y_scale.place(*y)).collect(),
    };
    let placed = LineFigure { series: figure.series.iter().map(place).collect(), ..figure.clone() };
    render(&figure.labels, figure.size, |area| draw(area, &placed))
}

/// A short piece of the line of the `idx`-th series, for a legend beside the figure.
pub fn swatch(idx: usize) -> String {
    let RGBColor(r, g, b) = theme::colour(idx);
    let dashes = if is_dashed(idx) { format!(" stroke-dasharray=\"{DASH} {GAP}\"") } else { String::new() };
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"22\" height=\"10\" viewBox=\"0 0 22 10\" aria-hidden=\"true\" \
         class=\"swatch\"><line x1=\"0\" y1=\"5\" x2=\"22\" y2=\"5\" stroke=\"#{r:02x}{g:02x}{b:02x}\" \
         stroke-width=\"{}\"{dashes}/></svg>",
        theme::LINE_WIDTH + 1
    )
}

/// Where colours come again, lines are dashed.
fn is_dashed(idx: usize) -> bool {
    idx / theme::PALETTE.len() % 2 == 1
}

fn draw(area: &Area, figure: &LineFigure) -> Result<()> {
    let points = || {
        let of = |series: &'_ Series| figure.x.iter().copied().zip(series.y.iter().copied()).collect::<Vec<_>>();
        figure.series.iter().flat_map(of).filter(|(x, y)| drawable(*x) && drawable(*y))
    };
    let marks = figure.markers.iter().map(|m| m.x);
    let (Some(x), Some(y)) = (range(points().map(|p| p.0).chain(marks), 0.02), range(points().map(|p| p.1), 0.08))
    else {
        return empty(area, &figure.labels);
    };
    if points().next().is_none() {
        return empty(area, &figure.labels);
    }
    let y_ticks = |place: f64| figure.y_scale.label(place);
    let has_legend = figure.series.len() > 1 && figure.series.iter().any(|series| !series.name.is_empty());
    let place = if has_legend { legend_place(figure, &x, &y) } else { None };
    let beside = has_legend && place.is_none();
    let (width, _) = area.dim_in_pixel();
    let (area, right) =
        area.split_horizontally(if beside { width.saturating_sub(legend_width(figure)) } else { width });
    let mut chart = chart(&area, &figure.labels, x.clone(), y.clone(), &short, &y_ticks)?;
    draw_markers(&mut chart, &figure.markers, y.clone())?;
    for (idx, series) in figure.series.iter().enumerate() {
        draw_series(&mut chart, idx, &figure.x, series)?;
    }
    if let Some(place) = place {
        chart
            .configure_series_labels()
            .position(place)
            .label_font(text(theme::LABEL_SIZE))
            .legend_area_size(KEY + 4)
            .draw()
            .map_err(failed)?;
    } else if beside {
        let style = text(theme::LABEL_SIZE).pos(Pos::new(HPos::Left, VPos::Center));
        for (idx, series) in figure.series.iter().enumerate() {
            let y = ABOVE_LEGEND + ROW / 2 + ROW * idx as i32;
            right.draw(&key(idx, (0, y))).map_err(failed)?;
            right.draw_text(&plain(&series.name), &style, (KEY + 6, y)).map_err(failed)?;
        }
    }
    Ok(())
}

/// The piece of a line that stands before its name. An unbroken one is one dash.
fn key(idx: usize, (x, y): (i32, i32)) -> DashedPathElement<std::array::IntoIter<(i32, i32), 2>, i32> {
    let style = theme::colour(idx).stroke_width(theme::LINE_WIDTH);
    DashedPathElement::new([(x, y), (x + KEY, y)], if is_dashed(idx) { DASH } else { KEY }, GAP, style)
}

/// About the width that the longest name takes with its key, in pixels.
fn legend_width(figure: &LineFigure) -> u32 {
    let letters = figure.series.iter().map(|s| s.name.chars().count()).max().unwrap_or(0);
    40 + 7 * letters as u32
}

/// Where the legend lies inside and hides nothing of the lines, upper right where that is as good as any other place; none
/// where there is no such place, and room beside the lines.
fn legend_place(figure: &LineFigure, x: &Range<f64>, y: &Range<f64>) -> Option<SeriesLabelPosition> {
    use SeriesLabelPosition::{LowerLeft, LowerRight, MiddleLeft, MiddleRight, UpperLeft, UpperRight};
    let (total_width, total_height) = (figure.size.width.max(161), figure.size.height.max(111));
    // About what the engine takes, as shares of the plotting area.
    let width = f64::from(legend_width(figure)) / f64::from(total_width - 80);
    let rows = 10 + ROW * figure.series.len() as i32;
    let height = f64::from(rows) / f64::from(total_height - 80);
    let hidden = |(_, left, low): &(SeriesLabelPosition, f64, f64)| {
        let inside = |px: f64, py: f64| (*left..=left + width).contains(&px) && (*low..=low + height).contains(&py);
        let place = |i: usize, s: &Series| {
            ((figure.x[i] - x.start) / (x.end - x.start), (s.y[i] - y.start) / (y.end - y.start))
        };
        let of_line = |s: &Series| -> usize {
            let between = |i: usize, step: usize| {
                let ((ax, ay), (bx, by), t) = (place(i - 1, s), place(i, s), step as f64 / 8.0);
                inside(ax + t * (bx - ax), ay + t * (by - ay))
            };
            (1..figure.x.len()).map(|i| (0..=8).filter(|step| between(i, *step)).count()).sum()
        };
        figure.series.iter().map(of_line).sum::<usize>()
    };
    let (right, top, middle) = (1.0 - width, 1.0 - height, 0.5 - height / 2.0);
    let places = [
        (UpperRight, right, top),
        (UpperLeft, 0.0, top),
        (MiddleRight, right, middle),
        (MiddleLeft, 0.0, middle),
        (LowerRight, right, 0.0),
        (LowerLeft, 0.0, 0.0),
    ];
    let (n, place) = places.into_iter().map(|place| (hidden(&place), place.0)).min_by_key(|(n, _)| *n)?;
    let fits = width < MOST_BESIDE && ABOVE_LEGEND + rows <= total_height as i32;
    (n == 0 || !fits).then_some(place)
}

fn draw_series(chart: &mut Chart, idx: usize, x: &[f64], series: &Series) -> Result<()> {
    let style = theme::colour(idx).stroke_width(theme::LINE_WIDTH);
    let all: Vec<(f64, f64)> = x.iter().copied().zip(series.y.iter().copied()).collect();
    let mut is_named = false;
    for run in all.split(|(x, y)| !drawable(*x) || !drawable(*y)).filter(|run| !run.is_empty()) {
        let drawn = if run.len() == 1 {
            // A lone point between gaps has no line to lie on.
            let dots = run.iter().map(|&p| Circle::new(p, theme::POINT_RADIUS, style.filled()));
            chart.draw_series(dots).map_err(failed)?
        } else if is_dashed(idx) {
            chart.draw_series(DashedLineSeries::new(run.iter().copied(), DASH, GAP, style)).map_err(failed)?
        } else {
            chart.draw_series(LineSeries::new(run.iter().copied(), style)).map_err(failed)?
        };
        if !std::mem::replace(&mut is_named, true) {
            drawn.label(plain(&series.name)).legend(move |at| key(idx, at));
        }
    }
    Ok(())
}

fn draw_markers(chart: &mut Chart, markers: &[Marker], y: Range<f64>) -> Result<()> {
    let style = theme::AXIS.stroke_width(1);
    for (idx, marker) in markers.iter().filter(|m| drawable(m.x)).enumerate() {
        let ends = [(marker.x, y.start), (marker.x, y.end)];
        chart.draw_series(DashedLineSeries::new(ends, 4, 4, style)).map_err(failed)?;
        // Labels of near markers stand beneath one another.
        let (px, py) = chart.backend_coord(&(marker.x, y.end));
        let (left, top) = chart.plotting_area().get_base_pixel();
        let width = chart.plotting_area().dim_in_pixel().0 as i32;
        let near_right = px - left > width * 2 / 3;
        let (anchor, dx) = if near_right { (HPos::Right, -4) } else { (HPos::Left, 4) };
        let label_style = text(theme::LABEL_SIZE - 1).pos(Pos::new(anchor, VPos::Top));
        let place = (px - left + dx, py - top + 2 + 14 * idx as i32);
        chart
            .plotting_area()
            .strip_coord_spec()
            .draw_text(&plain(&marker.label), &label_style, place)
            .map_err(failed)?;
    }
    Ok(())
}
