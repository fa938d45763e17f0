//! What can go wrong between a reference and a path. No message holds a token or the signature of an address.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Result of this crate.
pub type Result<T, E = HubError> = std::result::Result<T, E>;

/// Why a reference could not be resolved.
#[derive(Debug, Error)]
pub enum HubError {
    /// A text is no reference.
    #[error("{text:?} is no reference to the hub (org/name, org/name@revision or org/name:file): {detail}")]
    Reference {
        /// The text.
        text: String,
        /// What is wrong with it.
        detail: String,
    },
    /// An environment variable or a file of settings cannot be used.
    #[error("{name} {detail}")]
    Setting {
        /// The variable or file.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// The network is forbidden, and the cache lacks something.
    #[error(
        "{repo}@{revision}: {missing} is not in the cache {} and {variable} forbids to download it; unset {variable} or \
         download it where there is a network",
        cache.display()
    )]
    Offline {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// The file, or "the revision" if nothing of it is there.
        missing: String,
        /// The cache directory.
        cache: PathBuf,
        /// `HF_HUB_OFFLINE` or `TRANSFORMERS_OFFLINE`.
        variable: &'static str,
    },
    /// The hub refuses access.
    #[error(
        "{repo}: the hub refuses access ({status}): the repository is gated or private, or does not exist; accept its \
         licence at {page} if it asks for that, and {}",
        if *with_token { "use a token that may read it: the hub does not accept the one of HF_TOKEN or HF_HOME/token" }
        else { "set HF_TOKEN to a token that may read it" }
    )]
    Denied {
        /// The repository.
        repo: String,
        /// The HTTP status.
        status: u16,
        /// The repository's page.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
    },
    /// The hub has no such repository, revision or file.
    #[error("the hub at {endpoint} has no {what}; check the name (no local path has it either)")]
    NotFound {
        /// What is missing: "repository org/name", "revision x of org/name", "file f in org/name@x".
        what: String,
        /// The hub that was asked.
        endpoint: String,
    },
    /// A server kept asking to be left alone.
    #[error("{file}: {host} limits requests (429) and still did after {tries} tries; {}set HF_TOKEN for a higher limit, or try again later",
        asked_secs.map(|secs| format!("it asks to wait {secs} s; ")).unwrap_or_default())]
    TooManyRequests {
        /// What was asked for.
        file: String,
        /// The server.
        host: String,
        /// How many requests were made.
        tries: u32,
        /// How long it asked to wait.
        asked_secs: Option<u64>,
    },
    /// A server cannot be reached, or fails, or is silent, again and again.
    #[error("{file}: no answer from {host} after {tries} tries: {detail}; run the same command again to continue")]
    Unreachable {
        /// What was asked for.
        file: String,
        /// The server.
        host: String,
        /// How many requests were made.
        tries: u32,
        /// The last failure.
        detail: String,
    },
    /// The server's certificate is not trusted, or what answers speaks no TLS.
    #[error(
        "no trusted connection to {host}: {detail}; check HF_ENDPOINT, and behind a proxy with a certificate of its own set \
         SSL_CERT_FILE to its PEM file"
    )]
    Tls {
        /// The server.
        host: String,
        /// What is wrong.
        detail: String,
    },
    /// A server answers something that is not the hub's protocol.
    #[error("{file}: {host} answers what no hub does: {detail}; check HF_ENDPOINT and any proxy")]
    BadAnswer {
        /// What was asked for.
        file: String,
        /// The server.
        host: String,
        /// What is wrong.
        detail: String,
    },
    /// The repository names a file that could leave the cache.
    #[error("{repo}@{revision} names a file {name:?}, which {detail}; nothing of it was downloaded")]
    UnsafeName {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// The name.
        name: String,
        /// What is wrong with it.
        detail: String,
    },
    /// A downloaded file is not what was promised.
    #[error(
        "{file}: what {host} sent is not what the hub promises ({what} {found}, promised {promised}); it was deleted, run \
         the same command again"
    )]
    Corrupt {
        /// The file: `org/name@revision:file`.
        file: String,
        /// The server.
        host: String,
        /// "length" or the kind of checksum.
        what: &'static str,
        /// What arrived.
        found: String,
        /// What should have.
        promised: String,
    },
    /// The repository does not hold what is looked for in it.
    #[error("{repo}@{revision} {detail}")]
    NoModel {
        /// The repository.
        repo: String,
        /// The revision.
        revision: String,
        /// What is missing, and what can be done.
        detail: String,
    },
    /// The list of a model's shards cannot be used.
    #[error("{} {detail}; report it to the repository, or take another revision", path.display())]
    Index {
        /// The file in the cache.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// No room is left. The part that was downloaded stays and is continued.
    #[error(
        "the disk is full: {file} has {total} bytes, and {} holds {done} of them; free some space or move HF_HOME, and run \
         the same command again to continue",
        path.display()
    )]
    DiskFull {
        /// The file: `org/name@revision:file`.
        file: String,
        /// The part on the disk.
        path: PathBuf,
        /// How much of it there is.
        done: u64,
        /// How much there should be.
        total: u64,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl HubError {
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }

    pub(crate) fn setting(name: &str, detail: impl Into<String>) -> Self {
        Self::Setting { name: name.to_owned(), detail: detail.into() }
    }

    /// Whether the hub, or the way to it, is at fault, so that what the cache holds may be used instead.
    pub(crate) fn means_out_of_reach(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TooManyRequests { .. })
    }
}
