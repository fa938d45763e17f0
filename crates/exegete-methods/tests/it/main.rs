//! Tests of methods.
mod lens;
mod reference;
mod self_explain;
mod words;
