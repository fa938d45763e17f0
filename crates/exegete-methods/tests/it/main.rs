//! Tests of methods.
mod self_explain;
mod words;
