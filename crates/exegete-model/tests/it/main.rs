//! Tests of the model runtime.
mod bad_input;
mod edits;
mod real;
mod tiny;
