//! Many small trainings, spread over threads; the calling thread tells of progress and listens for an interruption.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use exegete_harvest::Progress;

use crate::{LabError, Result};

/// How often the calling thread looks whether to stop.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// `work(item, is_cancelled)` of every item, in their order whatever the number of threads.
///
/// # Errors
/// [`LabError::Interrupted`] if the user wants to stop.
pub(crate) fn run_all<T: Sync, R: Send>(
    stage: &str,
    items: &[T],
    progress: &dyn Progress,
    work: impl Fn(&T, &(dyn Fn() -> bool + Sync)) -> Option<R> + Sync,
) -> Result<Vec<R>> {
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let is_cancelled = || stop.load(Ordering::Relaxed);
    let n_workers = rayon::current_num_threads().clamp(1, items.len().max(1));
    let mut results: Vec<Option<R>> = items.iter().map(|_| None).collect();
    progress.begin(stage, items.len() as u64, "runs", 0);
    std::thread::scope(|scope| {
        let (sender, finished) = channel();
        for _ in 0..n_workers {
            let (sender, next, work, is_cancelled) = (sender.clone(), &next, &work, &is_cancelled);
            scope.spawn(move || {
                while !is_cancelled() {
                    let idx = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(idx) else { return };
                    let Some(result) = work(item, is_cancelled) else { return };
                    // The receiver lives as long as the scope.
                    let _ = sender.send((idx, result));
                }
            });
        }
        drop(sender);
        let mut done = 0;
        loop {
            match finished.recv_timeout(LOOK_EVERY) {
                Ok((idx, result)) => {
                    results[idx] = Some(result);
                    done += 1;
                    progress.at(done, "");
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if progress.is_cancelled() {
                stop.store(true, Ordering::Relaxed);
            }
        }
    });
    if progress.is_cancelled() {
        return Err(LabError::Interrupted);
    }
    progress.end(&format!("{} runs", items.len()));
    // Without an interruption every run gave its result: a panic of one would have come out of the scope.
    results.into_iter().collect::<Option<Vec<R>>>().ok_or(LabError::Interrupted)
}
