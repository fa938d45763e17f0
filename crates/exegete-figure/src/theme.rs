//! One look: colours that stay apart for colour-blind eyes and stand on light and dark grounds alike.

use plotters::style::RGBColor;

/// Colours of series, after Okabe and Ito, lightened where a dark ground would swallow them.
pub const PALETTE: [RGBColor; 6] = [
    RGBColor(0x2b, 0x83, 0xc6),
    RGBColor(0xd9, 0x6a, 0x1a),
    RGBColor(0x0f, 0x9a, 0x76),
    RGBColor(0xc4, 0x6a, 0xa2),
    RGBColor(0xc2, 0x93, 0x10),
    RGBColor(0x7a, 0x7f, 0xd1),
];

/// Text: a grey with a contrast of about 4.5 to both white and near-black.
pub const TEXT: RGBColor = RGBColor(0x77, 0x7d, 0x86);
/// Axes, and at low opacity the grid.
pub const AXIS: RGBColor = RGBColor(0x8a, 0x90, 0x99);
/// Opacity of grid lines.
pub const GRID_ALPHA: f64 = 0.22;
/// Opacity of filled bars.
pub const FILL_ALPHA: f64 = 0.78;
/// Width of lines in a series.
pub const LINE_WIDTH: u32 = 2;
/// Radius of points.
pub const POINT_RADIUS: u32 = 3;
/// Font of all text.
pub const FONT: &str = "sans-serif";
/// Size of labels. plotters writes 1 / 1.24 of it as the font size.
pub const LABEL_SIZE: u32 = 15;
/// Size of titles.
pub const TITLE_SIZE: u32 = 17;

/// Colour of the `idx`-th series.
pub fn colour(idx: usize) -> RGBColor {
    PALETTE[idx % PALETTE.len()]
}
