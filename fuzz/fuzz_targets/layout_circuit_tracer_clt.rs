//! A directory or file of the layout `circuit-tracer-clt`, with one file of it changed.
#![no_main]

exegete_fuzz::layout_target!("circuit-tracer-clt");
