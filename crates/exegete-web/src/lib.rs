//! The dashboards: a router over a run, finished or under way, without a model.
//!
//! [`Dashboard`] holds a run opened for reading, and a [`Session`] where a model is at hand; [`app`] makes a router of it, [`serve`]
//! puts that on an address. Pages and the JSON under `/api` are two faces of the same [`wire`] types. All text from models,
//! corpora and notes is escaped, a content security policy forbids everything that did not come from here, [`Access`] says who is
//! answered and [`Limits`] how much may be asked.
#![deny(missing_docs)]

mod access;
mod charts;
mod columns;
mod curves;
mod dashboard;
mod detail;
mod dictionaries;
mod error;
mod export;
mod format;
mod harvest;
mod jobs;
mod limits;
mod listing;
mod openapi;
mod overview;
mod pages;
mod rating;
mod respond;
mod routes;
mod server;
mod session;
mod summary;
mod terminal;
mod training;
mod trial;
mod vocabulary;
pub mod wire;

pub use access::Access;
pub use dashboard::Dashboard;
pub use error::{Result, WebError};
pub use export::{MOST_IN_A_FILE, StaticPages};
pub use limits::Limits;
pub use pages::lens_page;
pub use routes::{app, app_with};
pub use server::{accept, serve};
pub use session::Session;
pub use terminal::{Colours, latent_lines, plain};
