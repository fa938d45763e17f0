//! The figures of the pages.

use exegete_base::levels::lower_edge;
use exegete_base::stats::Estimate;
use exegete_figure::{
    HeatFigure, HistogramFigure, Labels, LineFigure, Marker, Result, Scale, Series, Size, heat_map, histogram, line,
};
use exegete_store::{BY_LAYER, SAID};

use crate::format::significant;
use crate::wire::{Density, LogitHistogram, MethodResult, TrainedDictionary, TrainingCurves, TrainingView};

/// Bins in a decade of firing rates.
const BINS_A_DECADE: f64 = 4.0;
/// From this ratio of the largest to the smallest value on, an axis has powers of ten.
const WIDE: f64 = 30.0;

fn labels(title: &str, x: &str, y: &str) -> Labels {
    Labels { title: title.into(), x: x.into(), y: y.into() }
}

/// How many of the latents that fired do so how often.
pub(crate) fn firing_rates(rates: &[Estimate]) -> Result<String> {
    let alive: Vec<f64> = rates.iter().map(|rate| rate.value).filter(|rate| *rate > 0.0).collect();
    let rarest = alive.iter().copied().fold(1.0, f64::min);
    let first = (rarest.log10() * BINS_A_DECADE).floor();
    let edge = |bin: usize| 10f64.powf((first + bin as f64) / BINS_A_DECADE);
    let busiest = alive.iter().copied().fold(rarest, f64::max);
    let n_bins = ((busiest.log10() * BINS_A_DECADE).floor() - first + 1.0).max(1.0) as usize;
    let mut heights = vec![0.0; n_bins];
    for rate in alive {
        let bin = (rate.log10() * BINS_A_DECADE - first).floor() as usize;
        heights[bin.min(n_bins - 1)] += 1.0;
    }
    histogram(&HistogramFigure {
        labels: labels("", "share of tokens on which a latent fires", "latents"),
        edges: (0..=n_bins).map(edge).collect(),
        heights,
        x_scale: Scale::Log10,
        size: Size { width: 520, height: 220 },
    })
}

/// A latent's firings by level, from the lowest level seen to the highest.
pub(crate) fn levels(firings: &[u64]) -> Result<String> {
    by_level(firings, "firings", Size { width: 380, height: 200 })
}

/// How many latents fired at each level, from the lowest level of any to the highest.
pub(crate) fn latents_by_level(latents: &[u64]) -> Result<String> {
    by_level(latents, "latents", Size { width: 520, height: 220 })
}

fn by_level(counts: &[u64], what: &str, size: Size) -> Result<String> {
    let first = counts.iter().position(|n| *n > 0).unwrap_or(0);
    let last = counts.iter().rposition(|n| *n > 0).unwrap_or(0);
    histogram(&HistogramFigure {
        labels: labels("", "activation", what),
        edges: (first..=last + 1).map(|level| f64::from(lower_edge(level))).collect(),
        heights: counts[first..=last].iter().map(|n| *n as f64).collect(),
        x_scale: Scale::Log2,
        size,
    })
}

/// The vocabulary's logits.
pub(crate) fn logits(logits: &LogitHistogram) -> Result<String> {
    let width = (f64::from(logits.high) - f64::from(logits.low)) / logits.counts.len() as f64;
    histogram(&HistogramFigure {
        labels: labels("", "logit", "tokens"),
        edges: (0..=logits.counts.len()).map(|i| f64::from(logits.low) + width * i as f64).collect(),
        heights: logits.counts.iter().map(|n| f64::from(*n)).collect(),
        x_scale: Scale::Linear,
        size: Size { width: 380, height: 180 },
    })
}

/// Firings by part of the window.
pub(crate) fn positions(positions: &[u64]) -> Result<String> {
    let part = 100.0 / positions.len() as f64;
    histogram(&HistogramFigure {
        labels: labels("", "place in the window (%)", "firings"),
        edges: (0..=positions.len()).map(|i| part * i as f64).collect(),
        heights: positions.iter().map(|n| *n as f64).collect(),
        x_scale: Scale::Linear,
        size: Size { width: 380, height: 170 },
    })
}

