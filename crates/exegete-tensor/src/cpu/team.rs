//! Loops over tasks on all threads, without the cost of waking them each time.
//!
//! A step of generation is a chain of some two hundred loops of ten to a hundred microseconds with a little in between,
//! and a system needs as long to put a thread to sleep and wake it. So helpers stay awake for a moment
//! after a loop, as those of OpenMP do, and the calling thread does its share instead of waiting.
//!
//! A caller that is itself one of many (a thread of rayon, or a second thread while a loop runs) finds the cores in
//! use: its tasks go to rayon, which shares them out among all such callers.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::*};
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, TryLockError};
use std::time::{Duration, Instant};

use rayon::prelude::*;

/// How long a helper waits awake. Longer than what lies between the loops of one step of a model, shorter than anyone
/// else on these cores would notice.
const AWAKE: Duration = Duration::from_micros(100);
/// Looks at the state between two looks at the clock.
const LOOKS: u32 = 64;

/// Runs `f` for each task of `0..n`, on all threads that rayon was given.
///
/// Tasks are begun in order within a thread's share of them, which is contiguous, so that neighbours mostly share a
/// thread.
///
/// # Panics
/// If a task does.
pub fn for_tasks(n: usize, f: impl Fn(usize) + Sync) {
    if n <= 1 || WORKING.get() {
        return (0..n).for_each(f);
    }
    let lead = if rayon::current_thread_index().is_some() { None } else { team().lead() };
    match lead {
        Some(lead) => lead.run(n, &f),
        None => (0..n).into_par_iter().with_max_len(1).for_each(&f),
    }
}

thread_local! {
    /// Whether the thread runs a task of a team: a loop inside a task is its own.
    static WORKING: Cell<bool> = const { Cell::new(false) };
}

/// The only team; its threads live as long as the process.
fn team() -> &'static Team {
    static TEAM: OnceLock<&'static Team> = OnceLock::new();
    TEAM.get_or_init(|| {
        let n = rayon::current_num_threads();
        let team: &'static Team = Box::leak(Box::new(Team {
            leader: Mutex::new(()),
            state: Line(AtomicU64::new(CLOSED)),
            shares: (0..n).map(|_| Line((AtomicUsize::new(0), AtomicUsize::new(0)))).collect(),
            job: Mutex::new(None),
            panic: Mutex::new(None),
            asleep: AtomicUsize::new(0),
            bed: Mutex::new(()),
            morning: Condvar::new(),
        }));
        for i in 1..n {
            // Without a helper the others do its share.
            let _ = std::thread::Builder::new().name(format!("kernels-{i}")).spawn(move || team.help(i));
        }
        team
    })
}

/// Alone in its cache line, or rather in the two that a processor fetches together.
#[repr(align(128))]
struct Line<T>(T);

/// In the state: the loop takes no more helpers. Above it the number of the loop, below it helpers inside.
const CLOSED: u64 = 1 << 31;
/// In the state: helpers inside.
const INSIDE: u64 = CLOSED - 1;

struct Team {
    /// Held by the thread whose loop runs.
    leader: Mutex<()>,
    /// The number of the loop, whether it is closed, and how many helpers are inside.
    state: Line<AtomicU64>,
    /// For each thread, the next task of its share and the end of the share.
    shares: Vec<Line<(AtomicUsize, AtomicUsize)>>,
    /// The loop, while one is open.
    job: Mutex<Option<Job>>,
    /// What a helper's task panicked with.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    /// Helpers that sleep or are about to.
    asleep: AtomicUsize,
    bed: Mutex<()>,
    morning: Condvar,
}

/// The body of a loop. It outlives the loop's being open and the helpers inside, and no longer.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn(usize) + Sync));
// SAFETY: what it points to may be called from any thread.
unsafe impl Send for Job {}

/// The right to run a loop.
struct Lead<'a> {
    team: &'a Team,
    _only: MutexGuard<'a, ()>,
}

