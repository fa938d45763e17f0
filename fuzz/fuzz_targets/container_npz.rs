//! An `.npz` archive or a single `.npy` array.
#![no_main]

exegete_fuzz::container_target!(exegete_fuzz::containers::Container::Npz);
