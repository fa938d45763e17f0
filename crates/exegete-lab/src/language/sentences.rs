//! Parts of sentences that several kinds of documents share.

use super::doc::{Doc, Item, base};
use super::facts::Fact;
use super::lexicon::{Class, WordId};
use super::words::{PLACES, article};

/// How much likelier a common thing is than a rare one.
const COMMON: u32 = 12;

/// A thing: any, or one of a place.
pub(crate) fn thing(doc: &mut Doc, place: Option<&str>) -> WordId {
    let words = doc.words();
    let of = place.map_or(words.class(Class::Thing), |place| words.things_at(place));
    let weights: Vec<u32> = of.iter().map(|w| if words.get(*w).is_rare { 1 } else { COMMON }).collect();
    of[doc.draw.weighted(&weights)]
}

/// A word of a class.
pub(crate) fn any(doc: &mut Doc, class: Class) -> WordId {
    let of = doc.words().class(class);
    *doc.draw.pick(of)
}

/// A name of a woman or a man.
pub(crate) fn name(doc: &mut Doc) -> WordId {
    let class = *doc.draw.pick(&[Class::Woman, Class::Man]);
    any(doc, class)
}

/// Another name than these.
pub(crate) fn other_name(doc: &mut Doc, than: &[WordId]) -> WordId {
    let all = [doc.words().class(Class::Woman), doc.words().class(Class::Man)].concat();
    doc.draw.pick_where(&all, |n| !than.contains(&n)).unwrap_or(all[0])
}

/// The pronoun of a person, as the subject of a sentence.
pub(crate) fn pronoun(doc: &Doc, person: WordId, capital: bool) -> Item<'static> {
    match (doc.words().get(person).class, capital) {
        (Class::Woman, true) => Item::Marked("She", "pronoun:she"),
        (Class::Woman, false) => Item::Marked("she", "pronoun:she"),
        (_, true) => Item::Marked("He", "pronoun:he"),
        (_, false) => Item::Marked("he", "pronoun:he"),
    }
}

/// The preposition of a place.
pub(crate) fn on(place: &str) -> &'static str {
    PLACES.iter().find(|(p, _)| *p == place).map_or("in", |(_, on)| on)
}

/// ` on the farm`
pub(crate) fn at_place(doc: &mut Doc, place: &str) {
    doc.within("phrase:place", |doc| {
        doc.say(&format!(" {} the ", on(place)));
        put_place(doc, place);
    });
}

/// The word of a place.
pub(crate) fn put_place(doc: &mut Doc, place: &str) {
    match doc.words().find(place) {
        Some(id) => doc.put(base(id)),
        None => doc.say(place),
    }
}

/// States or asks a fact by a sentence with `{e}`, `{v}`, `{a}` and `{p}`; the value may be another than the true one.
pub(crate) fn tell_fact(doc: &mut Doc, sentence: &str, fact: &Fact, value: WordId) {
    say_fact(doc, sentence, fact, value, true);
}

/// [`tell_fact`], saying whether the value follows from the entity and what was said before.
pub(crate) fn say_fact(doc: &mut Doc, sentence: &str, fact: &Fact, value: WordId, follows: bool) {
    let is_known =
        |v: usize| sentence.starts_with("Its") || ["{e}", "{p}"].iter().any(|gap| sentence[..v].contains(gap));
    let follows = follows && sentence.find("{v}").is_some_and(is_known);
    let mut rest = sentence;
    while let Some(at) = rest.find('{') {
        doc.say(&rest[..at]);
        match rest.as_bytes().get(at + 1) {
            Some(b'e') => doc.put(base(fact.entity)),
            Some(b'v') => {
                if follows {
                    doc.mark_before(&fact_concept(fact));
                }
                doc.put(base(value));
            }
            Some(b'a') => doc.say(article(&doc.words().get(value).text)),
            _ => {
                let item = pronoun(doc, fact.entity, true);
                doc.put(item);
            }
        }
        rest = &rest[at + 3..];
    }
    doc.say(rest);
}

/// The concept of a fact's relation.
pub(crate) fn fact_concept(fact: &Fact) -> String {
    format!("fact:{}", fact.relation().name)
}

/// The assistant's turn, with what it will do marked where it begins.
pub(crate) fn answer(doc: &mut Doc, will: &str, content: impl FnOnce(&mut Doc)) {
    turn(doc, "assistant", |doc| {
        doc.mark_before(will);
        content(doc);
    });
}

/// Opens a turn of a conversation.
pub(crate) fn turn(doc: &mut Doc, role: &str, content: impl FnOnce(&mut Doc)) {
    doc.say(&format!("<|{role}|>\n"));
    content(doc);
    doc.say("<|end|>\n");
}
