//! What needs a model at hand. The pages know no model: whoever serves may give them one that answers.

use crate::wire::{TriedLatents, TriedText};

/// Answers questions about texts with a model and a run's dictionaries.
pub trait Session: Send + Sync {
    /// Most bytes of a text.
    fn max_text_bytes(&self) -> usize {
        4096
    }

    /// The text's tokens with a latent's activation on each.
    ///
    /// # Errors
    /// Words for the person who asked: a latent that there is not, a text that is too long, what the model says.
    fn activations(&self, dictionary: &str, latent: u32, text: &str) -> Result<TriedText, String>;

    /// The latents that fire on a text, each where it fires most strongly, in any order; of one token of it, where a position is
    /// given. How rare that is for a latent and what it is called is filled in by the pages.
    ///
    /// # Errors
    /// Words for the person who asked.
    fn latents(&self, dictionary: &str, text: &str, position: Option<usize>) -> Result<TriedLatents, String>;
}