impl Team {
    fn lead(&self) -> Option<Lead<'_>> {
        match self.leader.try_lock() {
            Ok(only) => Some(Lead { team: self, _only: only }),
            // A task that panicked left the team in order.
            Err(TryLockError::Poisoned(only)) => Some(Lead { team: self, _only: only.into_inner() }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Does all tasks that are left, first those of the share `own`.
    fn work(&self, own: usize, f: &(dyn Fn(usize) + Sync)) {
        WORKING.set(true);
        let _after = AtEnd(|| WORKING.set(false));
        for i in 0..self.shares.len() {
            let Line((next, end)) = &self.shares[(own + i) % self.shares.len()];
            let end = end.load(Relaxed);
            loop {
                let task = next.fetch_add(1, Relaxed);
                if task >= end {
                    break;
                }
                f(task);
            }
        }
    }

    /// The life of a helper.
    fn help(&self, own: usize) {
        let mut seen = 0;
        loop {
            let state = self.wait(seen);
            seen = state >> 32;
            // Inside, the loop cannot end; one that is closed already has no need of us.
            let mut inside = state;
            while inside >> 32 == seen && inside & CLOSED == 0 {
                match self.state.0.compare_exchange_weak(inside, inside + 1, AcqRel, Relaxed) {
                    Ok(_) => {
                        let job = *lock(&self.job);
                        if let Some(Job(f)) = job {
                            // SAFETY: the loop waits for helpers inside, so its body lives.
                            let result = catch_unwind(AssertUnwindSafe(|| self.work(own, unsafe { &*f })));
                            if let Err(what) = result {
                                *lock(&self.panic) = Some(what);
                            }
                        }
                        self.state.0.fetch_sub(1, Release);
                        break;
                    }
                    Err(now) => inside = now,
                }
            }
        }
    }

    /// Waits for a loop other than the one numbered `seen`: for a moment awake, then asleep.
    fn wait(&self, seen: u64) -> u64 {
        let since = Instant::now();
        loop {
            for _ in 0..LOOKS {
                let state = self.state.0.load(Acquire);
                if state >> 32 != seen {
                    return state;
                }
                std::hint::spin_loop();
            }
            if since.elapsed() > AWAKE {
                break;
            }
        }
        // Either we see the new loop, or its leader sees that we sleep: both sides write, then read.
        let mut bed = lock(&self.bed);
        self.asleep.fetch_add(1, SeqCst);
        let state = loop {
            let state = self.state.0.load(SeqCst);
            if state >> 32 != seen {
                break state;
            }
            bed = self.morning.wait(bed).unwrap_or_else(|e| e.into_inner());
        };
        self.asleep.fetch_sub(1, SeqCst);
        state
    }
}

impl Lead<'_> {
    fn run<'f>(self, n: usize, f: &'f (dyn Fn(usize) + Sync + 'f)) {
        let team = self.team;
        // What a helper panicked with in a loop that the leader's own panic ended is no matter of this one.
        *lock(&team.panic) = None;
        let threads = team.shares.len();
        for (i, Line((next, end))) in team.shares.iter().enumerate() {
            next.store(n * i / threads, Relaxed);
            end.store(n * (i + 1) / threads, Relaxed);
        }
        // SAFETY: only the lifetime changes; `close` below runs before `f` ends, also when a task panics.
        let f_static =
            unsafe { std::mem::transmute::<&'f (dyn Fn(usize) + Sync + 'f), &'static (dyn Fn(usize) + Sync)>(f) };
        *lock(&team.job) = Some(Job(f_static));
        let number = (team.state.0.load(Relaxed) >> 32).wrapping_add(1) & u64::from(u32::MAX);
        team.state.0.store(number << 32, SeqCst);
        if team.asleep.load(SeqCst) > 0 {
            drop(lock(&team.bed));
            team.morning.notify_all();
        }
        {
            let _close = AtEnd(|| self.close());
            team.work(0, f);
        }
        if let Some(what) = lock(&team.panic).take() {
            resume_unwind(what);
        }
    }

    /// Lets no more helpers in and waits for those inside.
    fn close(&self) {
        let state = &self.team.state.0;
        state.fetch_or(CLOSED, AcqRel);
        let mut looks = 0u32;
        while state.load(Acquire) & INSIDE != 0 {
            looks = looks.wrapping_add(1);
            // A helper without a core of its own needs ours.
            if looks.is_multiple_of(64 * LOOKS) { std::thread::yield_now() } else { std::hint::spin_loop() }
        }
        *lock(&self.team.job) = None;
    }
}

/// A lock that a panic elsewhere does not spoil: nothing behind these is left half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|e| e.into_inner())
}

/// Runs something at the end of a scope, also when that is left by a panic.
struct AtEnd<F: Fn()>(F);

impl<F: Fn()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often each task of a loop ran.
    fn counts(n: usize) -> Vec<usize> {
        let counts: Vec<AtomicUsize> = (0..n).map(|_| AtomicUsize::new(0)).collect();
        for_tasks(n, |task| {
            counts[task].fetch_add(1, Relaxed);
        });
        counts.into_iter().map(AtomicUsize::into_inner).collect()
    }

    #[test]
    fn each_task_runs_once_however_long_the_helpers_slept() {
        for round in 0..300 {
            let n = round % 37;
            assert_eq!(counts(n), vec![1; n]);
            // Awake, about to sleep, asleep.
            std::thread::sleep(AWAKE * (round % 5) as u32 / 2);
        }
    }

    #[test]
    fn loops_of_many_threads_and_within_tasks_do_not_mix() {
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| (0..200).for_each(|n| assert_eq!(counts(n % 23), vec![1; n % 23])));
            }
        });
        let inner: Vec<Mutex<Vec<usize>>> = (0..9).map(|_| Mutex::new(Vec::new())).collect();
        for_tasks(9, |task| *inner[task].lock().unwrap() = counts(5));
        assert!(inner.iter().all(|c| *c.lock().unwrap() == [1; 5]));
        rayon::scope(|s| s.spawn(|_| assert_eq!(counts(50), vec![1; 50])));
    }

    #[test]
    fn a_panic_reaches_the_caller_and_leaves_the_team_usable() {
        for _ in 0..20 {
            let all_fail = || for_tasks(64, |task| panic!("task {task}"));
            assert!(catch_unwind(AssertUnwindSafe(all_fail)).is_err());
            assert_eq!(counts(64), vec![1; 64]);
        }
        for culprit in [0, 3, 63] {
            let loop_of_64 = || for_tasks(64, |task| assert!(task != culprit, "task {task}"));
            let what = catch_unwind(AssertUnwindSafe(loop_of_64)).unwrap_err();
            let text = what.downcast_ref::<String>().cloned().unwrap_or_default();
            assert_eq!(text, format!("task {culprit}"));
            assert_eq!(counts(64), vec![1; 64]);
        }
    }
}
