//! A tokenizer that is built when text first comes in.

use std::sync::{Mutex, OnceLock, PoisonError};

use super::Tokenizer;
use crate::Result;

/// A tokenizer not built yet: it takes a good part of a small model's loading time and memory, and whoever works on
/// token ids needs none.
pub(crate) struct LazyTokenizer {
    /// Dropped once it was of use: it holds the file that it reads.
    build: Mutex<Option<Build>>,
    built: OnceLock<Tokenizer>,
}

type Build = Box<dyn Fn() -> Result<Tokenizer> + Send>;

impl LazyTokenizer {
    pub(crate) fn new(build: impl Fn() -> Result<Tokenizer> + Send + 'static) -> Self {
        Self { build: Mutex::new(Some(Box::new(build))), built: OnceLock::new() }
    }

    /// The tokenizer of a model whose vocabulary has `vocab_size` rows.
    pub(crate) fn get(&self, vocab_size: usize) -> Result<&Tokenizer> {
        if let Some(tokenizer) = self.built.get() {
            return Ok(tokenizer);
        }
        // Of two threads that come here at once, the second finds it built.
        let mut build = self.build.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(make) = &*build {
            let tokenizer = make()?;
            tokenizer.check_fits(vocab_size)?;
            self.built.get_or_init(|| tokenizer);
            *build = None;
        }
        Ok(self.built.get().expect("what builds it is dropped once it is built"))
    }
}
