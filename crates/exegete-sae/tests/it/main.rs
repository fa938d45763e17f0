//! Tests of dictionaries.
mod containers;
mod saelens;
mod training;
