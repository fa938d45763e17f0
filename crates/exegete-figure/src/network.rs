//! A layered network with its connections.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::canvas::{Area, empty, failed, plain, render, text};
use crate::{Labels, Result, Size, check_length, theme};

/// A network of layers, inputs below, outputs above; neuron `j` of `n` stands at `(j + 0.5) / n` of the width.
///
/// A connection is drawn if its weight exceeds `threshold` times the largest; its width and strength of colour follow
/// the magnitude, its colour the sign. A neuron without a drawn connection is faint. A weight that is no number is
/// left out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NetworkFigure {
    /// Title; the labels of axes are not used.
    pub labels: Labels,
    /// Neurons in each layer.
    pub layers: Vec<usize>,
    /// Weights between neighbouring layers, [above, below], row by row.
    pub weights: Vec<Vec<f32>>,
    /// Names below the first layer; empty for none.
    pub inputs: Vec<String>,
    /// Names above the last layer; empty for none.
    pub outputs: Vec<String>,
    /// Share of the largest weight above which connections are drawn.
    pub threshold: f32,
    /// Size of the figure.
    pub size: Size,
}

/// Draws a network.
///
/// # Errors
/// [`crate::FigureError::Length`] if weights or names do not fit the layers.
pub fn network(figure: &NetworkFigure) -> Result<String> {
    check_length("weights", figure.weights.len(), figure.layers.len().saturating_sub(1))?;
    for (pair, weights) in figure.layers.windows(2).zip(&figure.weights) {
        check_length("a layer of weights", weights.len(), pair[0] * pair[1])?;
    }
    let ends = [("inputs", &figure.inputs, figure.layers.first()), ("outputs", &figure.outputs, figure.layers.last())];
    for (what, names, width) in ends {
        if !names.is_empty() {
            check_length(what, names.len(), width.copied().unwrap_or(0))?;
        }
    }
    render(&figure.labels, figure.size, |area| draw(area, figure))
}

/// Room left for names at both ends, and beside the outermost neurons.
const MARGIN: i32 = 26;
/// Widest line of a connection.
const WIDEST: f64 = 3.0;

fn draw(area: &Area, figure: &NetworkFigure) -> Result<()> {
    if figure.layers.iter().all(|n| *n == 0) {
        return empty(area, &figure.labels);
    }
    let (width, height) = area.dim_in_pixel();
    let (width, height) = (width as i32, height as i32);
    let title_room = if figure.labels.title.is_empty() { 0 } else { theme::TITLE_SIZE as i32 + 8 };
    let (top, bottom) = (title_room + MARGIN, height - MARGIN);
    let last = (figure.layers.len() - 1).max(1) as i32;
    let at = |layer: usize, j: usize| {
        let x = 8.0 + f64::from(width - 16) * (j as f64 + 0.5) / figure.layers[layer] as f64;
        (x as i32, bottom - (bottom - top) * layer as i32 / last)
    };
    let magnitude = |w: f32| if w.is_finite() { w.abs() } else { 0.0 };
    let largest = figure.weights.iter().flatten().fold(0f32, |most, w| most.max(magnitude(*w)));
    let mut edges = Vec::new();
    for (layer, weights) in figure.weights.iter().enumerate() {
        let below = figure.layers[layer];
        let seen = |w: f32| magnitude(w) > figure.threshold.max(0.0) * largest;
        let of_layer = weights.iter().enumerate().filter(|(_, w)| seen(**w));
        edges.extend(of_layer.map(|(idx, w)| (layer, idx % below, idx / below, *w)));
    }
    // Strong connections lie over weak ones.
    edges.sort_by(|a, b| magnitude(a.3).total_cmp(&magnitude(b.3)));
    let mut is_wired: Vec<Vec<bool>> = figure.layers.iter().map(|n| vec![false; *n]).collect();
    for (layer, from, to, weight) in edges {
        let share = f64::from(magnitude(weight) / largest);
        let colour = theme::colour(usize::from(weight < 0.0)).mix(0.35 + 0.65 * share);
        let style = colour.stroke_width((WIDEST * share).ceil().max(1.0) as u32);
        area.draw(&PathElement::new(vec![at(layer, from), at(layer + 1, to)], style)).map_err(failed)?;
        is_wired[layer][from] = true;
        is_wired[layer + 1][to] = true;
    }
    for (layer, wired) in is_wired.iter().enumerate() {
        for (j, is_wired) in wired.iter().enumerate() {
            let style = if *is_wired { theme::TEXT.filled() } else { theme::AXIS.mix(theme::GRID_ALPHA).filled() };
            area.draw(&Circle::new(at(layer, j), theme::POINT_RADIUS, style)).map_err(failed)?;
        }
    }
    let name = |name: &str, (x, y): (i32, i32), vertical: VPos| {
        let style = text(theme::LABEL_SIZE).pos(Pos::new(HPos::Center, vertical));
        area.draw_text(&plain(name), &style, (x, y)).map_err(failed)
    };
    if !figure.labels.title.is_empty() {
        let style = text(theme::TITLE_SIZE).pos(Pos::new(HPos::Center, VPos::Top));
        area.draw_text(&plain(&figure.labels.title), &style, (width / 2, 4)).map_err(failed)?;
    }
    for (j, input) in figure.inputs.iter().enumerate() {
        let (x, y) = at(0, j);
        name(input, (x, y + 7), VPos::Top)?;
    }
    for (j, output) in figure.outputs.iter().enumerate() {
        let (x, y) = at(figure.layers.len() - 1, j);
        name(output, (x, y - 7), VPos::Bottom)?;
    }
    Ok(())
}
