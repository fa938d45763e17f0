//! What is settled before the first token is counted, from the first windows of the text: which tokens are attention sinks, and how
//! products are computed. Every shard of a text looks at the same windows, so that all count and compute alike.

use exegete_model::Model;
use exegete_sae::Products;
use serde_json::{Value, json};

use super::{Harvested, How};
use crate::Result;
use crate::capture::{BATCH, Capture};
use crate::rows::WindowRows;

/// What is settled of a dictionary.
pub(super) struct Rules {
    /// Half of these windows' tokens are shorter.
    median_norm: f64,
    /// Longer tokens are passed over.
    pub(super) longest: f64,
    /// How its products are computed.
    pub(super) products: Products,
}

impl Rules {
    pub(super) fn of(model: &Model, harvested: &Harvested, how: &How) -> Result<Self> {
        let capture = Capture::new(model, &harvested.sites.reads, how.window)?;
        let rows = |window: &exegete_store::Window| WindowRows { window: window.clone(), first: 0 };
        let windows: Vec<WindowRows> = how.first.iter().take(BATCH).map(rows).collect();
        let mut values = vec![Vec::new(); harvested.sites.reads.len()];
        capture.append(&windows.iter().collect::<Vec<_>>(), &mut values)?;
        let widths = capture.widths();
        let n = values[0].len() / widths[0].max(1);
        let mut x_ND = Vec::with_capacity(n * widths.iter().sum::<usize>());
        for row in 0..n {
            values.iter().zip(widths).for_each(|(values, d)| x_ND.extend_from_slice(&values[row * d..(row + 1) * d]));
        }
        let mut norms: Vec<f64> = x_ND.chunks_exact(widths.iter().sum()).map(norm).collect();
        norms.sort_by(f64::total_cmp);
        let median_norm = norms.get(norms.len() / 2).copied().unwrap_or_default();
        let longest = match how.settings.sink_norm {
            0.0 => f64::INFINITY,
            times => times * median_norm,
        };
        Ok(Self { median_norm, longest, products: harvested.dictionary.fastest(&x_ND) })
    }

    /// Says in a summary what was settled.
    pub(super) fn record(&self, summary: &mut Value) {
        summary["median_norm"] = json!(self.median_norm);
        summary["sinks_longer_than"] = if self.longest.is_finite() { json!(self.longest) } else { Value::Null };
        summary["screened"] = json!(self.products == Products::Screened);
    }
}

/// Length of an activation.
pub(super) fn norm(x_D: &[f32]) -> f64 {
    x_D.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}
