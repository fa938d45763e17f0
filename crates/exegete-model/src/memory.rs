//! What a run needs of memory, said before it is taken.

use crate::{ModelError, Result};

/// Below this no question is asked: it is less than what any machine that runs models has to spare.
const SMALL: usize = 256 << 20;

/// Refuses what the machine has no room for.
///
/// # Errors
/// `bytes` are more than the system says are available; the error names both numbers and says what to do.
pub fn check(bytes: usize, what: impl Fn() -> String, advice: &str) -> Result<()> {
    if bytes < SMALL {
        return Ok(());
    }
    match available_bytes() {
        Some(available) if bytes > available => Err(ModelError::Request(format!(
            "{} needs {} of memory, of which {} are available; {advice}",
            what(),
            human(bytes),
            human(available)
        ))),
        _ => Ok(()),
    }
}

/// Bytes as people say them.
fn human(bytes: usize) -> String {
    match bytes as f64 / (1u64 << 30) as f64 {
        gib if gib >= 1.0 => format!("{gib:.1} GiB"),
        gib => format!("{:.0} MiB", gib * 1024.0),
    }
}

/// What the system has to give without swapping, where it says so.
fn available_bytes() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let kib: usize = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}
