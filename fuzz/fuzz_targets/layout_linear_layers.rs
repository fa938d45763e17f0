//! A directory or file of the layout `linear-layers`, with one file of it changed.
#![no_main]

exegete_fuzz::layout_target!("linear-layers");
