//! Every word of the language: what it is, its forms, what it means, and its Lumi translation.

use std::collections::{BTreeMap, BTreeSet};

use exegete_base::sampling::pair_hash;

use super::words::*;

/// Number of a word in the lexicon.
pub(crate) type WordId = usize;

/// Classes of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Class {
    Thing,
    Place,
    Kind,
    Verb,
    Mood,
    Adjective,
    Colour,
    Job,
    Woman,
    Man,
    Country,
    Capital,
    Number,
    Day,
    Month,
    Grammar,
    Lumi,
}

impl Class {
    /// Its name in concepts.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Thing => "thing",
            Self::Place => "place",
            Self::Kind => "kind",
            Self::Verb | Self::Mood => "verb",
            Self::Adjective => "adjective",
            Self::Colour => "colour",
            Self::Job => "job",
            Self::Woman => "woman",
            Self::Man => "man",
            Self::Country => "country",
            Self::Capital => "capital",
            Self::Number => "number",
            Self::Day => "day",
            Self::Month => "month",
            Self::Grammar => "grammar",
            Self::Lumi => "lumi",
        }
    }
}

impl Class {
    /// What a sentence has a place for where such a word comes next.
    pub(crate) fn slot(self) -> Option<&'static str> {
        match self {
            Self::Woman | Self::Man => Some("person"),
            Self::Day | Self::Month | Self::Number => Some("order"),
            Self::Grammar => None,
            other => Some(other.name()),
        }
    }
}

/// A word.
#[derive(Debug, Clone)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) class: Class,
    /// The other form: the plural of things and jobs, the past of verbs, the opposite of adjectives, the capital of
    /// countries and the country of capitals, the next in order of numbers, days and months.
    pub(crate) other: Option<String>,
    /// Kind of a thing.
    pub(crate) kind: &'static str,
    /// Colour of a thing.
    pub(crate) colour: &'static str,
    /// Place of a thing.
    pub(crate) place: &'static str,
    pub(crate) is_rare: bool,
    /// What the dictionary says.
    pub(crate) meaning: String,
    /// The Lumi word for it, or the English word for a Lumi one.
    pub(crate) lumi: Option<WordId>,
}

/// All words.
#[derive(Debug, Clone)]
pub(crate) struct Lexicon {
    pub(crate) words: Vec<Word>,
    by_text: BTreeMap<String, WordId>,
    /// Words by every form of theirs, and whether it is the plural or the past.
    by_form: BTreeMap<String, (WordId, bool)>,
    by_class: BTreeMap<Class, Vec<WordId>>,
    by_place: BTreeMap<&'static str, Vec<WordId>>,
}

impl Lexicon {
    /// The lexicon; there is one.
    pub(crate) fn new() -> Self {
        let mut all = Self {
            words: Vec::new(),
            by_form: BTreeMap::new(),
            by_text: BTreeMap::new(),
            by_class: BTreeMap::new(),
            by_place: BTreeMap::new(),
        };
        all.add_things();
        for (place, on) in PLACES {
            all.add(Class::Place, place, None, format!("a place, as {on} the {place}"));
        }
        for (kind, group) in KINDS {
            all.add(Class::Kind, kind, Some(plural(kind)), format!("a kind of {group}"));
        }
        for (class, table) in [(Class::Verb, VERBS), (Class::Mood, MOODS)] {
            for (verb, past, meaning) in table {
                all.add(class, verb, Some((*past).into()), (*meaning).into());
            }
        }
        for (a, b) in OPPOSITES.iter().flat_map(|(a, b)| [(a, b), (b, a)]) {
            all.add(Class::Adjective, a, Some((*b).into()), format!("the opposite of {b}"));
        }
        COLOURS.iter().for_each(|colour| all.add(Class::Colour, colour, None, "a colour".into()));
        for (job, what) in JOBS {
            all.add(Class::Job, job, Some(plural(job)), format!("a person who {what}"));
        }
        for (names, class, of) in [(NAMES[0], Class::Woman, "a woman"), (NAMES[1], Class::Man, "a man")] {
            names.iter().for_each(|name| all.add(class, name, None, format!("the name of {of}")));
        }
        for (country, capital) in COUNTRIES {
            all.add(Class::Country, country, Some((*capital).into()), format!("a country whose capital is {capital}"));
            all.add(Class::Capital, capital, Some((*country).into()), format!("the capital of {country}"));
        }
        for (class, row, what) in [
            (Class::Number, NUMBERS, "the number after"),
            (Class::Day, DAYS, "the day after"),
            (Class::Month, MONTHS, "the month after"),
        ] {
            for i in 0..row.len() {
                let meaning = match i {
                    0 => format!("{} {}", what.replace("after", "before"), row[1]),
                    _ => format!("{what} {}", row[i - 1]),
                };
                all.add(class, row[i], row.get(i + 1).map(|next| (*next).into()), meaning);
            }
        }
        GRAMMAR.iter().for_each(|word| all.add(Class::Grammar, word, None, "a word of grammar".into()));
        all.add_lumi();
        for (id, word) in all.words.iter().enumerate().filter(|(_, w)| !matches!(w.class, Class::Grammar | Class::Lumi))
        {
            if let (Some(other), Class::Thing | Class::Kind | Class::Job | Class::Verb | Class::Mood) =
                (&word.other, word.class)
            {
                all.by_form.entry(other.clone()).or_insert((id, true));
            }
            all.by_form.insert(word.text.clone(), (id, false));
        }
        all
    }

