//! What every figure shares: the drawing area, axes in the house look, and the finished SVG element.

use std::fmt::Display;
use std::ops::Range;

use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{FigureError, Labels, Result, Size, theme};

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
pub(crate) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
pub(crate) type Ticks<'a> = &'a dyn Fn(f64) -> String;

/// Runs `draw` on an area of the figure's size and makes its SVG fit for a page.
pub(crate) fn render(labels: &Labels, size: Size, draw: impl FnOnce(&Area) -> Result<()>) -> Result<String> {
    // A chart smaller than its own labels has no inside left to draw in.
    let size = Size { width: size.width.clamp(160, 8192), height: size.height.clamp(110, 8192) };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (size.width, size.height)).into_drawing_area();
        draw(&area)?;
        area.present().map_err(failed)?;
    }
    Ok(responsive(&svg, labels, size))
}

/// An error of the drawing engine.
pub(crate) fn failed(error: impl Display) -> FigureError {
    FigureError::Draw(error.to_string())
}

/// Text in the house look.
pub(crate) fn text(size: u32) -> TextStyle<'static> {
    (theme::FONT, size).into_font().color(&theme::TEXT)
}

/// Axes, grid, title and labels over the given ranges.
pub(crate) fn chart<'a, 'b>(
    area: &'a Area<'b>,
    labels: &Labels,
    x: Range<f64>,
    y: Range<f64>,
    x_ticks: Ticks,
    y_ticks: Ticks,
) -> Result<Chart<'a, 'b>> {
    // The engine's ticks are sums of steps, which may miss zero by a rounding error.
    let snap =
        |value: f64, range: &Range<f64>| if value.abs() < 1e-9 * (range.end - range.start) { 0.0 } else { value };
    let (x_span, y_span) = (x.clone(), y.clone());
    let mut builder = ChartBuilder::on(area);
    builder.margin(6).margin_right(14);
    builder.x_label_area_size(if labels.x.is_empty() { 26 } else { 44 });
    builder.y_label_area_size(if labels.y.is_empty() { 44 } else { 60 });
    if !labels.title.is_empty() {
        builder.caption(plain(&labels.title), text(theme::TITLE_SIZE));
    }
    let mut chart = builder.build_cartesian_2d(x, y).map_err(failed)?;
    let (width, height) = area.dim_in_pixel();
    chart
        .configure_mesh()
        .axis_style(theme::AXIS)
        .bold_line_style(theme::AXIS.mix(theme::GRID_ALPHA))
        .light_line_style(TRANSPARENT)
        .disable_x_mesh()
        .label_style(text(theme::LABEL_SIZE))
        .axis_desc_style(text(theme::LABEL_SIZE))
        .x_labels((width as usize / 55).clamp(3, 10))
        .y_labels((height as usize / 50).clamp(2, 8))
        .x_label_formatter(&|v| x_ticks(snap(*v, &x_span)))
        .y_label_formatter(&|v| y_ticks(snap(*v, &y_span)))
        .x_desc(plain(&labels.x))
        .y_desc(plain(&labels.y))
        .draw()
        .map_err(failed)?;
    Ok(chart)
}

/// An honest figure of nothing.
pub(crate) fn empty(area: &Area, labels: &Labels) -> Result<()> {
    chart(area, labels, 0.0..1.0, 0.0..1.0, &|_| String::new(), &|_| String::new())?;
    let (width, height) = area.dim_in_pixel();
    let style = text(theme::LABEL_SIZE).pos(Pos::new(HPos::Center, VPos::Center));
    area.draw_text("no data", &style, (width as i32 / 2, height as i32 / 2)).map_err(failed)
}

/// Text without what XML forbids; the engine escapes the rest.
pub(crate) fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') { ' ' } else { c }).collect()
}

/// Replaces the opening tag by one that scales with its container and says what it shows.
fn responsive(svg: &str, labels: &Labels, Size { width, height }: Size) -> String {
    let body = svg.split_once('>').map_or("", |(_, body)| body);
    let name = if labels.title.is_empty() { format!("{} by {}", labels.y, labels.x) } else { labels.title.clone() };
    let name = escape(&plain(&name));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"100%\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-label=\"{name}\" class=\"figure\">{body}"
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
