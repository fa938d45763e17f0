//! Rotary positions: which frequencies a model turns its heads by, and the tables that a run uses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use exegete_tensor::cpu::rope::RopeTable;
use serde::Serialize;

use crate::spec::MOST_D_HEAD;

/// Inverse frequencies of the planes that are rotated ("half" convention: dimension i turns with i + rotated / 2).
///
/// Planes beyond them, where only a part of the head is rotated, stay as they are.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Frequencies {
    /// The same for every context.
    Fixed(Vec<f32>),
    /// LongRoPE (Ding et al. 2024): one set up to the original context, another beyond it.
    Long {
        /// Up to `original` positions.
        short: Vec<f32>,
        /// For longer contexts.
        long: Vec<f32>,
        /// The context of pretraining.
        original: usize,
    },
    /// Dynamic NTK: the base grows with the context once that exceeds `original`.
    Dynamic {
        /// Base.
        theta: f64,
        /// Rotated dimensions.
        rotated: usize,
        /// Scaling factor.
        factor: f64,
        /// The context up to which nothing changes.
        original: usize,
    },
}

/// Rotary positions.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Rope {
    /// Frequencies.
    pub frequencies: Frequencies,
    /// Factor of cosines and sines (YaRN and LongRoPE scale attention this way).
    pub factor: f32,
}

/// `1 / theta^(2i / rotated)` in f32, computed as transformers does.
pub fn inverse_frequencies(theta: f64, rotated: usize) -> Vec<f32> {
    (0..rotated / 2).map(|i| 1.0 / (theta as f32).powf((2 * i) as f32 / rotated as f32)).collect()
}

/// Checks a number of rotated dimensions before a table of that length is made: both numbers may come from a file.
///
/// # Errors
/// A sentence that names the number that does not fit.
pub(crate) fn check_rotated(rotated: usize, d_head: usize) -> Result<(), String> {
    if d_head == 0 || d_head > MOST_D_HEAD {
        return Err(format!("the head width is {d_head}, which is outside 1..={MOST_D_HEAD}"));
    }
    match rotated {
        2.. if rotated <= d_head => Ok(()),
        _ => Err(format!("{rotated} rotated dimensions do not fit into heads of width {d_head}; 2 or more do")),
    }
}

impl Rope {
    /// Frequencies `theta^(-2i / rotated)` over the first `rotated` dimensions of a head.
    pub fn plain(theta: f64, rotated: usize) -> Self {
        Self { frequencies: Frequencies::Fixed(inverse_frequencies(theta, rotated)), factor: 1.0 }
    }

    /// Rotated planes: half the rotated dimensions.
    pub fn n_planes(&self) -> usize {
        match &self.frequencies {
            Frequencies::Fixed(inv) | Frequencies::Long { short: inv, .. } => inv.len(),
            Frequencies::Dynamic { rotated, .. } => rotated / 2,
        }
    }

    /// Checks that the frequencies fit a head and are numbers.
    pub(crate) fn check(&self, d_head: usize) -> Result<(), String> {
        if self.n_planes() == 0 || 2 * self.n_planes() > d_head {
            return Err(format!("{} rotated planes do not fit into heads of width {d_head}", self.n_planes()));
        }
        let numbers = match &self.frequencies {
            Frequencies::Long { short, long, .. } if short.len() != long.len() => {
                return Err(format!("{} short and {} long rotation factors differ in number", short.len(), long.len()));
            }
            Frequencies::Long { short, long, .. } => short.iter().chain(long).all(|f| f.is_finite()),
            Frequencies::Fixed(inv) => inv.iter().all(|f| f.is_finite()),
            Frequencies::Dynamic { theta, factor, original, .. } => {
                theta.is_finite() && *theta > 0.0 && factor.is_finite() && *factor > 0.0 && *original > 0
            }
        };
        match numbers && self.factor.is_finite() {
            true => Ok(()),
            false => Err("the rotation's base or one of its factors makes frequencies that are no numbers".into()),
        }
    }

    /// The frequencies for contexts of `context` positions, and a key under which equal ones agree.
    fn at(&self, context: usize) -> (usize, Vec<f32>) {
        match &self.frequencies {
            Frequencies::Fixed(inv) => (0, inv.clone()),
            Frequencies::Long { short, original, .. } if context <= *original => (0, short.clone()),
            Frequencies::Long { long, .. } => (1, long.clone()),
            Frequencies::Dynamic { theta, rotated, original, .. } if context <= *original => {
                (0, inverse_frequencies(*theta, *rotated))
            }
            Frequencies::Dynamic { theta, rotated, factor, original } => {
                let (dim, stretch) = (*rotated as f64, factor * context as f64 / *original as f64 - (factor - 1.0));
                (context, inverse_frequencies(theta * stretch.powf(dim / (dim - 2.0)), *rotated))
            }
        }
    }
}

/// Tables of a model's rotations, made when first used and grown as contexts grow.
#[derive(Default)]
pub(crate) struct RopeTables {
    tables: Mutex<HashMap<(usize, usize), Arc<RopeTable>>>,
}

/// Positions of the smallest table; each larger one doubles it.
const SMALLEST: usize = 512;

impl RopeTables {
    /// The table of rotation number `idx` for contexts of `context` positions.
    pub(crate) fn get(&self, ropes: &[Rope], idx: usize, d_head: usize, context: usize) -> Arc<RopeTable> {
        let (key, inv_freq) = ropes[idx].at(context);
        // A poisoned lock only means that another thread panicked between two whole states of the map.
        let mut tables = self.tables.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if key > 1 {
            // Frequencies of one context length each: only the latest is worth keeping.
            tables.retain(|(i, k), _| *i != idx || *k <= 1 || *k == key);
        }
        let n_positions = context.next_power_of_two().max(SMALLEST);
        let fits = |t: &Arc<RopeTable>| t.n_positions() >= context;
        if let Some(table) = tables.get(&(idx, key)).filter(|t| fits(t)) {
            return table.clone();
        }
        let table = Arc::new(RopeTable::new(&inv_freq, d_head, ropes[idx].factor, n_positions));
        tables.insert((idx, key), table.clone());
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_grow_and_follow_the_context() {
        let long = Frequencies::Long { short: vec![1.0, 0.5], long: vec![0.1, 0.05], original: 8 };
        let ropes = [Rope { frequencies: long, factor: 2.0 }, Rope::plain(10_000.0, 4)];
        let tables = RopeTables::default();
        let (short, long) = (tables.get(&ropes, 0, 6, 8), tables.get(&ropes, 0, 6, 9));
        assert!((short.cos[2] - 2.0 * 1f32.cos()).abs() < 1e-6 && (long.cos[2] - 2.0 * 0.1f32.cos()).abs() < 1e-6);
        assert_eq!(tables.get(&ropes, 1, 4, 10).n_positions(), SMALLEST);
        assert_eq!(tables.get(&ropes, 1, 4, SMALLEST + 1).n_positions(), 2 * SMALLEST);
    }
}
