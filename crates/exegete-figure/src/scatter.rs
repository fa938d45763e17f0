//! Points in the plane.

use plotters::prelude::*;

use crate::axis::{Scale, drawable, range};
use crate::canvas::{Area, chart, empty, failed, render};
use crate::{Labels, Result, Size, theme};

/// Points in the plane. A point that is no number is left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ScatterFigure {
    /// Title and labels.
    pub labels: Labels,
    /// The points.
    pub points: Vec<(f64, f64)>,
    /// Scale of the horizontal axis.
    pub x_scale: Scale,
    /// Scale of the vertical axis.
    pub y_scale: Scale,
    /// Size of the figure.
    pub size: Size,
}

/// Draws points.
///
/// # Errors
/// [`crate::FigureError::Draw`] if the drawing engine refuses.
pub fn scatter(figure: &ScatterFigure) -> Result<String> {
    render(&figure.labels, figure.size, |area| draw(area, figure))
}

fn draw(area: &Area, figure: &ScatterFigure) -> Result<()> {
    let place = |&(x, y): &(f64, f64)| (figure.x_scale.place(x), figure.y_scale.place(y));
    let places: Vec<_> = figure.points.iter().map(place).filter(|(x, y)| drawable(*x) && drawable(*y)).collect();
    let (Some(x), Some(y)) = (range(places.iter().map(|p| p.0), 0.04), range(places.iter().map(|p| p.1), 0.06)) else {
        return empty(area, &figure.labels);
    };
    let (x_ticks, y_ticks) = (|v| figure.x_scale.label(v), |v| figure.y_scale.label(v));
    let mut chart = chart(area, &figure.labels, x, y, &x_ticks, &y_ticks)?;
    // Crowded points show their density by lying over one another.
    let alpha = if places.len() > 300 { 0.35 } else { theme::FILL_ALPHA };
    let style = theme::colour(0).mix(alpha).filled();
    chart.draw_series(places.into_iter().map(|p| Circle::new(p, theme::POINT_RADIUS, style))).map_err(failed)?;
    Ok(())
}
