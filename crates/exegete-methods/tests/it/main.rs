//! Tests of methods.
mod adapter;
mod lens;
mod reference;
mod self_explain;
mod words;
