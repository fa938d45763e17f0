//! Tests of dictionaries.
mod containers;
mod formats;
mod layers;
mod metrics;
mod saelens;
mod training;
mod training_cross_layer;
mod training_halves;
mod training_jumprelu;
mod training_kinds;
mod training_peers;
mod training_resample;
mod training_transcoders;
