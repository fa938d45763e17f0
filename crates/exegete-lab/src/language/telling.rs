//! Facts told one after the other, the dictionary, and spelling.

use super::doc::{Doc, Form, Item, base};
use super::is_held;
use super::lexicon::{Class, WordId};
use super::sentences::{answer, any, on, put_place, tell_fact, thing, turn};
use super::words::article;

pub(crate) fn encyclopaedia(doc: &mut Doc) {
    for paragraph in 0..doc.draw.within(1..=3) {
        if paragraph > 0 {
            doc.say("\n");
        }
        match doc.draw.weighted(&[3, 2, 2]) {
            0 => about_thing(doc),
            1 => {
                let country = any(doc, Class::Country);
                about(doc, country, "{} is a country.");
            }
            _ => {
                let class = *doc.draw.pick(&[Class::Woman, Class::Man]);
                let person = any(doc, class);
                about(doc, person, "This is about {}.");
            }
        }
    }
}

/// What is told of a country or a person: some of it, in any order.
fn about(doc: &mut Doc, entity: WordId, opening: &str) {
    doc.fill(opening, &[base(entity)]);
    let all = doc.lang.facts.about(entity);
    let n = doc.draw.within(1..=all.len());
    for f in doc.draw.several(&all, n) {
        let fact = &doc.lang.facts.all[f];
        let relation = fact.relation();
        let sentence = match doc.draw.chance(1, 2) {
            true => relation.again,
            false => *doc.draw.pick(relation.told),
        };
        doc.say(" ");
        tell_fact(doc, sentence, fact, fact.value);
    }
}

/// What a thing is, its colour and its place, in any order.
fn about_thing(doc: &mut Doc) {
    let what = thing(doc, None);
    let word = doc.words().get(what);
    let (kind, colour) =
        (doc.words().find(word.kind).unwrap_or_default(), doc.words().find(word.colour).unwrap_or_default());
    let many = doc.draw.chance(1, 3);
    match many {
        true => doc.fill("All {} are ", &[Item::Word(what, Form::Other)]),
        false => {
            doc.fill("{} {} is {} ", &[Item::Plain(article(&word.text)), base(what), Item::Plain(article(word.kind))])
        }
    }
    doc.mark_before("fact:kind");
    doc.put(Item::Word(kind, if many { Form::Other } else { Form::Base }));
    let subject = if many { ". They are" } else { ". It is" };
    for i in doc.draw.several(&[0, 1], 2) {
        doc.say(subject);
        match i {
            0 => {
                doc.mark_before("fact:colour");
                doc.fill(" {}", &[base(colour)]);
            }
            _ => {
                doc.say(&format!(" found {} the", on(word.place)));
                doc.mark_before("fact:place");
                doc.say(" ");
                put_place(doc, word.place);
            }
        }
    }
    doc.say(".");
}

/// Ways of asking what a word means.
pub(crate) const ASKED: [&str; 3] =
    ["What is the meaning of the word \"{}\"?", "What does the word \"{}\" mean?", "Define the word \"{}\"."];

/// The way of asking that no training document uses for a word.
pub(crate) fn held_form(word: &str) -> usize {
    (0..ASKED.len()).find(|form| is_held(2, &[word, &form.to_string()])).unwrap_or(0)
}

pub(crate) fn dictionary(doc: &mut Doc) {
    // Spelling is a small, marked part of the dictionary.
    if doc.draw.hidden(|d| d.chance(1, 12)) {
        return spelling(doc);
    }
    let all: Vec<WordId> = (0..doc.words().words.len()).collect();
    for _ in 0..doc.draw.within(1..=4) {
        let word = *doc.draw.pick(&all);
        let form = doc.way_of_asking(held_form(&doc.words().get(word).text));
        define(doc, word, form);
    }
}

/// A question about a word, and the answer.
pub(crate) fn define(doc: &mut Doc, word: WordId, form: usize) {
    turn(doc, "user", |doc| doc.within("phrase:question", |doc| doc.fill(ASKED[form], &[base(word)])));
    answer(doc, "will:define", |doc| {
        doc.fill("The meaning of the word \"{}\" is \"", &[base(word)]);
        doc.within("phrase:definition", |doc| put_meaning(doc, word));
        doc.say("\".");
    });
}

/// A definition, whose words are known too.
fn put_meaning(doc: &mut Doc, word: WordId) {
    let meaning = &doc.words().get(word).meaning;
    for (i, piece) in meaning.split(' ').enumerate() {
        if i > 0 {
            doc.say(" ");
        }
        let found = doc.words().find(piece);
        match found {
            Some(id) => doc.put(base(id)),
            None => doc.say(piece),
        }
    }
}

fn spelling(doc: &mut Doc) {
    for _ in 0..doc.draw.within(2..=6) {
        let word = thing(doc, None);
        doc.fill("spell {}:", &[base(word)]);
        doc.within("spelling:letters", |doc| {
            for letter in doc.words().get(word).text.chars() {
                doc.say(&format!(" {letter}"));
            }
        });
        doc.say("\n");
    }
}
