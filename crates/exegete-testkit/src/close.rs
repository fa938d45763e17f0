//! Tolerances: the largest difference for forward passes, relative L2 for gradients.

/// Asserts `max|got - want| <= tol * max(1, max|want|)`; the message names the worst element.
///
/// # Panics
/// If the lengths differ, a difference is too large, or a value is not a number.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f32], tol: f32) {
    assert_eq!(got.len(), want.len(), "{what}: got {} values, want {}", got.len(), want.len());
    // Infinite values must be equal, so they must not widen the bound for the others.
    let finite = want.iter().map(|w| w.abs()).filter(|w| w.is_finite());
    let bound = tol * finite.fold(1.0, f32::max);
    let mut worst = (0, 0.0f32);
    for (index, (g, w)) in got.iter().zip(want).enumerate() {
        let difference = difference(*g, *w);
        if difference > worst.1 {
            worst = (index, difference);
        }
    }
    let (index, difference) = worst;
    assert!(
        difference <= bound,
        "{what}: differs by {difference:e} at index {index} of {} (got {}, want {}), allowed {bound:e}",
        got.len(),
        got[index],
        want[index],
    );
}

/// `‖got - want‖ / ‖want‖` in f64; the plain norm of the difference where `want` is zero.
///
/// # Panics
/// If the lengths differ.
#[track_caller]
pub fn rel_l2(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len(), "got {} values, want {}", got.len(), want.len());
    let sum = |squares: &mut dyn Iterator<Item = f64>| squares.sum::<f64>().sqrt();
    let error = sum(&mut got.iter().zip(want).map(|(g, w)| (f64::from(*g) - f64::from(*w)).powi(2)));
    let norm = sum(&mut want.iter().map(|w| f64::from(*w).powi(2)));
    if norm == 0.0 { error } else { error / norm }
}

/// Asserts `rel_l2(got, want) <= tol`.
///
/// # Panics
/// If the lengths differ or the error is larger or not a number.
#[track_caller]
pub fn assert_rel_l2(what: &str, got: &[f32], want: &[f32], tol: f64) {
    let error = rel_l2(got, want);
    assert!(error <= tol, "{what}: relative L2 error {error:e}, allowed {tol:e}");
}

/// Equal values (infinities too) differ by 0; a NaN or a lone infinity differs without bound.
fn difference(got: f32, want: f32) -> f32 {
    let plain = (got - want).abs();
    if got == want {
        0.0
    } else if plain.is_nan() {
        f32::INFINITY
    } else {
        plain
    }
}
