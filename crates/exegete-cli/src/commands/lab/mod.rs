//! Commands of the lab: models that we train ourselves, where the truth is known.

pub(crate) mod bimt;
pub(crate) mod out_dir;
pub(crate) mod superposition;
mod superposition_figures;
mod superposition_tables;
