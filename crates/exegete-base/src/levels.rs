//! The grid of activation levels, version 1: geometric, fixed, the same for every latent and dictionary.
//!
//! Edges are `2^(i/2)` for `i = -20..=40`, so there are 60 levels from 2^-10 to 2^20. Values outside are
//! clamped to the first and last level. A fixed grid is what lets histograms of different shards add up.

/// Version of the grid, stored beside everything counted on it.
pub const GRID_VERSION: u32 = 1;
/// Number of levels.
pub const N_LEVELS: usize = 60;
const FIRST: i32 = -20;

/// Lower edge of a level.
pub fn lower_edge(level: usize) -> f32 {
    2f64.powf(f64::from(FIRST + level as i32) / 2.0) as f32
}

/// Upper edge of a level.
pub fn upper_edge(level: usize) -> f32 {
    lower_edge(level + 1)
}

/// Level of a positive activation; values below the grid give 0, values above give the last level.
pub fn level_of(value: f32) -> usize {
    if value.is_nan() || value <= lower_edge(0) {
        return 0;
    }
    // The logarithm gives the neighbourhood, the stored edges decide: rounding must not move an edge.
    let guess = (f64::from(value).log2() * 2.0).floor() - f64::from(FIRST);
    let mut level = guess.clamp(0.0, N_LEVELS as f64 - 1.0) as usize;
    if value < lower_edge(level) {
        level -= 1;
    } else if level + 1 < N_LEVELS && value >= upper_edge(level) {
        level += 1;
    }
    level
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_edge_opens_its_own_level() {
        for level in 0..N_LEVELS {
            assert_eq!(level_of(lower_edge(level)), level, "edge of level {level}");
            let below = f32::from_bits(upper_edge(level).to_bits() - 1);
            assert_eq!(level_of(below), level, "just below the top of level {level}");
        }
    }

    #[test]
    fn outside_values_are_clamped() {
        assert_eq!(level_of(0.0), 0);
        assert_eq!(level_of(1e-30), 0);
        assert_eq!(level_of(f32::INFINITY), N_LEVELS - 1);
        assert_eq!(level_of(1e30), N_LEVELS - 1);
    }
}
