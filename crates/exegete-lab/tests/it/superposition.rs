//! Toy models of superposition: each test is a known result, or a check of a formula against another way to it.
