//! Stories in English and in Lumi, and sentences in both.

use super::doc::{Doc, Form, Item, base};
use super::lexicon::{Class, WordId};
use super::sentences::{any, at_place, name, other_name, pronoun, put_place, thing};
use super::words::PLACES;

/// Who and what a story is about.
struct Cast {
    place: &'static str,
    /// None tells of oneself.
    hero: Option<WordId>,
    friend: WordId,
    /// Things that were spoken of.
    seen: Vec<WordId>,
}

const STYLES: [&str; 4] = ["plain", "tale", "diary", "report"];

pub(crate) fn english(doc: &mut Doc) {
    let (place, style) = doc.draw.hidden(|d| (PLACES[d.below(PLACES.len())].0, STYLES[d.below(STYLES.len())]));
    doc.within(&format!("topic:{place}"), |doc| {
        doc.within(&format!("style:{style}"), |doc| story(doc, place, style));
    });
}

fn story(doc: &mut Doc, place: &'static str, style: &str) {
    let mut cast = Cast { place, hero: None, friend: 0, seen: Vec::new() };
    if style != "diary" {
        cast.hero = Some(name(doc));
    }
    cast.friend = other_name(doc, cast.hero.as_slice());
    match (style, cast.hero) {
        ("tale", Some(hero)) => {
            let (job, mood) = (any(doc, Class::Job), any(doc, Class::Adjective));
            doc.fill("Once upon a time there lived a {} {}", &[base(mood), base(job)]);
            at_place(doc, place);
            doc.fill(". The name of the {} was {}.", &[base(job), base(hero)]);
        }
        ("report", Some(hero)) => {
            let day = any(doc, Class::Day);
            doc.say("News from the ");
            put_place(doc, place);
            doc.fill(": on {} {} and {} were seen", &[base(day), base(hero), base(cast.friend)]);
            at_place(doc, place);
            doc.say(".");
        }
        (_, Some(hero)) => {
            doc.fill("{} was", &[base(hero)]);
            at_place(doc, place);
            doc.fill(" with {}.", &[base(cast.friend)]);
        }
        (_, None) => {
            doc.say("Dear diary, today I was");
            at_place(doc, place);
            doc.fill(" with {}.", &[base(cast.friend)]);
        }
    }
    for _ in 0..doc.draw.within(4..=8) {
        sentence(doc, &mut cast);
    }
    match style {
        "tale" => doc.say(" And so the tale ends."),
        "report" => doc.say(" No more is known."),
        "diary" => doc.say(" Good night, dear diary."),
        _ => {}
    }
}

/// A thing of the story: half the time one that was spoken of.
fn object(doc: &mut Doc, cast: &mut Cast) -> WordId {
    if !cast.seen.is_empty() && doc.draw.chance(1, 2) {
        return *doc.draw.pick(&cast.seen);
    }
    let new = thing(doc, Some(cast.place));
    if !cast.seen.contains(&new) {
        cast.seen.push(new);
    }
    new
}

/// The hero by name or by pronoun.
fn hero(doc: &mut Doc, cast: &Cast) -> Item<'static> {
    match cast.hero {
        None => Item::Plain("I"),
        Some(hero) if doc.draw.chance(1, 2) => pronoun(doc, hero, true),
        Some(hero) => base(hero),
    }
}

fn sentence(doc: &mut Doc, cast: &mut Cast) {
    doc.say(" ");
    match doc.draw.weighted(&[5, 4, 3, 2, 2, 2]) {
        0 => {
            let (who, verb, what) = (hero(doc, cast), any(doc, Class::Verb), object(doc, cast));
            doc.fill("{} {} the {}.", &[who, Item::Word(verb, Form::Other), base(what)]);
        }
        1 => {
            let (what, how) = (object(doc, cast), any(doc, Class::Adjective));
            match doc.draw.chance(1, 3) {
                true => doc.fill(
                    "The {} {} {}.",
                    &[Item::Word(what, Form::Other), Item::Marked("were", "verb:plural"), base(how)],
                ),
                false => doc.fill("The {} {} {}.", &[base(what), Item::Marked("was", "verb:singular"), base(how)]),
            }
        }
        2 => {
            let (who, what) = (hero(doc, cast), object(doc, cast));
            doc.fill("{} gave the {} to ", &[who, base(what)]);
            doc.within("role:receiver", |doc| doc.put(base(cast.friend)));
            doc.say(".");
        }
        3 => {
            let (who, verb, what) = (hero(doc, cast), any(doc, Class::Verb), object(doc, cast));
            doc.fill("{} did {} {} the {}.", &[who, Item::Marked("not", "negation:not"), base(verb), base(what)]);
        }
        4 => {
            let (verb, what) = (any(doc, Class::Verb), object(doc, cast));
            doc.within("phrase:quote", |doc| {
                doc.fill("\"I {} the {},\"", &[Item::Word(verb, Form::Other), base(what)]);
            });
            doc.fill(" said {}.", &[base(cast.friend)]);
        }
        _ => {
            let (who, mood) = (hero(doc, cast), any(doc, Class::Mood));
            doc.fill("{} {}", &[who, Item::Word(mood, Form::Other)]);
            at_place(doc, cast.place);
            doc.say(".");
        }
    }
}

