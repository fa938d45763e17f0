//! Tests of judges.
mod delphi;
mod local;
mod server;
