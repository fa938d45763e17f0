//! Tests of the array engine: every op against finite differences and against PyTorch.
mod differences;
mod goldens;
