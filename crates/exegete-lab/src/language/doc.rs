//! A document under construction: its text, which concept is where, and the choices that made it.

use super::draw::Draw;
use super::lexicon::{Class, Lexicon, WordId};
use super::{Language, Split};

/// Words that stand in fixed sentences alone, and what is known of them.
const FIXED: &[(&str, &str)] = &[
    ("is", "verb:singular"),
    ("was", "verb:singular"),
    ("are", "verb:plural"),
    ("were", "verb:plural"),
    ("gave", "form:past"),
    ("said", "form:past"),
    ("did", "form:past"),
    ("lived", "form:past"),
    ("coins", "form:plural"),
    ("wheels", "form:plural"),
    ("nails", "form:plural"),
    ("stones", "form:plural"),
    ("strings", "form:plural"),
    ("leaves", "form:plural"),
];

/// A stretch of a document's text in which a concept is present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// The byte behind the last.
    pub end: u32,
    /// Number of the concept.
    pub concept: u32,
}

/// A form of a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// As in the dictionary.
    Base,
    /// Plural or past.
    Other,
    /// In capitals.
    Upper,
}

/// What fills a gap of a sentence.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Item<'a> {
    /// A word with all that is known of it.
    Word(WordId, Form),
    /// Text with a concept.
    Marked(&'a str, &'static str),
    /// Text.
    Plain(&'a str),
}

/// A word as in the dictionary.
pub(crate) fn base(id: WordId) -> Item<'static> {
    Item::Word(id, Form::Base)
}

/// A document under construction.
pub(crate) struct Doc<'l> {
    pub(crate) lang: &'l Language,
    pub(crate) draw: Draw,
    pub(crate) split: Split,
    pub(crate) text: String,
    pub(crate) spans: Vec<Span>,
}

impl<'l> Doc<'l> {
    pub(crate) fn new(lang: &'l Language, seed: u64, split: Split) -> Self {
        Self { lang, draw: Draw::new(seed), split, text: String::new(), spans: Vec::new() }
    }

