//! Integration tests of `exegete-lab`.
mod superposition;
