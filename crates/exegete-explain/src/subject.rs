//! The model and the dictionary that explanations are about.

use std::sync::Arc;

use exegete_base::Site;
use exegete_model::{Batch, Hooks, Logits, Model, Tokenizer};
use exegete_sae::{Codes, Dictionary};
use exegete_tensor::{Tape, f32s};

use crate::{ExplainError, Result};

/// Tokens that are run at once.
const TOKENS_AT_ONCE: usize = 2048;

/// A model, a dictionary and the site that it reads.
pub struct Subject<'m> {
    /// The model.
    pub model: &'m Model,
    /// The dictionary.
    pub dictionary: Arc<dyn Dictionary>,
    /// The site.
    pub site: Site,
    /// What stands before a text, as in the run's windows.
    pub bos: Option<u32>,
}

impl Subject<'_> {
    /// The tokenizer.
    ///
    /// # Errors
    /// The model has none.
    pub fn tokenizer(&self) -> Result<&Tokenizer> {
        Ok(self.model.tokenizer()?)
    }

    /// A text's tokens as the run's windows have them.
    ///
    /// # Errors
    /// The tokenizer's.
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        let body = self.tokenizer()?.encode_text(text)?;
        Ok(self.bos.into_iter().chain(body).collect())
    }

    /// Codes of each row but its first position, which is computed for none, as in a harvest: token i of a row has the codes of
    /// number i - 1.
    ///
    /// # Errors
    /// The model's and the dictionary's.
    pub fn codes(&self, rows: &[Vec<u32>]) -> Result<Vec<Codes>> {
        let d = self.dictionary.d_in();
        let mut all = Vec::with_capacity(rows.len());
        let mut from = 0;
        while from < rows.len() {
            let mut to = from + 1;
            let mut n = rows[from].len();
            while to < rows.len() && n + rows[to].len() <= TOKENS_AT_ONCE {
                n += rows[to].len();
                to += 1;
            }
            let mut hooks = Hooks::none().tap(self.site);
            hooks.stop_after_layer = self.site.layer;
            let logits = if hooks.stop_after_layer.is_none() { Logits::All } else { Logits::None };
            self.model.run(&Tape::new(), &Batch::rows(&rows[from..to]), None, &mut hooks, logits)?;
            let value = hooks
                .value(self.site)
                .ok_or_else(|| ExplainError::request(format!("{} was not reached", self.site)))?;
            let codes = self.dictionary.encode(&f32s(value.tensor())?)?;
            debug_assert_eq!(codes.n_tokens(), f32s(value.tensor())?.len() / d);
            let mut at = 0;
            for row in &rows[from..to] {
                all.push(codes.part(at + 1..at + row.len().max(1)));
                at += row.len();
            }
            from = to;
        }
        Ok(all)
    }
}
