//! A directory or file of the layout `saelens`, with one file of it changed.
#![no_main]

exegete_fuzz::layout_target!("saelens");
