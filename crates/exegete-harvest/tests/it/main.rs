//! Tests of what model, dictionary and store do together.
mod clamp;
mod edit_programs;
