//! Figures from outside: well-formed, escaped, finite, whatever the data.

use exegete_figure::{
    FigureError, HeatFigure, HistogramFigure, Labels, LineFigure, Marker, NetworkFigure, Scale, ScatterFigure, Series,
    Size, heat_map, histogram, line, network, scatter, swatch,
};
use proptest::prelude::*;

/// Parses the SVG and checks what holds for every figure; returns all text in it.
fn check(svg: &str) -> String {
    let document = roxmltree::Document::parse(svg).expect("well-formed XML");
    let root = document.root_element();
    assert_eq!(root.tag_name().name(), "svg");
    assert_eq!(root.attribute("width"), Some("100%"));
    assert!(root.attribute("viewBox").is_some() && root.attribute("role") == Some("img"));
    for node in document.descendants() {
        for attribute in node.attributes().filter(|a| a.name() != "aria-label") {
            let value = attribute.value();
            assert!(!value.contains("NaN") && !value.contains("inf"), "{}: {value}", attribute.name());
        }
        assert!(!node.has_tag_name("script") && node.attributes().all(|a| a.name() != "style"));
    }
    document.descendants().filter(|n| n.is_text()).filter_map(|n| n.text()).collect::<Vec<_>>().join("|")
}

fn labels(title: &str) -> Labels {
    Labels { title: title.into(), x: "scale".into(), y: "entropy".into() }
}

fn series(name: &str, y: &[f64]) -> Series {
    Series { name: name.into(), y: y.to_vec() }
}

#[test]
fn lines_carry_title_labels_legend_and_markers() {
    let figure = LineFigure {
        labels: labels("Curves"),
        x: vec![0.0, 1.0, 2.0],
        series: vec![series("one", &[1.0, 2.0, 3.0]), series("two", &[3.0, f64::NAN, 1.0])],
        markers: vec![Marker { x: 1.5, label: "chosen".into() }],
        ..LineFigure::default()
    };
    let text = check(&line(&figure).unwrap());
    for part in ["Curves", "scale", "entropy", "one", "two", "chosen"] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
}

#[test]
fn powers_of_ten_are_equally_far_apart_and_what_has_no_place_is_a_gap() {
    let y = [100.0, 10.0, 0.0, 1.0, 0.1];
    let figure = LineFigure {
        x: (0..5).map(f64::from).collect(),
        series: vec![series("", &y)],
        y_scale: Scale::Log10,
        ..LineFigure::default()
    };
    let text = check(&line(&figure).unwrap());
    assert!(text.contains("100") && text.contains("0.1"), "{text}");
    let two = LineFigure { series: vec![series("", &y), series("", &y)], ..figure };
    let words = |text: &str| text.replace('|', " ").split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let of_two = check(&line(&two).unwrap());
    assert_eq!(words(&of_two), words(&text), "lines without names have no legend");
}

#[test]
fn lines_that_share_a_colour_differ_in_their_dashes() {
    let n = exegete_figure::theme::PALETTE.len();
    let swatches: Vec<String> = (0..2 * n).map(swatch).collect();
    assert!(swatches.iter().all(|svg| roxmltree::Document::parse(svg).is_ok()));
    assert!((0..2 * n).all(|i| !swatches[..i].contains(&swatches[i])));
}

#[test]
fn a_legend_does_not_lie_on_a_line() {
    let x: Vec<f64> = (0..50).map(f64::from).collect();
    let legend_x = |sign: f64| {
        let rising: Vec<f64> = x.iter().map(|v| sign * v).collect();
        let series = vec![series("first line", &rising), series("second line", &rising)];
        let svg = line(&LineFigure { x: x.clone(), series, ..LineFigure::default() }).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        let label = document.descendants().find(|n| n.text().is_some_and(|t| t.trim() == "first line")).unwrap();
        let text = if label.is_text() { label.parent().unwrap() } else { label };
        text.attribute("x").unwrap().parse::<f64>().unwrap()
    };
    assert!(legend_x(1.0) < 200.0, "rising lines end at the upper right");
    assert!(legend_x(-1.0) > 300.0, "falling lines leave it free");
}

