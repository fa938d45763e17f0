//! Commands of the lab: models that we train ourselves, where the truth is known.

pub(crate) mod bimt;
pub(crate) mod superposition;
pub(crate) mod train;
