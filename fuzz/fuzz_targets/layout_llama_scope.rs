//! A directory or file of the layout `llama-scope`, with one file of it changed.
#![no_main]

exegete_fuzz::layout_target!("llama-scope");
