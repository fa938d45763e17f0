//! Commands of the lab: models that we train ourselves, where the truth is known.

pub(crate) mod abilities;
pub(crate) mod bimt;
pub(crate) mod corpus;
pub(crate) mod superposition;
mod superposition_figures;
mod superposition_tables;
pub(crate) mod train;
pub(crate) mod truth;
