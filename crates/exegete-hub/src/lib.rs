//! Models and dictionaries from the Hugging Face hub: a reference in, a local path out.
//!
//! This is the only crate that talks to the hub; everything else opens local paths. The cache has the layout of the
//! Python library (`models--org--name/{blobs,refs,snapshots}`, locks in `.locks`), so either program uses what the
//! other has downloaded, and waits while the other downloads the same blob.
//!
//! The `hf-hub` crate is not used. Its 1.0 is asynchronous and brings a second HTTP client and a storage protocol, some
//! 190 packages; its 0.5 has a small synchronous client, but does not verify what it downloads, nor work offline, nor
//! wait when the server asks for it, nor read `HF_HUB_CACHE`, and what it does do would have to be done again around it.
//! So this crate follows the same conventions over the HTTP client of that synchronous half:
//!
//! - `ureq` with rustls does connections, TLS, proxies (`HTTPS_PROXY`, `NO_PROXY`) and HTTP/1.1 framing;
//! - this crate does addresses, redirects and who is sent the token, waiting and trying again, resuming, checksums, the
//!   cache, locks, and the choice of files.
//!
//! What is downloaded is never trusted: names are checked before they become paths, a blob gets its name only when its
//! length and checksum are right, and of a model pickled weights are not downloaded at all.
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
pub use hub::{Choose, Hub};
pub use reference::{Reference, looks_like_reference};
pub use settings::{HubSettings, Token};
