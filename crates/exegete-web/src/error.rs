//! Why a run cannot be shown.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use exegete_store::StoreError;
use thiserror::Error;

/// Result of this crate.
pub type Result<T, E = WebError> = std::result::Result<T, E>;

/// Why a run cannot be shown.
#[derive(Debug, Error)]
pub enum WebError {
    /// The run cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The run holds nothing to show yet.
    #[error("run {} has no {missing} yet and trains no dictionary: let the command that makes it finish, then serve it", run.display())]
    Unfinished {
        /// The run directory.
        run: PathBuf,
        /// The part that is missing.
        missing: &'static str,
    },
    /// An address that others could reach, and no token.
    #[error("{0} can be reached from outside this machine, so it needs a token")]
    NotLoopback(SocketAddr),
    /// A token that is no good.
    #[error("--token: a token has at least {0} letters, digits and signs of -_.~")]
    Token(usize),
    /// What is asked for is not there.
    #[error("{0}")]
    Absent(String),
    /// A text has more bytes than are tried at once.
    #[error("the text has {len} bytes, at most {most} are tried at once")]
    TooLong {
        /// Its bytes.
        len: usize,
        /// Most bytes.
        most: usize,
    },
    /// What is sent is not as it should be, or the model that is at hand has something against it.
    #[error("{0}")]
    Refused(String),
    /// As many texts are tried as can be at once.
    #[error("other texts are being tried; try again in a moment")]
    Busy,
    /// A change that the run does not take.
    #[error("this run cannot be written to, so nothing was kept: {reason}")]
    Unwritable {
        /// Why.
        reason: String,
    },
    /// The address cannot be used.
    #[error("cannot serve on {addr}: {source}")]
    Bind {
        /// The address.
        addr: SocketAddr,
        /// The system's answer.
        source: io::Error,
    },
    /// The server failed.
    #[error("the server stopped: {0}")]
    Serve(io::Error),
    /// A figure cannot be drawn.
    #[error(transparent)]
    Figure(#[from] exegete_figure::FigureError),
}
