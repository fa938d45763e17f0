//! A directory or file of the layout `named-tensors`, with one file of it changed.
#![no_main]

exegete_fuzz::layout_target!("named-tensors");