#[test]
fn a_legend_that_would_lie_on_lines_stands_beside_them() {
    let x: Vec<f64> = (0..20).map(f64::from).collect();
    let zigzag = |i: usize| -> Vec<f64> { x.iter().map(|v| (v * 0.7 * (1.0 + i as f64)).sin()).collect() };
    let series: Vec<Series> = (0..8).map(|i| series(&format!("line {i}"), &zigzag(i))).collect();
    let svg = line(&LineFigure { x: x.clone(), series, ..LineFigure::default() }).unwrap();
    let document = roxmltree::Document::parse(&svg).unwrap();
    let number = |text: &str| text.parse::<f64>().unwrap();
    let named =
        |node: &roxmltree::Node| node.is_element() && node.text().is_some_and(|t| t.trim().starts_with("line "));
    let names: Vec<f64> =
        document.descendants().filter(named).map(|node| number(node.attribute("x").unwrap())).collect();
    assert_eq!(names.len(), 8);
    // Lines have many points, the keys of the legend two.
    let lines = document.descendants().filter_map(|node| node.attribute("points").map(str::to_owned));
    let points: Vec<Vec<f64>> =
        lines.map(|p| p.split(' ').filter_map(|p| p.split(',').next()?.parse().ok()).collect()).collect();
    let right = points.iter().filter(|p| p.len() > 10).flatten().copied().fold(0.0, f64::max);
    assert!(right > 300.0 && names.iter().all(|x| *x > right), "{names:?} beside {right}");
}

#[test]
fn hostile_labels_are_text() {
    let hostile = "<script>alert(\"1\")</script>&amp;'\u{0}\u{1b}]]>";
    let figure = LineFigure {
        labels: Labels { title: hostile.into(), x: hostile.into(), y: hostile.into() },
        x: vec![0.0, 1.0],
        series: vec![series(hostile, &[0.0, 1.0]), series("b", &[0.0, 1.0])],
        markers: vec![Marker { x: 0.5, label: hostile.into() }],
        ..LineFigure::default()
    };
    assert!(check(&line(&figure).unwrap()).contains("<script>"));
}

#[test]
fn a_histogram_of_geometric_levels_has_even_bars() {
    let edges: Vec<f64> = (-4..=4).map(|i| 2f64.powi(i)).collect();
    let heights: Vec<f64> = (0..8).map(f64::from).collect();
    let figure =
        HistogramFigure { labels: labels("Levels"), edges, heights, x_scale: Scale::Log2, size: Size::default() };
    let svg = histogram(&figure).unwrap();
    check(&svg);
    let document = roxmltree::Document::parse(&svg).unwrap();
    let widths: Vec<f64> = document
        .descendants()
        .filter(|n| n.has_tag_name("rect"))
        .map(|n| n.attribute("width").unwrap().parse().unwrap())
        .collect();
    assert_eq!(widths.len(), 7, "an empty bin has no bar");
    assert!(widths.iter().all(|w| (w - widths[0]).abs() <= 1.0), "{widths:?}");
}