    pub(crate) fn words(&self) -> &'l Lexicon {
        &self.lang.words
    }

    /// Adds text.
    pub(crate) fn say(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Marks what has been added since `start` bytes.
    pub(crate) fn mark_from(&mut self, start: usize, concept: &str) {
        let Some(concept) = self.lang.concepts.find(concept) else { unreachable!("no concept {concept}") };
        // Space before a phrase is not part of it.
        let skipped = self.text[start..].len() - self.text[start..].trim_start().len();
        if start + skipped < self.text.len() {
            self.spans.push(Span { start: (start + skipped) as u32, end: self.text.len() as u32, concept });
        }
    }

    /// Marks what stands last, a word's last letter or a run of signs: the place where what comes next is decided.
    pub(crate) fn mark_before(&mut self, concept: &str) {
        let before = self.text.trim_end_matches(' ');
        let Some(last) = before.chars().next_back() else { return };
        let start = match last {
            c if c.is_alphanumeric() => before.len() - c.len_utf8(),
            c if c.is_whitespace() => before.trim_end_matches(c).len(),
            _ => before.trim_end_matches(|c: char| !c.is_alphanumeric() && !c.is_whitespace()).len(),
        };
        let end = before.len();
        self.mark_at(start, end, concept);
    }

    /// Adds what `f` adds, and marks it.
    pub(crate) fn within<T>(&mut self, concept: &str, f: impl FnOnce(&mut Self) -> T) -> T {
        let start = self.text.len();
        let out = f(self);
        self.mark_from(start, concept);
        out
    }

    /// Adds a sentence whose gaps `{}` are filled in order.
    pub(crate) fn fill(&mut self, sentence: &str, items: &[Item]) {
        let mut pieces = sentence.split("{}");
        self.say(pieces.next().unwrap_or_default());
        let mut items = items.iter();
        for piece in pieces {
            let Some(item) = items.next() else { unreachable!("too few items for {sentence:?}") };
            self.put(*item);
            self.say(piece);
        }
        debug_assert!(items.next().is_none(), "too many items for {sentence:?}");
    }

    /// Adds an item.
    pub(crate) fn put(&mut self, item: Item) {
        match item {
            Item::Plain(text) => self.say(text),
            Item::Marked(text, concept) => self.within(concept, |doc| doc.say(text)),
            Item::Word(id, form) => self.put_word(id, form),
        }
    }

    fn put_word(&mut self, id: WordId, form: Form) {
        let word = self.words().get(id);
        if let Some(slot) = word.class.slot() {
            self.mark_before(&format!("expects:{slot}"));
        }
        let start = self.text.len();
        match form {
            Form::Base => self.say(&word.text),
            Form::Other => self.say(word.other.as_deref().unwrap_or(&word.text)),
            Form::Upper => self.say(&word.text.to_uppercase()),
        }
        self.mark_word(start, self.text.len(), id);
        match form {
            // A single capital can begin a name.
            Form::Upper => self.mark_from(start + 1, "form:upper"),
            Form::Other => self.mark_other(start, self.text.len(), id),
            Form::Base => {}
        }
    }

    /// Labels words that stand in fixed parts of sentences like those that were put: a label is on a word wherever it
    /// stands.
    pub(crate) fn label_rest(&mut self) {
        let words: Vec<(usize, String)> = self
            .text
            .split(|c: char| !c.is_ascii_alphabetic())
            .filter(|w| !w.is_empty())
            .map(|w| (w.as_ptr() as usize - self.text.as_ptr() as usize, w.to_owned()))
            .collect();
        let mut before = String::new();
        for (start, text) in words {
            let end = start + text.len();
            let lower = text.to_lowercase();
            for (_, concept) in FIXED.iter().filter(|(word, _)| *word == lower) {
                self.mark_at(end - 1, end, concept);
            }
            let is_participle = matches!(before.as_str(), "is" | "are");
            before = lower;
            // A sentence gives its first word a capital.
            let Some((id, is_other)) = self.words().spelled(&text).or_else(|| self.words().spelled(&before)) else {
                continue;
            };
            let word = self.words().get(id);
            let Some(concept) = self.lang.concepts.find(&format!("word:{}", word.text)) else { continue };
            let there = |s: &Span| s.concept == concept && (start..end).contains(&(s.start as usize));
            if self.spans.iter().any(there) {
                continue;
            }
            self.mark_word(start, end, id);
            if is_other && !is_participle {
                self.mark_other(start, end, id);
            }
        }
    }

    fn mark_at(&mut self, start: usize, end: usize, concept: &str) {
        let Some(concept) = self.lang.concepts.find(concept) else { unreachable!("no concept {concept}") };
        let span = Span { start: start as u32, end: end as u32, concept };
        if !self.spans.contains(&span) {
            self.spans.push(span);
        }
    }

    /// Marks the plural or the past of a word: its ending, or the last letter where the whole word is another.
    fn mark_other(&mut self, start: usize, end: usize, id: WordId) {
        let word = self.words().get(id);
        let is_ending = self.text[start..end].starts_with(&word.text);
        let from = if is_ending { start + word.text.len() } else { end - 1 };
        let is_past = matches!(word.class, Class::Verb | Class::Mood);
        self.mark_at(from, end, if is_past { "form:past" } else { "form:plural" });
    }

    /// Marks a word with all that is known of it, where it has been read: from the last letter of the first of its forms
    /// that is whole (`dogs` from its `g`), not in its midst, where it could still become another. What a Lumi word means
    /// is known as well.
    fn mark_word(&mut self, start: usize, end: usize, id: WordId) {
        let words = self.words();
        let mut word = words.get(id);
        if word.class == Class::Grammar {
            return;
        }
        let form = &self.text.as_bytes()[start..end];
        let begins_whole =
            form.get(..word.text.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word.text.as_bytes()));
        let from = if begins_whole { start + word.text.len() - 1 } else { end - 1 };
        if let Some(meant) = word.lumi {
            let english = if word.class == Class::Lumi { words.get(meant) } else { word };
            self.mark_at(from, end, &format!("meaning:{}", english.text));
            if word.class == Class::Lumi {
                self.mark_at(from, end, "class:lumi");
                self.mark_at(from, end, &format!("lumi:{}", english.text));
            }
        }
        if word.class == Class::Lumi {
            word = words.get(word.lumi.unwrap_or(id));
        } else {
            self.mark_at(from, end, &format!("word:{}", word.text));
        }
        self.mark_at(from, end, &format!("class:{}", word.class.name()));
        if word.class == Class::Thing {
            self.mark_at(from, end, &format!("kind:{}", word.kind));
            self.mark_at(from, end, &format!("group:{}", Lexicon::group(word.kind)));
            self.mark_at(from, end, &format!("hue:{}", word.colour));
        }
    }

    /// One of the three ways of asking that this document may use, where the way `held` is set apart.
    pub(crate) fn way_of_asking(&mut self, held: usize) -> usize {
        let split = self.split;
        self.draw.pick_where(&[0, 1, 2], |way| split.may(way == held)).unwrap_or(held)
    }
}
