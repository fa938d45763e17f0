//! Shared vocabulary of the workbench: sites and axes, ids, settings, sampling by hash, statistics.
//!
//! This crate knows no tensors, no models and no files.
#![deny(missing_docs)]

pub mod axes;
pub mod ids;
pub mod levels;
pub mod names;
pub mod ranks;
pub mod sampling;
pub mod settings;
pub mod sites;
pub mod stats;

pub use ids::{DocId, LatentId};
pub use sites::{Site, SiteError, SiteKind};
