//! Models from the Hugging Face hub: a reference in, a local path out.
//!
//! This is the only crate that talks to the hub; everything else opens local paths. The cache has the layout of the
//! Python library (`models--org--name/{blobs,refs,snapshots}`, locks in `.locks`), so either program uses what the
//! other has downloaded, and waits while the other downloads the same blob.
//!
//! The `hf-hub` crate is not used. Its 1.0 is asynchronous and brings a second HTTP client and a storage protocol,
//! over two hundred packages; its 0.5 has a small synchronous client, but neither verifies what it downloads, nor works
//! offline, nor waits when the server asks for it, nor reads `HF_HUB_CACHE`, and what it does would all have to be
//! done again. So this crate takes from it only the conventions, over the HTTP client of its synchronous half:
//!
//! - `ureq` with rustls does connections, TLS, proxies (`HTTPS_PROXY`, `NO_PROXY`) and HTTP/1.1 framing;
//! - this crate does addresses, redirects and who is sent the token, waiting and trying again, resuming, checksums, the
//!   cache, locks, and the choice of files.
//!
//! What is downloaded is never trusted: names are checked before they become paths, a blob gets its name only when its
//! length and checksum are right, and pickled weights are not downloaded at all.
#![deny(missing_docs)]

mod address;
mod cache;
mod checksum;
mod client;
mod download;
mod error;
mod event;
mod hub;
mod names;
mod reference;
mod retry;
mod select;
mod settings;

pub use error::{HubError, Result};
pub use event::DownloadEvent;
pub use hub::Hub;
pub use reference::{Reference, looks_like_reference};
pub use settings::{HubSettings, Token};
