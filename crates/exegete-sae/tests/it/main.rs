//! Tests of dictionaries.
mod containers;
mod formats;
mod metrics;
mod saelens;
mod training;
mod training_kinds;
mod training_peers;