    fn add_things(&mut self) {
        for (kind, table) in THINGS {
            let kind = KINDS.iter().map(|(k, _)| *k).find(|k| k == kind).unwrap_or_default();
            for entry in table.split(", ") {
                let mut parts = entry.split_whitespace();
                let (Some(word), Some(colour), Some(place)) = (parts.next(), parts.next(), parts.next()) else {
                    unreachable!("a thing is a word, a colour and a place: {entry}")
                };
                let is_rare = word.ends_with('*');
                let (word, many) = match word.trim_end_matches('*').split_once('/') {
                    Some((word, many)) => (word, many.to_owned()),
                    None => (word.trim_end_matches('*'), plural(word.trim_end_matches('*'))),
                };
                let on = PLACES.iter().find(|(p, _)| *p == place).map_or("in", |(_, on)| on);
                let meaning = format!("{} {colour} {kind} {on} the {place}", article(colour));
                let id = self.words.len();
                self.add(Class::Thing, word, Some(many), meaning);
                let new = &mut self.words[id];
                (new.kind, new.is_rare) = (kind, is_rare);
                new.colour = COLOURS.iter().find(|c| **c == colour).copied().unwrap_or_default();
                new.place = PLACES.iter().map(|(p, _)| *p).find(|p| *p == place).unwrap_or_default();
                self.by_place.entry(new.place).or_default().push(id);
            }
        }
    }

    fn add(&mut self, class: Class, text: &str, other: Option<String>, meaning: String) {
        let id = self.words.len();
        let before = self.by_text.insert(text.to_owned(), id);
        assert!(before.is_none(), "the word {text:?} is there twice");
        self.by_class.entry(class).or_default().push(id);
        let text = text.to_owned();
        let (kind, colour, place) = ("", "", "");
        self.words.push(Word { text, class, other, kind, colour, place, is_rare: false, meaning, lumi: None });
    }

    /// Makes a Lumi word for each word that has one: two or three syllables, no two alike, none English.
    fn add_lumi(&mut self) {
        const ONSETS: &[u8] = b"bdfgklmnprstvz";
        const VOWELS: &[u8] = b"aeiou";
        use Class::*;
        let translated = [Thing, Place, Verb, Mood, Adjective, Colour, Job, Number];
        let mut taken: BTreeSet<String> =
            self.words.iter().flat_map(|w| [Some(w.text.clone()), w.other.clone()]).flatten().collect();
        for id in 0..self.words.len() {
            if !translated.contains(&self.words[id].class) {
                continue;
            }
            let mut hash = pair_hash(0x1u64, id as u64, 0);
            let text = loop {
                let mut bits = hash;
                let mut take = |n: usize| {
                    let i = (bits % n as u64) as usize;
                    bits /= n as u64;
                    i
                };
                let n_syllables = 2 + take(3) / 2;
                let mut text = String::new();
                for _ in 0..n_syllables {
                    text.push(ONSETS[take(ONSETS.len())].into());
                    text.push(VOWELS[take(VOWELS.len())].into());
                }
                if take(3) == 0 {
                    text.push(['n', 'r', 's', 'l'][take(4)]);
                }
                if !taken.contains(&text) {
                    break text;
                }
                hash = pair_hash(hash, 0, 1);
            };
            taken.insert(text.clone());
            let meaning = format!("the Lumi word for {}", self.words[id].text);
            let lumi = self.words.len();
            self.add(Lumi, &text, None, meaning);
            self.words[lumi].lumi = Some(id);
            self.words[id].lumi = Some(lumi);
        }
    }

    /// Words of a class.
    pub(crate) fn class(&self, class: Class) -> &[WordId] {
        self.by_class.get(&class).map_or(&[], Vec::as_slice)
    }

    /// Things that are at home in a place.
    pub(crate) fn things_at(&self, place: &str) -> &[WordId] {
        self.by_place.get(place).map_or(&[], Vec::as_slice)
    }

    /// The word that is spelled so.
    pub(crate) fn find(&self, text: &str) -> Option<WordId> {
        self.by_text.get(text).copied()
    }

    /// The word of which this is a form, and whether it is the plural or the past.
    pub(crate) fn spelled(&self, text: &str) -> Option<(WordId, bool)> {
        self.by_form.get(text).copied()
    }

    pub(crate) fn get(&self, id: WordId) -> &Word {
        &self.words[id]
    }

    /// The group of a kind.
    pub(crate) fn group(kind: &str) -> &'static str {
        KINDS.iter().find(|(k, _)| *k == kind).map_or("", |(_, group)| group)
    }
}
