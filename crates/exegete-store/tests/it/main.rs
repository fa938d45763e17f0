//! The store from outside: what is written comes back, and nothing that is read can bring the program down.

mod accumulators;
mod corpora;
mod damage;
mod interop;
mod labelled;
mod notes;
mod runs;
mod tables;
