//! Tests of judges.
mod delphi;
mod local;
mod output;
mod server;
