//! Tests that need something this machine may lack say so, and the gate counts them.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

/// The shared data pack, where `EXEGETE_DATA` names it.
pub fn data_dir() -> Option<PathBuf> {
    std::env::var_os("EXEGETE_DATA").map(PathBuf::from).filter(|dir| dir.is_dir())
}

/// SmolLM2-135M-Instruct in Q4_1, where `cargo xtask models` has put it.
pub fn real_model() -> Option<PathBuf> {
    let home = PathBuf::from(std::env::var_os("HOME")?);
    let path = home.join(".cache/exegete/models/SmolLM2-135M-Instruct.Q4_1.gguf");
    path.is_file().then_some(path)
}

/// Records that the calling test did not run: a line on stderr, and one in `EXEGETE_NOT_RUN_LOG`.
///
/// # Panics
/// If the log cannot be written: a test that silently did not run is what this prevents.
pub fn not_run(reason: &str) {
    // The binary's printer is not here, and the line is for whoever reads this test's output.
    #[allow(clippy::print_stderr)]
    {
        eprintln!("not run: {reason}");
    }
    let Some(log) = std::env::var_os("EXEGETE_NOT_RUN_LOG") else { return };
    let thread = std::thread::current();
    let test = std::env::var("NEXTEST_TEST_NAME").ok().or(thread.name().map(str::to_owned)).unwrap_or_default();
    let line = format!("{}\n", serde_json::json!({ "test": test, "reason": reason }));
    // One write of one line, so that tests running at the same time do not mix theirs.
    let mut file = OpenOptions::new().create(true).append(true).open(&log).expect("EXEGETE_NOT_RUN_LOG can be opened");
    file.write_all(line.as_bytes()).expect("EXEGETE_NOT_RUN_LOG can be written");
}

/// The shared data pack's path; without it the test returns as not run.
///
/// A test that returns a value gives it as the argument: `require_data!(Ok(()))`.
#[macro_export]
macro_rules! require_data {
    ($($returned:expr)?) => {
        match $crate::data_dir() {
            Some(dir) => dir,
            None => {
                $crate::not_run("no data pack (EXEGETE_DATA)");
                return $($returned)?;
            }
        }
    };
}

/// The real model's path; without it the test returns as not run.
///
/// A test that returns a value gives it as the argument: `require_real_model!(Ok(()))`.
#[macro_export]
macro_rules! require_real_model {
    ($($returned:expr)?) => {
        match $crate::real_model() {
            Some(path) => path,
            None => {
                $crate::not_run("no real model (cargo xtask models)");
                return $($returned)?;
            }
        }
    };
}
