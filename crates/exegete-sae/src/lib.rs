//! Sparse dictionaries: kinds, formats, losses, the training step, metrics over arrays.
