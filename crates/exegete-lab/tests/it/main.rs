//! Integration tests of `exegete-lab`.
mod bimt;
