//! Ctrl-C: the first asks the work to stop at the next safe instant, the second ends the program.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Exit status of interrupted work, which the same command resumes.
pub(crate) const STATUS: u8 = 130;

/// Begins to listen for SIGINT and SIGTERM: for long work that stops between two steps.
pub(crate) fn listen() {
    #[cfg(unix)]
    // SAFETY: the handler only touches an atomic and calls `_exit`, both allowed in a signal handler.
    unsafe {
        let handler: extern "C" fn(libc::c_int) = on_signal;
        libc::signal(libc::SIGINT, handler as libc::sighandler_t);
        libc::signal(libc::SIGTERM, handler as libc::sighandler_t);
    }
}

/// Gives the signals back their usual effect, for work that need not be resumed.
pub(crate) fn stop_listening() {
    #[cfg(unix)]
    // SAFETY: resets signals to their defaults.
    unsafe {
        libc::signal(libc::SIGINT, libc::SIG_DFL);
        libc::signal(libc::SIGTERM, libc::SIG_DFL);
    }
}

/// Gives SIGPIPE back its usual effect, which Rust's runtime takes away.
pub(crate) fn die_of_broken_pipes() {
    #[cfg(unix)]
    // SAFETY: resets a signal to its default.
    unsafe {
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
    }
}

/// Whether the user asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

#[cfg(unix)]
extern "C" fn on_signal(_: libc::c_int) {
    if ASKED.swap(true, Ordering::Relaxed) {
        // SAFETY: `_exit` may be called from a signal handler.
        unsafe { libc::_exit(i32::from(STATUS)) };
    }
}
