//! Sparse dictionaries over activations.
//!
//! A [`Dictionary`] turns activations into sparse [`Codes`] and back. It is an [`Sae`], with one linear encoder (also a
//! transcoder, or a crosscoder of several sites), or a [`CrossLayer`], which has one for each layer; [`AnyDictionary`] is
//! either, as files hold them. [`kinds`] holds one file a kind, [`formats`] one file a foreign layout or two that are alike,
//! [`releases`] the names of published ones. [`train`] is one training step, fed by whoever has activations; [`metrics`]
//! work on arrays. This crate knows no model and no run directory.
#![deny(missing_docs)]

mod any;
mod codes;
pub mod containers;
mod cross_layer;
mod dictionary;
mod error;
pub mod formats;
pub mod kinds;
pub mod metrics;
pub mod releases;
mod sae;
mod screening;
mod site_gates;
pub mod train;

pub use any::AnyDictionary;
pub use codes::Codes;
pub use cross_layer::CrossLayer;
pub use dictionary::{Clamp, Dictionary, Products, Splice};
pub use error::SaeError;
pub use sae::{InputNorm, Sae};
pub use site_gates::SiteGates;

/// Result of this crate's operations.
pub type Result<T> = std::result::Result<T, SaeError>;
