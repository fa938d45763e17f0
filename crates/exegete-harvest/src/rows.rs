//! Rows of activations: where those of each window lie, and which documents are held out.
//!
//! Position 0 of every window is left out (attention sinks live there, with norms many times the others'), so a
//! window of n tokens has n - 1 rows.

use exegete_base::sampling;
use exegete_store::{TokenReader, Window};

use crate::{HarvestError, Result};

/// Where the rows of a window lie.
#[derive(Debug, Clone)]
pub struct WindowRows {
    /// The window.
    pub window: Window,
    /// Its first row; the row of position p is `first + p - 1`.
    pub first: u64,
}

impl WindowRows {
    /// Number of rows.
    pub fn len(&self) -> usize {
        self.window.token_ids.len() - 1
    }

    /// Its rows.
    pub(crate) fn rows(&self) -> Vec<u64> {
        (self.first..self.first + self.len() as u64).collect()
    }

    /// Whether the window has no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// All windows with the places of their rows.
///
/// # Errors
/// Unreadable token parts.
pub fn window_rows(tokens: &TokenReader) -> Result<Vec<WindowRows>> {
    let (mut rows, mut first) = (Vec::with_capacity(tokens.len()), 0);
    for i in 0..tokens.len() {
        let window = tokens.window(i)?.ok_or_else(|| HarvestError::Request(format!("token window {i} is missing")))?;
        let entry = WindowRows { window, first };
        first += entry.len() as u64;
        rows.push(entry);
    }
    Ok(rows)
}

/// Number of rows of windows.
pub(crate) fn n_rows(windows: &[WindowRows]) -> u64 {
    windows.iter().map(|w| w.len() as u64).sum()
}

/// The window that a row is of.
pub(crate) fn window_of(windows: &[WindowRows], row: u64) -> usize {
    windows.partition_point(|w| w.first + w.len() as u64 <= row)
}

/// Windows to train on and windows to measure on. A text too small to have both gives all of it to both.
pub fn split(windows: &[WindowRows], seed: u64) -> Split<'_> {
    let (held_out, training): (Vec<&WindowRows>, Vec<&WindowRows>) =
        windows.iter().partition(|w| sampling::is_held_out(seed, w.window.doc));
    if held_out.is_empty() || training.is_empty() {
        let all: Vec<&WindowRows> = windows.iter().collect();
        return Split { training: all.clone(), measured: all, is_held_out: false };
    }
    Split { training, measured: held_out, is_held_out: true }
}

/// Windows by their use.
pub struct Split<'a> {
    /// Trained on.
    pub training: Vec<&'a WindowRows>,
    /// Measured on.
    pub measured: Vec<&'a WindowRows>,
    /// Whether the measured windows were held out of training.
    pub is_held_out: bool,
}

impl Split<'_> {
    /// What the measured windows are, in words.
    pub fn measured_on(&self) -> &'static str {
        if self.is_held_out { "held-out documents" } else { "the training documents (too few to hold any out)" }
    }
}
