//! A matrix as coloured cells.

use plotters::prelude::*;

use crate::axis::{drawable, range, short};
use crate::canvas::{Area, chart, empty, failed, render};
use crate::{Labels, Result, Size, check_length, theme};

/// A matrix as cells: zero is transparent, the strongest value opaque, negative values in a second colour.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeatFigure {
    /// Title and labels.
    pub labels: Labels,
    /// Number of rows, drawn from the top.
    pub n_rows: usize,
    /// Number of columns.
    pub n_columns: usize,
    /// Values, row after row; one that is no number stays blank.
    pub values: Vec<f64>,
    /// What stands at the rows' edges, from the top: one more than rows, or none for their numbers.
    pub row_edges: Vec<f64>,
    /// What stands at the columns' edges, from the left: one more than columns, or none for their numbers.
    pub column_edges: Vec<f64>,
    /// Size of the figure.
    pub size: Size,
}

/// Draws a matrix.
///
/// # Errors
/// [`crate::FigureError::Length`] if the values do not fill the matrix, or edges are given that do not fit it.
pub fn heat_map(figure: &HeatFigure) -> Result<String> {
    check_length("values", figure.values.len(), figure.n_rows.saturating_mul(figure.n_columns))?;
    for (what, edges, n) in
        [("row edges", &figure.row_edges, figure.n_rows), ("column edges", &figure.column_edges, figure.n_columns)]
    {
        if !edges.is_empty() {
            check_length(what, edges.len(), n.saturating_add(1))?;
        }
    }
    render(&figure.labels, figure.size, |area| draw(area, figure))
}

fn draw(area: &Area, figure: &HeatFigure) -> Result<()> {
    let Some(strengths) = range(figure.values.iter().map(|v| v.abs()), 0.0) else {
        return empty(area, &figure.labels);
    };
    let (n_rows, n_columns) = (figure.n_rows as f64, figure.n_columns as f64);
    let row_ticks = |y: f64| tick(&figure.row_edges, n_rows - y);
    let column_ticks = |x: f64| tick(&figure.column_edges, x);
    let mut chart = chart(area, &figure.labels, 0.0..n_columns, 0.0..n_rows, &column_ticks, &row_ticks)?;
    let cells = figure.values.iter().enumerate().filter(|(_, value)| drawable(**value)).map(|(idx, &value)| {
        let (row, column) = ((idx / figure.n_columns) as f64, (idx % figure.n_columns) as f64);
        let colour = theme::colour(usize::from(value < 0.0)).mix((value.abs() / strengths.end).clamp(0.0, 1.0));
        Rectangle::new([(column, n_rows - row), (column + 1.0, n_rows - row - 1.0)], colour.filled())
    });
    chart.draw_series(cells).map_err(failed)?;
    Ok(())
}

/// What stands at a place counted in cells. Edges are where ticks are; a tick between two has no label of its own.
fn tick(edges: &[f64], place: f64) -> String {
    match edges.get(place.round() as usize) {
        _ if edges.is_empty() => short(place),
        Some(edge) if (place - place.round()).abs() < 1e-6 => short(*edge),
        _ => String::new(),
    }
}