/// One chart a curve, marked where texts were chosen; curves of layers are one chart, a row a layer.
pub(crate) fn curves(result: &MethodResult) -> Vec<(String, Result<String>)> {
    let chosen = result.explanations.iter().filter(|e| e.scale.is_finite()).take(3);
    let markers: Vec<Marker> =
        chosen.map(|e| Marker { x: e.scale, label: significant(e.scale).trim_end_matches(".00").into() }).collect();
    let chart = |(name, y): (&String, &Vec<f64>)| {
        let figure = LineFigure {
            labels: labels("", "scale", ""),
            x: result.scales.clone(),
            series: vec![Series { name: name.clone(), y: y.clone() }],
            markers: markers.clone(),
            y_scale: Scale::Linear,
            size: Size { width: 290, height: 176 },
        };
        (name.clone(), line(&figure))
    };
    let mut charts: Vec<(String, Result<String>)> = plain_curves(result).map(chart).collect();
    let layers: Vec<(f64, &Vec<f64>)> = result
        .curves
        .iter()
        .filter_map(|(name, values)| Some((name.strip_prefix(BY_LAYER)?.parse().ok()?, values)))
        .filter(|(_, values)| values.len() == result.scales.len())
        .collect();
    if let (&[(first, _), ..], &[start, .., _]) = (layers.as_slice(), result.scales.as_slice()) {
        let step = result.scales[1] - start;
        let figure = HeatFigure {
            labels: labels("", "scale", "layer"),
            n_rows: layers.len(),
            n_columns: result.scales.len(),
            values: layers.iter().flat_map(|(_, values)| values.iter().copied()).collect(),
            row_edges: (0..=layers.len()).map(|i| first + i as f64).collect(),
            column_edges: (0..=result.scales.len()).map(|i| start + step * i as f64).collect(),
            size: Size { width: 290, height: 176 },
        };
        charts.push(("self-similarity after each layer".into(), heat_map(&figure)));
    }
    charts
}

/// The curves that are read one by one: none of a layer's, nor what is said where.
pub(crate) fn plain_curves(result: &MethodResult) -> impl Iterator<Item = (&String, &Vec<f64>)> {
    result.curves.iter().filter(|(name, _)| !name.starts_with(BY_LAYER) && *name != SAID)
}

/// A curve of each of the dictionaries that are drawn, over the steps. Their legend stands beside.
pub(crate) fn training(view: &TrainingView, name: &str, pick: fn(&TrainingCurves) -> &Vec<f64>) -> Result<String> {
    let of = |dictionary: &TrainedDictionary| {
        // One without steps keeps its colour.
        dictionary.curves.as_ref().map_or_else(|| vec![f64::NAN; view.steps.len()], |curves| pick(curves).clone())
    };
    let series: Vec<Series> =
        drawn(view).iter().map(|dictionary| Series { name: String::new(), y: of(dictionary) }).collect();
    let values = || series.iter().flat_map(|series| &series.y).copied().filter(|y| y.is_finite());
    let (low, high) = values().fold((f64::MAX, f64::MIN), |(low, high), y| (low.min(y), high.max(y)));
    let y_scale = if low > 0.0 && high / low > WIDE { Scale::Log10 } else { Scale::Linear };
    line(&LineFigure {
        labels: labels("", "step", name),
        x: view.steps.clone(),
        series,
        markers: Vec::new(),
        y_scale,
        size: Size { width: 560, height: 250 },
    })
}

/// The dictionaries that are drawn: a stretch of those that are listed.
pub(crate) fn drawn(view: &TrainingView) -> &[TrainedDictionary] {
    &view.dictionaries[view.drawn.clone()]
}

/// How often the latents of a dictionary fire, from the lowest rate of those that it is compared with.
pub(crate) fn density(density: &Density, lowest: f64, is_alone: bool) -> Result<String> {
    let bins: Vec<_> = density.bins.iter().filter(|bin| bin.low >= lowest).collect();
    histogram(&HistogramFigure {
        labels: labels("", "share of tokens", if is_alone { "latents" } else { "" }),
        edges: bins.first().map(|bin| bin.low).into_iter().chain(bins.iter().map(|bin| bin.high)).collect(),
        heights: bins.iter().map(|bin| bin.latents as f64).collect(),
        x_scale: Scale::Log10,
        size: if is_alone { Size { width: 560, height: 250 } } else { Size { width: 340, height: 180 } },
    })
}

/// The lowest rate at which a latent of any of these fires.
pub(crate) fn lowest_rate<'a>(densities: impl Iterator<Item = &'a Density>) -> f64 {
    let fired = densities.flat_map(|density| &density.bins).filter(|bin| bin.latents > 0);
    fired.map(|bin| bin.low).fold(0.01, f64::min)
}
