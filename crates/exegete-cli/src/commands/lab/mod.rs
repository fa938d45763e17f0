//! Commands of the lab: models that we train ourselves, where the truth is known.

pub(crate) mod bimt;
mod out_dir;
pub(crate) mod superposition;
