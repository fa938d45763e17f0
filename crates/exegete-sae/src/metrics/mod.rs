//! Metrics over arrays, one file a subject. Definitions are version 2; see `docs/metrics.md`.
//!
//! [`reconstruction`](mod@reconstruction) is what every dictionary is measured by, [`density`] and [`geometry`] what its
//! latents are like, [`losses`] what it costs the model, [`compat`] the numbers of other tools, wrong formulas and all. [`probing`], [`absorption`] and
//! [`ablation`] are of the SAEBench suite (arXiv 2503.09532) and stand on [`logistic`]; [`agreement`] compares dictionaries
//! of several seeds. What needs a model or labelled text comes in as plain arrays.

pub mod ablation;
pub mod absorption;
pub mod agreement;
pub mod compat;
pub mod density;
pub mod geometry;
pub mod logistic;
pub mod losses;
pub mod probing;
pub mod reconstruction;
pub mod sparse_logistic;

pub use reconstruction::{Measure, Reconstruction, reconstruction};

/// Version of the definitions, stored beside every reported number.
pub const VERSION: u32 = 2;
