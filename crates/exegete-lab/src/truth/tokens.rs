//! Tokens of documents of the language, with the concepts that each has.

use exegete_model::Tokenizer;

use crate::language::{Language, Span, Split};
use crate::organism::vocabulary::START;
use crate::{LabError, Result};

/// Which tokens: those on which latents are chosen, or those on which they are scored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// For choosing.
    Choose,
    /// For scoring.
    Score,
}

/// Documents as tokens with concepts. The token that begins a document is in `rows` and has no number of its own.
#[derive(Debug, Clone)]
pub struct LabelledTokens {
    /// Ids of each document, begun.
    pub rows: Vec<Vec<u32>>,
    /// For each document the number of its first token behind the beginning.
    pub first: Vec<usize>,
    /// Where each token's concepts begin in `concepts`; one more entry than tokens.
    offsets: Vec<u32>,
    concepts: Vec<u32>,
    /// Documents before this one are for choosing.
    score_from: usize,
}

impl LabelledTokens {
    /// Documents of a seed until there are `n` tokens for choosing, and as many again for scoring.
    ///
    /// # Errors
    /// A tokenizer whose tokens do not spell the text.
    pub fn new(language: &Language, tokenizer: &Tokenizer, seed: u64, n: usize, longest: usize) -> Result<Self> {
        let mut this = Self { rows: vec![], first: vec![], offsets: vec![0], concepts: vec![], score_from: 0 };
        let mut index = 0;
        for half in [Half::Choose, Half::Score] {
            if half == Half::Score {
                this.score_from = this.rows.len();
            }
            let until = this.n_tokens() + n;
            while this.n_tokens() < until {
                let doc = language.document(seed, index, Split::Train);
                index += 1;
                let mut ids = tokenizer.encode_prompt(&doc.text)?;
                ids.truncate(longest - 1);
                this.add(tokenizer, &ids, &doc.text, &doc.spans)?;
            }
        }
        Ok(this)
    }

    fn add(&mut self, tokenizer: &Tokenizer, ids: &[u32], text: &str, spans: &[Span]) -> Result<()> {
        self.first.push(self.n_tokens());
        self.rows.push([&[START][..], ids].concat());
        let mut at = 0;
        for id in ids {
            let spelled = tokenizer.token_bytes(*id);
            let len = spelled.len();
            if len == 0 || text.as_bytes().get(at..at + len) != Some(&spelled[..]) {
                let detail = "the model's tokens do not spell the text byte for byte, so labels have no place";
                return Err(LabError::Failed(detail.into()));
            }
            at += len;
            // What is known at a token is what is known when its last byte has been read.
            let inside = |s: &&Span| (s.start as usize..s.end as usize).contains(&(at - 1));
            let before = self.concepts.len();
            self.concepts.extend(spans.iter().filter(inside).map(|s| s.concept));
            self.concepts[before..].sort_unstable();
            let mut kept = before;
            for i in before..self.concepts.len() {
                if kept == before || self.concepts[kept - 1] != self.concepts[i] {
                    self.concepts[kept] = self.concepts[i];
                    kept += 1;
                }
            }
            self.concepts.truncate(kept);
            self.offsets.push(self.concepts.len() as u32);
        }
        Ok(())
    }

    /// Tokens with a number.
    pub fn n_tokens(&self) -> usize {
        self.offsets.len() - 1
    }

    /// Numbers of the tokens of a half.
    pub fn half(&self, half: Half) -> std::ops::Range<usize> {
        let cut = self.first.get(self.score_from).copied().unwrap_or(self.n_tokens());
        match half {
            Half::Choose => 0..cut,
            Half::Score => cut..self.n_tokens(),
        }
    }

    /// Concepts of a token, ascending.
    pub fn of(&self, token: usize) -> &[u32] {
        &self.concepts[self.offsets[token] as usize..self.offsets[token + 1] as usize]
    }

    /// The document of a token.
    pub fn document(&self, token: usize) -> usize {
        self.first.partition_point(|f| *f <= token) - 1
    }

    /// Tokens with each concept, in a half.
    pub fn counts(&self, half: Half, n_concepts: usize) -> Vec<u32> {
        let mut counts = vec![0; n_concepts];
        for token in self.half(half) {
            self.of(token).iter().for_each(|c| counts[*c as usize] += 1);
        }
        counts
    }
}
