//! Integration tests of `exegete-lab`.
