//! Tests of what model, dictionary and store do together.
mod attribution;
mod clamp;
mod edit_programs;
