//! A directory or file of the layout `openai`, with one file of it changed.
#![no_main]

exegete_fuzz::layout_target!("openai");
