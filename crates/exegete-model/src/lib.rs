//! Language models with their insides open: one forward pass, taps, edits, generation.
