//! Proof on load: what a dictionary does on a little text, beside what its publisher says.
//!
//! A dictionary that is read with a wrong convention, or at a wrong site, runs without a word; its numbers tell.

use serde::Serialize;

use crate::measure::{CE_RECOVERED, Measured};

/// A measured L0 may be so far from the stated one, as a share of it: the texts differ.
const L0_TOLERANCE: f64 = 0.25;

/// Whether what was measured is what was stated.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "verdict", content = "why")]
pub enum Verdict {
    /// It is.
    #[serde(rename = "consistent")]
    Consistent(String),
    /// It is not, and why.
    #[serde(rename = "not consistent")]
    NotConsistent(String),
    /// Nothing was stated that could be compared, and nothing speaks against the dictionary.
    #[serde(rename = "no published figure")]
    NoFigure,
}

/// Compares what was measured with what the publisher states: the mean number of active latents.
pub fn verdict(measured: &Measured, published_l0: Option<f64>) -> Verdict {
    let fvu = measured.value("FVU");
    if fvu.is_nan() || fvu >= 1.0 {
        return Verdict::NotConsistent(format!(
            "its reconstruction is worse than the mean of the activations (FVU {fvu:.2}): another site, another model, or a \
             convention that was understood wrongly"
        ));
    }
    let recovered = measured.value(CE_RECOVERED);
    if recovered < 0.0 {
        return Verdict::NotConsistent(format!(
            "with it the model does worse than with zeros (CE recovered {recovered:.2})"
        ));
    }
    match published_l0 {
        None => Verdict::NoFigure,
        Some(stated) => {
            let l0 = measured.value("L0");
            let text = format!("L0 {l0:.1} measured, {stated:.1} stated");
            match (l0 - stated).abs() / stated <= L0_TOLERANCE {
                true => Verdict::Consistent(text),
                false => Verdict::NotConsistent(text),
            }
        }
    }
}
