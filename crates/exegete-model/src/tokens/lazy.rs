//! A tokenizer that is built when text first comes in.

use std::sync::OnceLock;

use super::Tokenizer;
use crate::Result;

/// A tokenizer not built yet: it takes a good part of a small model's loading time and memory, and whoever works on
/// token ids needs none.
pub(crate) struct LazyTokenizer {
    build: Box<dyn Fn() -> Result<Tokenizer> + Send + Sync>,
    built: OnceLock<Tokenizer>,
}

impl LazyTokenizer {
    pub(crate) fn new(build: impl Fn() -> Result<Tokenizer> + Send + Sync + 'static) -> Self {
        Self { build: Box::new(build), built: OnceLock::new() }
    }

    /// The tokenizer of a model whose vocabulary has `vocab_size` rows.
    pub(crate) fn get(&self, vocab_size: usize) -> Result<&Tokenizer> {
        if let Some(tokenizer) = self.built.get() {
            return Ok(tokenizer);
        }
        let tokenizer = (self.build)()?;
        tokenizer.check_fits(vocab_size)?;
        // Of two threads that come here at once, one has built it in vain.
        Ok(self.built.get_or_init(|| tokenizer))
    }
}
