//! Integration tests of `exegete-lab`.

mod language;
mod organism;
mod superposition;
mod truth;
