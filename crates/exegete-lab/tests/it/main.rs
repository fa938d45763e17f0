//! Integration tests of `exegete-lab`.

mod bimt;
mod language;
mod organism;
mod superposition;
mod truth;
