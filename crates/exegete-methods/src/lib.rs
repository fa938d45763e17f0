//! Interpretability methods, one file each.
