//! Tests of dictionaries.
mod containers;
mod formats;
mod layers;
mod metrics;
mod saelens;
mod screening;
mod training;
mod training_cross_layer;
mod training_halves;
mod training_jumprelu;
mod training_kinds;
mod training_peers;
mod training_resample;
mod training_transcoders;

/// Checks a gradient at `x` by finite differences; one value may lie where a latent begins or ends.
fn slopes_agree(name: &str, x: &[f32], grad: &[f32], objective: impl Fn(&[f32]) -> f64) {
    let differs = |i: usize| {
        let moved = |by: f32| {
            let mut x = x.to_vec();
            x[i] += by;
            objective(&x)
        };
        (f64::from(grad[i]) - (moved(5e-4) - moved(-5e-4)) / 1e-3).abs() > 2e-2
    };
    let near_a_kink = (0..x.len()).filter(|i| differs(*i)).count();
    assert!(near_a_kink <= 1, "{name}: {near_a_kink} of {} slopes differ", x.len());
}
