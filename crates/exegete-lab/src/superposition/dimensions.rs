//! Many features of one importance in few dimensions, from dense to sparse: how dimensions are divided
//! (Elhage et al. 2022, feature dimensionality).

use exegete_base::stats::{Estimate, wilson};
use serde::{Deserialize, Serialize};

use super::draws::Draws;
use super::geometry::{REPRESENTED, antipodal_pairs, capacity, dot, mean, norm};
use super::toy::{Task, Toy, train};

/// How far from a plateau a dimensionality may lie to be counted there.
pub const NEAR: f64 = 0.05;

/// One trained model of the sweep.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Level {
    /// Density, 1 - S.
    pub density: f64,
    /// Number of features.
    pub n_features: u64,
    /// Width of the narrow layer.
    pub n_hidden: u64,
    /// Dimensions per feature, `m / |W|_F^2`: 1 where each kept feature has a dimension, 1/2 where pairs share one.
    pub dimensions_per_feature: f64,
    /// Features whose direction has a norm of at least [`REPRESENTED`].
    pub n_represented: u64,
    /// Pairs of antipodal features.
    pub n_antipodal_pairs: u64,
    /// Share of the represented features that belong to an antipodal pair.
    pub in_pairs: Estimate,
    /// Share of the represented features with a dimensionality within [`NEAR`] of 1.
    pub near_one: Estimate,
    /// Share of the represented features with a dimensionality within [`NEAR`] of 1/2.
    pub near_half: Estimate,
    /// Mean dimensionality of the represented features.
    pub mean_dimensionality: Estimate,
    /// Dimensionality of each feature, those that are not represented included.
    pub dimensionality_F: Vec<f64>,
}

/// What a trained model's directions are.
pub fn describe(toy: &Toy, density: f64) -> Level {
    let (w, d) = (toy.directions(), toy.n_hidden);
    let dimensionality_F = capacity(w, d);
    let is_kept: Vec<bool> = w.chunks_exact(d).map(|v| norm(v) >= REPRESENTED).collect();
    let kept: Vec<f64> = dimensionality_F.iter().zip(&is_kept).filter(|(_, kept)| **kept).map(|(v, _)| *v).collect();
    let pairs = antipodal_pairs(w, d);
    let mut paired: Vec<usize> = pairs.iter().flat_map(|(i, j)| [*i, *j]).collect();
    paired.sort_unstable();
    paired.dedup();
    let near = |plateau: f64| kept.iter().filter(|v| (**v - plateau).abs() <= NEAR).count() as u64;
    let n = kept.len() as u64;
    Level {
        density,
        n_features: toy.n_features() as u64,
        n_hidden: d as u64,
        dimensions_per_feature: d as f64 / dot(w, w),
        n_represented: n,
        n_antipodal_pairs: pairs.len() as u64,
        in_pairs: wilson(paired.len() as u64, n),
        near_one: wilson(near(1.0), n),
        near_half: wilson(near(0.5), n),
        mean_dimensionality: mean(&kept),
        dimensionality_F,
    }
}

/// Trains one model of the sweep and describes it.
pub fn train_level(n_features: usize, n_hidden: usize, task: &Task, seed: u64, number: u64) -> Level {
    let mut draws = Draws::new(seed, "dimensions", number);
    let toy = train(Toy::random(n_features, n_hidden, &mut draws), task, &mut draws);
    describe(&toy, task.density)
}
