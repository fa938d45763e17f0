//! Tests of methods.
mod lens;
mod self_explain;
mod words;
