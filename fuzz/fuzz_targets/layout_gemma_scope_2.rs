//! A directory or file of the layout `gemma-scope-2`, with one file of it changed.
#![no_main]

exegete_fuzz::layout_target!("gemma-scope-2");
