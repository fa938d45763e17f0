//! Line, scatter, histogram, heat map and network as SVG, one look for pages, reports and docs.
//!
//! A figure is plain data in, SVG text out: transparent, scaling with its container, readable on light and dark
//! grounds, with every label escaped. Points that are no numbers are gaps; a figure without points says so.
#![deny(missing_docs)]

mod axis;
mod canvas;
mod heat;
mod histogram;
mod line;
mod network;
mod scatter;
pub mod theme;

pub use axis::Scale;
pub use heat::{HeatFigure, heat_map};
pub use histogram::{HistogramFigure, histogram};
pub use line::{LineFigure, Marker, Series, line, swatch};
pub use network::{NetworkFigure, network};
pub use scatter::{ScatterFigure, scatter};

use thiserror::Error;

/// Title and labels of the axes, shared by all figures.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Labels {
    /// Title above the figure; empty for none.
    pub title: String,
    /// Label of the horizontal axis.
    pub x: String,
    /// Label of the vertical axis.
    pub y: String,
}

/// Size of a figure in its own units; a page scales it to the width there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
}

impl Default for Size {
    fn default() -> Self {
        Self { width: 560, height: 260 }
    }
}

/// Why a figure cannot be drawn.
#[derive(Debug, Error, PartialEq)]
pub enum FigureError {
    /// Two lists that belong together have different lengths.
    #[error("{what} has {found} values, expected {expected}")]
    Length {
        /// The list.
        what: String,
        /// Its length.
        found: usize,
        /// The length it should have.
        expected: usize,
    },
    /// Edges of bins do not ascend.
    #[error("the edges of a histogram must be finite and ascend (positive on a logarithmic scale)")]
    Edges,
    /// The drawing engine refused.
    #[error("cannot draw the figure: {0}")]
    Draw(String),
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, FigureError>;

pub(crate) fn check_length(what: &str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(FigureError::Length { what: what.into(), found, expected }) }
}
