//! The crash tests' hook: dies at a chosen instant, so that a test can prove that a killed run resumes.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The environment variable that arms a killpoint, as `NAME:COUNT`.
pub const KILLPOINT_VAR: &str = "EXEGETE_KILLPOINT";

struct Armed {
    name: String,
    count: u64,
    reached: AtomicU64,
}

/// Marks an instant at which a crash must do no harm.
///
/// With `EXEGETE_KILLPOINT=NAME:COUNT` in the environment, the `COUNT`-th time (from 1) that `name` is reached the
/// process is killed at once, without unwinding or flushing, as by a power cut. Otherwise this costs one load.
pub fn killpoint(name: &str) {
    static ARMED: OnceLock<Option<Armed>> = OnceLock::new();
    let Some(armed) = ARMED.get_or_init(|| parse(&std::env::var(KILLPOINT_VAR).ok()?)) else { return };
    if armed.name == name && armed.reached.fetch_add(1, Ordering::Relaxed) + 1 == armed.count {
        die();
    }
}

fn parse(text: &str) -> Option<Armed> {
    let (name, count) = text.rsplit_once(':')?;
    Some(Armed { name: name.into(), count: count.parse().ok()?, reached: AtomicU64::new(0) })
}

fn die() -> ! {
    #[cfg(unix)]
    // SAFETY: both calls take plain numbers and touch no memory of ours.
    unsafe {
        libc::kill(libc::getpid(), libc::SIGKILL);
    }
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unarmed_killpoint_does_nothing_and_bad_values_arm_nothing() {
        killpoint("rename.before");
        assert!(parse("rename.before").is_none() && parse("a:b").is_none());
        let armed = parse("commit.after:3").unwrap();
        assert_eq!((armed.name.as_str(), armed.count), ("commit.after", 3));
    }
}
