//! Comparison of arrays, by the project's tolerances.

use thiserror::Error;

/// The first rule broken by a comparison.
#[derive(Debug, Error, PartialEq)]
pub enum Mismatch {
    /// The arrays have different lengths.
    #[error("{what}: {got} values, expected {want}")]
    Length {
        /// What was compared.
        what: String,
        /// Values given.
        got: usize,
        /// Values expected.
        want: usize,
    },
    /// A value is off.
    #[error("{what}: [{index}] is {got}, expected {want}; |difference| {difference:e} > {limit:e}")]
    Value {
        /// What was compared.
        what: String,
        /// Flat index of the worst value.
        index: usize,
        /// Value given.
        got: f32,
        /// Value expected.
        want: f32,
        /// Their distance.
        difference: f32,
        /// The largest distance allowed.
        limit: f32,
    },
}

/// Checks `max|got - want| <= tolerance * max(1, max|want|)`; NaN never passes.
///
/// # Errors
/// The worst value, if it is too far off.
pub fn close(what: &str, got: &[f32], want: &[f32], tolerance: f32) -> Result<(), Mismatch> {
    if got.len() != want.len() {
        return Err(Mismatch::Length { what: what.into(), got: got.len(), want: want.len() });
    }
    let limit = tolerance * want.iter().fold(1f32, |m, v| m.max(v.abs()));
    let distance = |i: usize| {
        let d = (got[i] - want[i]).abs();
        if d.is_nan() { f32::INFINITY } else { d }
    };
    match (0..got.len()).max_by(|a, b| distance(*a).total_cmp(&distance(*b))) {
        Some(i) if distance(i) > limit => {
            let (what, difference) = (what.to_owned(), distance(i));
            Err(Mismatch::Value { what, index: i, got: got[i], want: want[i], difference, limit })
        }
        _ => Ok(()),
    }
}

/// [`close`], as an assertion.
///
/// # Panics
/// If the arrays differ.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f32], tolerance: f32) {
    if let Err(mismatch) = close(what, got, want, tolerance) {
        panic!("{mismatch}");
    }
}

/// |got - want| / |want|, in the Euclidean norm.
pub fn relative_l2(got: &[f32], want: &[f32]) -> f64 {
    let square = |v: f32| f64::from(v) * f64::from(v);
    let distance: f64 = got.iter().zip(want).map(|(a, b)| square(a - b)).sum();
    (distance / want.iter().map(|v| square(*v)).sum::<f64>()).sqrt()
}
