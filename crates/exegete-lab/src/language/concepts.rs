//! The concepts that the generator knows, each with a number.

use std::collections::HashMap;

use super::kinds::KINDS_OF_DOCUMENTS;
use super::lexicon::{Class, Lexicon};
use super::tasks::TASKS;
use super::words::{COLOURS, KINDS, PLACES};

/// Over how much text a concept reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// A word.
    Token,
    /// A phrase or a sentence.
    Phrase,
    /// A document, or most of it.
    Topic,
}

/// A concept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concept {
    /// Its name: what it is of, a colon, which: `word:dog`, `lumi:dog` (the Lumi word), `meaning:dog` (either), `kind:mammal`, `task:antonym`; `expects:colour` is where a
    /// colour comes next.
    pub name: String,
    /// Over how much text it reaches.
    pub reach: Reach,
    /// The concept above it in a hierarchy: `kind:mammal` has `group:animal`.
    pub parent: Option<u32>,
}

/// All concepts.
#[derive(Debug, Clone)]
pub struct Concepts {
    all: Vec<Concept>,
    by_name: HashMap<String, u32>,
}

/// Concepts of words beside the lexicon's.
const TOKENS: &[&str] = &[
    "will:tell",
    "will:define",
    "will:help",
    "will:refuse",
    "will:agree",
    "will:confirm",
    "will:correct",
    "form:plural",
    "form:past",
    "form:upper",
    "pronoun:he",
    "pronoun:she",
    "verb:singular",
    "verb:plural",
    "fact:capital",
    "fact:flag",
    "fact:crop",
    "fact:arms",
    "fact:home",
    "fact:work",
    "fact:pet",
    "fact:music",
    "fact:kind",
    "fact:colour",
    "fact:place",
    "role:distractor",
    "role:receiver",
    "negation:not",
    "choice:letter",
    "choice:answer",
];
/// Concepts of phrases.
const PHRASES: &[&str] = &[
    "phrase:place",
    "phrase:definition",
    "phrase:question",
    "phrase:quote",
    "phrase:refusal",
    "phrase:agreement",
    "phrase:correction",
    "phrase:forbidden",
    "phrase:harmless",
    "opinion:true",
    "opinion:false",
    "choice:right",
    "spelling:letters",
];
/// Concepts of whole documents, beside kinds, topics and tasks.
const TOPICS: &[&str] = &["language:lumi", "system:honest", "style:plain", "style:tale", "style:diary", "style:report"];

impl Concepts {
    /// The concepts of a lexicon.
    pub(crate) fn new(words: &Lexicon) -> Self {
        let mut all = Self { all: Vec::new(), by_name: HashMap::new() };
        for (kind, group) in KINDS {
            let group = all.add(format!("group:{group}"), Reach::Token, None);
            all.add(format!("kind:{kind}"), Reach::Token, Some(group));
        }
        for word in words.words.iter().filter(|w| w.class != Class::Grammar) {
            all.add(format!("class:{}", word.class.name()), Reach::Token, None);
        }
        for word in words.words.iter().filter(|w| !matches!(w.class, Class::Grammar | Class::Lumi)) {
            let parent = match word.class {
                Class::Thing => format!("kind:{}", word.kind),
                class => format!("class:{}", class.name()),
            };
            let mut parent = all.by_name.get(&parent).copied();
            if word.lumi.is_some() {
                let meaning = all.add(format!("meaning:{}", word.text), Reach::Token, parent);
                all.add(format!("lumi:{}", word.text), Reach::Token, Some(meaning));
                parent = Some(meaning);
            }
            all.add(format!("word:{}", word.text), Reach::Token, parent);
        }
        for slot in words.words.iter().filter_map(|w| w.class.slot()) {
            all.add(format!("expects:{slot}"), Reach::Token, None);
        }
        for c in COLOURS {
            all.add(format!("hue:{c}"), Reach::Token, None);
        }
        for name in TOKENS {
            all.add((*name).into(), Reach::Token, None);
        }
        for name in PHRASES {
            all.add((*name).into(), Reach::Phrase, None);
        }
        for name in TOPICS {
            all.add((*name).into(), Reach::Topic, None);
        }
        for (place, _) in PLACES {
            all.add(format!("topic:{place}"), Reach::Topic, None);
        }
        for kind in KINDS_OF_DOCUMENTS {
            all.add(format!("doc:{}", kind.name), Reach::Topic, None);
        }
        for task in TASKS {
            all.add(format!("task:{task}"), Reach::Token, None);
        }
        all
    }

    fn add(&mut self, name: String, reach: Reach, parent: Option<u32>) -> u32 {
        if let Some(id) = self.by_name.get(&name) {
            return *id;
        }
        let id = self.all.len() as u32;
        self.by_name.insert(name.clone(), id);
        self.all.push(Concept { name, reach, parent });
        id
    }

    /// All of them, by number.
    pub fn all(&self) -> &[Concept] {
        &self.all
    }

    /// The number of a concept.
    pub fn find(&self, name: &str) -> Option<u32> {
        self.by_name.get(name).copied()
    }
}
