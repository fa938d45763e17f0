//! A safetensors file of a dictionary.
#![no_main]

exegete_fuzz::container_target!(exegete_fuzz::containers::Container::Safetensors);
