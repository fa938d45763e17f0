//! What a resolution tells while it runs.

use std::time::Duration;

/// Something that whoever waits for a download may want to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownloadEvent<'a> {
    /// Bytes of a file have arrived. The first event of a file has what an earlier run left of it, the last one has
    /// `done == total`; a file that is in the cache already has none.
    Progress {
        /// The file's path in the repository.
        file: &'a str,
        /// Bytes on the disk.
        done: u64,
        /// Bytes of the whole file.
        total: u64,
    },
    /// Nothing happens for a while: the server asked for it, a connection failed, or another process downloads the
    /// same file.
    Waiting {
        /// Why.
        reason: &'a str,
        /// For how long, where that is known.
        pause: Option<Duration>,
    },
    /// The hub cannot be reached, and what the cache holds of this revision is used as it is.
    UsingCache {
        /// Why the hub cannot be reached.
        reason: &'a str,
    },
}

/// Where events go.
pub(crate) type Events<'a> = &'a dyn Fn(DownloadEvent<'_>);
