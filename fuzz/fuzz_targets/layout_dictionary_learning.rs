//! A directory or file of the layout `dictionary-learning`, with one file of it changed.
#![no_main]

exegete_fuzz::layout_target!("dictionary-learning");
