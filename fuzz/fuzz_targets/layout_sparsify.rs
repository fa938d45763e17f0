//! A directory or file of the layout `sparsify`, with one file of it changed.
#![no_main]

exegete_fuzz::layout_target!("sparsify");
