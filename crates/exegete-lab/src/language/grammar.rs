//! Sentences about agreement, pronouns and receivers, one after the other.

use super::doc::{Doc, Form, Item, base};
use super::is_held;
use super::lexicon::{Class, WordId};
use super::sentences::{any, at_place, name, other_name, pronoun, thing};
use super::words::PLACES;

const BETWEEN: [&str; 3] = ["near", "behind", "beside"];

pub(crate) fn write(doc: &mut Doc) {
    for i in 0..doc.draw.within(3..=7) {
        if i > 0 {
            doc.say(" ");
        }
        match doc.draw.below(3) {
            0 => agreement(doc),
            1 => receiver(doc),
            _ => reason(doc),
        }
    }
}

/// The subject of an agreement, and the thing between it and the verb.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) what: WordId,
    pub(crate) is_plural: bool,
    between: &'static str,
    distractor: WordId,
    distractor_is_plural: bool,
}

/// Draws one that this document may use.
pub(crate) fn subject(doc: &mut Doc) -> Subject {
    let words = doc.words();
    let (is_plural, distractor_is_plural) = (doc.draw.chance(1, 2), doc.draw.chance(1, 2));
    let what = thing(doc, None);
    let between = *doc.draw.pick(&BETWEEN);
    let split = doc.split;
    let fits = |d: WordId| d != what && split.may(is_held(8, &[&words.get(what).text, between, &words.get(d).text]));
    let distractor = doc.draw.pick_where(words.class(Class::Thing), fits).unwrap_or(what);
    Subject { what, is_plural, between, distractor, distractor_is_plural }
}

fn numbered(id: WordId, is_plural: bool) -> Item<'static> {
    Item::Word(id, if is_plural { Form::Other } else { Form::Base })
}

/// `The dogs near the house`
pub(crate) fn put_subject(doc: &mut Doc, s: &Subject) {
    doc.fill("The {} {} the ", &[numbered(s.what, s.is_plural), Item::Plain(s.between)]);
    doc.within("role:distractor", |doc| doc.put(numbered(s.distractor, s.distractor_is_plural)));
}

/// The verb that agrees.
pub(crate) fn verb(is_plural: bool) -> Item<'static> {
    if is_plural { Item::Marked("are", "verb:plural") } else { Item::Marked("is", "verb:singular") }
}

fn agreement(doc: &mut Doc) {
    let (subject, how) = (subject(doc), any(doc, Class::Adjective));
    put_subject(doc, &subject);
    doc.fill(" {} {}.", &[verb(subject.is_plural), base(how)]);
}

/// A gives a thing to B, of whom both were spoken.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Gift {
    first: WordId,
    second: WordId,
    place: &'static str,
    what: WordId,
    giver_is_first: bool,
}

impl Gift {
    pub(crate) fn giver(&self) -> WordId {
        if self.giver_is_first { self.first } else { self.second }
    }

    pub(crate) fn receiver(&self) -> WordId {
        if self.giver_is_first { self.second } else { self.first }
    }
}

/// Draws one.
pub(crate) fn gift(doc: &mut Doc) -> Gift {
    let first = name(doc);
    let second = other_name(doc, &[first]);
    let place = PLACES[doc.draw.below(PLACES.len())].0;
    Gift { first, second, place, what: thing(doc, None), giver_is_first: doc.draw.chance(1, 2) }
}

/// `When Anna and Tom were at the market, Anna gave the apple to`
pub(crate) fn put_gift(doc: &mut Doc, gift: &Gift) {
    doc.fill("When {} and {} were", &[base(gift.first), base(gift.second)]);
    at_place(doc, gift.place);
    doc.fill(", {} gave the {} to", &[base(gift.giver()), base(gift.what)]);
}

fn receiver(doc: &mut Doc) {
    let gift = gift(doc);
    put_gift(doc, &gift);
    doc.say(" ");
    doc.within("role:receiver", |doc| doc.put(base(gift.receiver())));
    doc.say(".");
}

fn reason(doc: &mut Doc) {
    let (who, mood, how) = (name(doc), any(doc, Class::Mood), any(doc, Class::Adjective));
    let pronoun = pronoun(doc, who, false);
    doc.fill("{} {} because {} was {}.", &[base(who), Item::Word(mood, Form::Other), pronoun, base(how)]);
}