#[test]
fn a_network_shows_the_connections_above_its_threshold() {
    let mut figure = NetworkFigure {
        labels: labels("Net <1>"),
        layers: vec![2, 2],
        weights: vec![vec![1.0, -0.5, 0.005, f32::NAN]],
        inputs: vec!["x1".into(), "x2".into()],
        outputs: vec!["y1".into(), "y2".into()],
        threshold: 0.01,
        size: Size::default(),
    };
    let svg = network(&figure).unwrap();
    let text = check(&svg);
    for part in ["Net <1>", "x1", "x2", "y1", "y2"] {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
    figure.weights[0].pop();
    assert_eq!(network(&figure), Err(FigureError::Length { what: "a layer of weights".into(), found: 3, expected: 4 }));
    assert!(check(&network(&NetworkFigure::default()).unwrap()).contains("no data"));
}

#[test]
fn figures_of_nothing_say_so() {
    let empty = check(&line(&LineFigure { labels: labels("t"), ..LineFigure::default() }).unwrap());
    assert!(empty.contains("no data"));
    let gaps = LineFigure { x: vec![1.0], series: vec![series("a", &[f64::NAN])], ..LineFigure::default() };
    assert!(check(&line(&gaps).unwrap()).contains("no data"));
    assert!(check(&scatter(&ScatterFigure::default()).unwrap()).contains("no data"));
    assert!(check(&heat_map(&HeatFigure::default()).unwrap()).contains("no data"));
    let zeros = HistogramFigure { edges: vec![0.0, 1.0, 2.0], heights: vec![0.0, 0.0], ..HistogramFigure::default() };
    assert!(check(&histogram(&zeros).unwrap()).contains("no data"));
}

#[test]
fn lists_that_do_not_fit_are_errors() {
    let figure = LineFigure { x: vec![0.0], series: vec![series("a", &[])], ..LineFigure::default() };
    assert!(matches!(line(&figure), Err(FigureError::Length { found: 0, expected: 1, .. })));
    assert!(matches!(histogram(&HistogramFigure::default()), Err(FigureError::Length { .. })));
    let bins = |edges: &[f64], x_scale| {
        histogram(&HistogramFigure { edges: edges.to_vec(), heights: vec![1.0], x_scale, ..HistogramFigure::default() })
    };
    assert_eq!(bins(&[1.0, 1.0], Scale::Linear), Err(FigureError::Edges));
    assert_eq!(bins(&[0.0, 1.0], Scale::Log2), Err(FigureError::Edges));
    assert!(heat_map(&HeatFigure { n_rows: 2, n_columns: 2, values: vec![1.0], ..HeatFigure::default() }).is_err());
    let edges = |row_edges: Vec<f64>| {
        let heat = HeatFigure { n_rows: 2, n_columns: 1, values: vec![1.0, -1.0], row_edges, ..HeatFigure::default() };
        heat_map(&heat)
    };
    assert!(matches!(edges(vec![0.25, 7.5]), Err(FigureError::Length { found: 2, expected: 3, .. })));
    assert!(check(&edges(vec![0.25, 7.5, 300.0]).unwrap()).contains("7.5"));
}

fn number() -> impl Strategy<Value = f64> {
    prop_oneof![any::<f64>(), -10.0f64..10.0, Just(0.0), Just(f64::NAN), Just(1e300), Just(1e30), Just(1e-300)]
}

proptest! {
    #[test]
    fn no_data_bring_a_figure_down(
        points in prop::collection::vec((number(), number()), 0..20),
        title in ".{0,20}",
        width in 0u32..700,
        height in 0u32..400,
        log in any::<bool>(),
    ) {
        let size = Size { width, height };
        let (x, y): (Vec<f64>, Vec<f64>) = points.iter().copied().unzip();
        let markers = x.iter().take(2).map(|&x| Marker { x, label: title.clone() }).collect();
        let scale = if log { Scale::Log10 } else { Scale::Linear };
        let all = vec![series(&title, &y), series("b", &y)];
        let lines = LineFigure { labels: labels(&title), x: x.clone(), series: all, markers, y_scale: scale, size };
        check(&line(&lines).unwrap());
        check(&scatter(&ScatterFigure { labels: labels(&title), points, x_scale: scale, y_scale: scale, size }).unwrap());
        let column_edges = x.iter().copied().chain([0.5]).collect();
        let heat = HeatFigure {
            labels: labels(&title), n_rows: 1, n_columns: y.len(), values: y.clone(), column_edges, size, ..HeatFigure::default()
        };
        check(&heat_map(&heat).unwrap());
        let edges = (0..=y.len()).map(|i| i as f64).collect();
        check(&histogram(&HistogramFigure { labels: labels(&title), edges, heights: y, x_scale: Scale::Linear, size }).unwrap());
    }
}
