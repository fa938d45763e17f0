//! Tests of judges.
mod local;
mod server;
