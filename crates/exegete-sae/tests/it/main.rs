//! Tests of dictionaries.
mod saelens;
mod training;