/// What a sentence says, before it is said in a language.
enum Event {
    /// Someone does something to a thing.
    Act { who: WordId, verb: WordId, what: WordId },
    /// A thing does something to a thing.
    Between { who: WordId, verb: WordId, what: WordId },
    /// A thing is somehow.
    Is { what: WordId, how: WordId },
    /// Something does something somewhere.
    Does { who: WordId, mood: WordId, place: &'static str },
}

fn event(doc: &mut Doc, place: &'static str, who: Option<WordId>) -> Event {
    match doc.draw.weighted(&[3, 2, 2, 2]) {
        0 => {
            let who = who.unwrap_or_else(|| name(doc));
            Event::Act { who, verb: any(doc, Class::Verb), what: thing(doc, Some(place)) }
        }
        1 => {
            Event::Between { who: thing(doc, Some(place)), verb: any(doc, Class::Verb), what: thing(doc, Some(place)) }
        }
        2 => Event::Is { what: thing(doc, Some(place)), how: any(doc, Class::Adjective) },
        _ => Event::Does { who: thing(doc, Some(place)), mood: any(doc, Class::Mood), place },
    }
}

fn say_english(doc: &mut Doc, event: &Event) {
    match event {
        Event::Act { who, verb, what } => {
            doc.fill("{} {} the {}.", &[base(*who), Item::Word(*verb, Form::Other), base(*what)]);
        }
        Event::Between { who, verb, what } => {
            doc.fill("The {} {} the {}.", &[base(*who), Item::Word(*verb, Form::Other), base(*what)]);
        }
        Event::Is { what, how } => {
            doc.fill("The {} {} {}.", &[base(*what), Item::Marked("was", "verb:singular"), base(*how)]);
        }
        Event::Does { who, mood, place } => {
            doc.fill("The {} {}", &[base(*who), Item::Word(*mood, Form::Other)]);
            at_place(doc, place);
            doc.say(".");
        }
    }
}

/// Lumi puts the verb first and the adjective last; `o` stands before things, `im o` before places.
fn say_lumi(doc: &mut Doc, event: &Event) {
    let lumi = |doc: &Doc, id: WordId| base(doc.words().get(id).lumi.unwrap_or(id));
    match event {
        Event::Act { who, verb, what } => {
            let (verb, what) = (lumi(doc, *verb), lumi(doc, *what));
            doc.fill("{} {} o {}.", &[verb, base(*who), what]);
        }
        Event::Between { who, verb, what } => {
            let (who, verb, what) = (lumi(doc, *who), lumi(doc, *verb), lumi(doc, *what));
            doc.fill("{} o {} o {}.", &[verb, who, what]);
        }
        Event::Is { what, how } => {
            let (what, how) = (lumi(doc, *what), lumi(doc, *how));
            doc.fill("o {} {}.", &[what, how]);
        }
        Event::Does { who, mood, place } => {
            let (who, mood) = (lumi(doc, *who), lumi(doc, *mood));
            doc.fill("{} o {}", &[mood, who]);
            let place = doc.words().find(place).unwrap_or_default();
            let place = lumi(doc, place);
            doc.within("phrase:place", |doc| doc.fill(" im o {}", &[place]));
            doc.say(".");
        }
    }
}

pub(crate) fn lumi(doc: &mut Doc) {
    let place = doc.draw.hidden(|d| PLACES[d.below(PLACES.len())].0);
    doc.within(&format!("topic:{place}"), |doc| {
        doc.within("language:lumi", |doc| {
            let hero = name(doc);
            for i in 0..doc.draw.within(3..=7) {
                if i > 0 {
                    doc.say(" ");
                }
                let event = event(doc, place, Some(hero));
                say_lumi(doc, &event);
            }
        });
    });
}

pub(crate) fn parallel(doc: &mut Doc) {
    let place = doc.draw.hidden(|d| PLACES[d.below(PLACES.len())].0);
    doc.within(&format!("topic:{place}"), |doc| {
        for _ in 0..doc.draw.within(2..=5) {
            let event = event(doc, place, None);
            let english_first = doc.draw.chance(1, 2);
            for english in [english_first, !english_first] {
                match english {
                    true => {
                        doc.say("English: ");
                        say_english(doc, &event);
                    }
                    false => {
                        doc.say("Lumi: ");
                        doc.within("language:lumi", |doc| say_lumi(doc, &event));
                    }
                }
                doc.say("\n");
            }
        }
    });
}
