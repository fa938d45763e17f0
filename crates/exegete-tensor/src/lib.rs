//! Array engine: ops with forward and backward, one gradient tape, CPU kernels.
