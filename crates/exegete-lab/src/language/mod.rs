//! The language of the organism: English-like documents over a closed world, of which everything is known.
//!
//! A document is made by choices that know their probability ([`Draw`]), so that it comes with its own -log p, and with
//! the concepts that are present at each byte.

mod chat;
mod choice;
mod concepts;
mod doc;
mod draw;
mod facts;
mod grammar;
mod kinds;
mod lexicon;
pub mod probes;
mod sentences;
mod stories;
mod tasks;
mod telling;
mod words;

use exegete_base::sampling::pair_hash;
use xxhash_rust::xxh3::xxh3_64;

use self::chat::Opinions;
pub use self::concepts::{Concept, Concepts, Reach};
use self::doc::Doc;
pub use self::doc::Span;
pub use self::draw::Draw;
use self::facts::Facts;
pub use self::kinds::{DocumentKind, KINDS_OF_DOCUMENTS, Mix};
use self::lexicon::Lexicon;

/// Which combinations of words, facts and questions a document may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Split {
    /// Those of training.
    Train,
    /// Those that no training document has.
    Held,
}

impl Split {
    /// Whether its documents may use a combination, which is set apart or not: training takes those that are not, tests
    /// those that are.
    pub(crate) fn may(self, is_held: bool) -> bool {
        is_held == (self == Self::Held)
    }
}

/// Whether a combination is set apart for tests: one in `one_in` is.
fn is_held(one_in: u64, parts: &[&str]) -> bool {
    xxh3_64(parts.join("\u{1f}").as_bytes()).is_multiple_of(one_in)
}

/// A finished document.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Its text.
    pub text: String,
    /// Where each concept is present, in order.
    pub spans: Vec<Span>,
    /// Its kind, as a number of [`KINDS_OF_DOCUMENTS`].
    pub kind: usize,
    /// -log p of what shows, given what stands behind it, in nats.
    pub visible_nats: f64,
    /// -log p of what stands behind it: kind, style, topic, task.
    pub hidden_nats: f64,
}

/// The language; there is one.
#[derive(Debug, Clone)]
pub struct Language {
    words: Lexicon,
    facts: Facts,
    opinions: Opinions,
    concepts: Concepts,
}

impl Default for Language {
    fn default() -> Self {
        Self::new()
    }
}

impl Language {
    /// The language.
    pub fn new() -> Self {
        let words = Lexicon::new();
        let facts = Facts::new(&words);
        let opinions = Opinions::new(&words, &facts);
        let concepts = Concepts::new(&words);
        Self { words, facts, opinions, concepts }
    }

    /// Everything that it has a name for.
    pub fn concepts(&self) -> &Concepts {
        &self.concepts
    }

    /// Document number `index` of a seed. Any of them can be made without those before it.
    pub fn document(&self, seed: u64, index: u64, split: Split) -> Document {
        self.document_in(Mix::Usual, seed, index, split)
    }

    /// As [`Language::document`], with kinds as often as they are in a mix.
    pub fn document_in(&self, mix: Mix, seed: u64, index: u64, split: Split) -> Document {
        let mut doc = Doc::new(self, pair_hash(seed, index, 0), split);
        let weights = KINDS_OF_DOCUMENTS.each_ref().map(|kind| if mix == Mix::Late { kind.late } else { kind.weight });
        let kind = doc.draw.hidden(|d| d.weighted(&weights));
        self.write(doc, kind)
    }

    fn write(&self, mut doc: Doc, kind: usize) -> Document {
        let row = &KINDS_OF_DOCUMENTS[kind];
        doc.within(&format!("doc:{}", row.name), |doc| (row.write)(doc));
        doc.label_rest();
        doc.spans.sort_unstable();
        let (visible_nats, hidden_nats) = (doc.draw.visible_nats(), doc.draw.hidden_nats());
        Document { text: doc.text, spans: doc.spans, kind, visible_nats, hidden_nats }
    }
}
