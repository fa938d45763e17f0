//! What tests share: goldens from `refs/`, tolerances, and a way to say that a test did not run.
//!
//! Everything here panics on failure, since its only callers are tests.

mod close;
mod golden;
mod not_run;
mod sorter;

pub use close::{assert_close, assert_rel_l2, rel_l2};
pub use golden::{Golden, refs_dir};
pub use not_run::{data_dir, not_run, real_model};
pub use sorter::{sorter_file, sorter_tensor, write_sorter};
