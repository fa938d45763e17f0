//! The hub's client against a hub of our own on loopback, with a second server where large files lie.

mod cache;
mod downloads;
mod environment;
mod hostile;
mod references;
mod refusals;
mod resume;
mod server;
mod world;
