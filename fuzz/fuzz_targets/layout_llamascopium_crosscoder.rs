//! A directory or file of the layout `llamascopium-crosscoder`, with one file of it changed.
#![no_main]

exegete_fuzz::layout_target!("llamascopium-crosscoder");
