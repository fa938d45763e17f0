//! What the fuzz targets share: counted memory, places for files, mutators that keep a file's lengths true.
#![warn(missing_docs)]

pub mod containers;
pub mod gguf;
pub mod json;
pub mod layouts;
pub mod memory;
pub mod place;
pub mod rng;
pub mod shards;
pub mod words;

use std::backtrace::Backtrace;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use exegete_model::{Batch, Hooks, LoadOptions, Logits, Model, ModelError};
use exegete_tensor::Tape;

/// What the last panic said and where, where the reader may catch it.
static SAID: Mutex<Option<(String, Backtrace)>> = Mutex::new(None);
static HUSHED: AtomicBool = AtomicBool::new(false);

/// Prepares the process: one thread, so that coverage is the same each time; a panic is printed and unwinds, since a
/// panic of a dependency that the reader turns into an error is no fault (libFuzzer's own hook would abort before).
pub fn start() {
    // A pool that exists already serves as well.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(1).build_global();
    std::panic::set_hook(Box::new(|info| {
        // What the backtrace takes is not the reader's.
        memory::stop();
        let trace = Backtrace::force_capture();
        if HUSHED.load(Relaxed) {
            *SAID.lock().unwrap_or_else(PoisonError::into_inner) = Some((info.to_string(), trace));
        } else {
            eprintln!("{info}\n{trace}");
        }
    }));
}

/// Runs what may catch panics of its own, and prints only one that comes out of it.
pub fn guarded(f: impl FnOnce()) {
    HUSHED.store(true, Relaxed);
    let result = std::panic::catch_unwind(AssertUnwindSafe(f));
    HUSHED.store(false, Relaxed);
    if result.is_err() {
        if let Some((info, trace)) = SAID.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
            eprintln!("{info}\n{trace}");
        }
        std::process::abort();
    }
}

/// Says what came of an input where `EXEGETE_FUZZ_TELL` is set: to see whether seeds get as far as they should.
pub fn tell(what: &str) {
    assert!(!what.is_empty());
    if std::env::var_os("EXEGETE_FUZZ_TELL").is_some() {
        eprintln!("{what}");
    }
}

/// Writes `seeds` where `EXEGETE_FUZZ_SEEDS` says, for libFuzzer to read before it begins.
pub fn write_seeds(seeds: impl IntoIterator<Item = (String, Vec<u8>)>) {
    let Some(dir) = std::env::var_os("EXEGETE_FUZZ_SEEDS").map(PathBuf::from) else { return };
    std::fs::create_dir_all(&dir).expect("the folder of seeds can be made");
    for (name, bytes) in seeds {
        std::fs::write(dir.join(name), bytes).expect("a seed can be written");
    }
}

/// The goldens of the repository.
pub fn refs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../refs")
}

/// Every tiny model of `refs/` that is a directory, by a name of its own.
pub fn tiny_models() -> Vec<(String, PathBuf)> {
    let mut found = Vec::new();
    for group in ["families", "llama_tiny"] {
        for entry in std::fs::read_dir(refs().join(group)).expect("refs/ is there").flatten() {
            let path = entry.path();
            if path.join("config.json").is_file() {
                found.push((entry.file_name().to_string_lossy().into_owned(), path));
            }
        }
    }
    found.sort();
    found
}

/// What every reader may take beside four times its file: twice a whole tiny model in f32, its panels padded to
/// sixteen rows, tables of the allocator's and of regular expressions. No model in `refs/` takes half of it.
pub const ALLOWANCE: usize = 8 << 20;

/// Opens a model with memory counted and, if that works, runs three tokens through it.
///
/// A model that loads must run: the only refusal left is a request that it cannot serve, such as a context that is
/// longer than its own.
pub fn open_and_run(path: &Path, options: &LoadOptions, file_bytes: usize) {
    let opened = memory::bounded(4 * file_bytes + ALLOWANCE, || Model::open_with(path, options));
    let Ok(model) = opened.inspect_err(|e| tell(&format!("refused: {e}"))) else { return };
    let last = u32::try_from(model.spec.vocab_size - 1).expect("vocabularies are bounded");
    let batch = Batch::one(&[0, last / 2, last]);
    match model.run(&Tape::new(), &batch, None, &mut Hooks::none(), Logits::All) {
        Ok(_) => tell("ran"),
        Err(ModelError::Request(e)) => tell(&format!("cannot serve: {e}")),
        Err(e) => panic!("a model that loads does not run: {e}"),
    }
    let tokenizer = memory::bounded(4 * file_bytes + ALLOWANCE, || model.tokenizer());
    if let Ok(tokenizer) = tokenizer.inspect_err(|e| tell(&format!("no tokenizer: {e}"))) {
        let _ = tokenizer.encode_prompt("the <s> cat\u{2581}\u{e9}").map(|ids| tokenizer.decode(&ids));
    }
}
