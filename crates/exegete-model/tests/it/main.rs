//! Tests of the model runtime.
mod bad_input;
mod chat;
mod edits;
mod families;
mod gguf;
mod gradients;
mod processing;
mod real;
mod residence;
mod scratch;
mod tiny;
