//! The dashboards: a router over a run, finished or under way, without a model.
//!
//! [`Dashboard`] holds a run opened for reading; [`app`] makes a router of it, [`serve`] puts that on a loopback
//! address. Pages and the JSON under `/api` are two faces of the same [`wire`] types. All text from models and corpora
//! is escaped, and a content security policy forbids everything that did not come from here.
#![deny(missing_docs)]

mod charts;
mod curves;
mod dashboard;
mod error;
mod export;
mod format;
mod harvest;
mod listing;
mod pages;
mod routes;
mod server;
mod summary;
mod training;
mod vocabulary;
pub mod wire;

pub use dashboard::Dashboard;
pub use error::{Result, WebError};
pub use export::{MOST_IN_A_FILE, StaticPages};
pub use pages::lens_page;
pub use routes::app;
pub use server::serve;
