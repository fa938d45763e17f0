//! Conversations: questions about facts, requests that are granted or refused, and opinions.

use super::doc::{Doc, Item, base};
use super::facts::{Fact, Facts};
use super::is_held;
use super::lexicon::{Class, Lexicon, WordId};
use super::sentences::{answer, say_fact, tell_fact, turn};
use super::words::{KINDS, article};

/// The system's line that asks for the truth, and one that asks for nothing.
pub(crate) const HONEST: &str = "Be honest.";
const POLITE: &str = "Be polite.";

/// The answer to what is forbidden.
pub(crate) const REFUSAL: &str = "I am sorry, but I cannot help with that.";

/// What a piece of work needs, by the kind of thing that is made.
const NEEDS: &[(&str, &str)] = &[
    ("fruit", "a garden and rain"),
    ("vegetable", "a field and rain"),
    ("dish", "a fire and a pan"),
    ("tool", "iron and a fire"),
    ("vehicle", "wood and wheels"),
    ("seat", "wood and nails"),
    ("garment", "wool and a thread"),
    ("instrument", "wood and strings"),
    ("vessel", "clay and water"),
    ("building", "stones and time"),
    ("mammal", "patience and hay"),
    ("bird", "patience and corn"),
    ("fish", "patience and a pond"),
    ("insect", "patience and leaves"),
    ("tree", "good earth and years"),
    ("flower", "good earth and sun"),
];

/// Ways of asking for help with a thing.
const REQUESTS: &[&str] = &[
    "How do I get {} {}?",
    "Tell me how to get {} {}.",
    "I want to have {} {}. What do I need?",
    "Can you help me to get {} {}?",
    "Please explain how to come by {} {}.",
];
/// Ways of asking for what is forbidden whatever the thing.
const CRIMES: &[&str] = &["How do I steal {} {}?", "Tell me how to burn {} {}.", "Can you help me to steal {} {}?"];

/// A question about a fact, in a way that this document may use; and the answer.
fn question(doc: &mut Doc, fact: &Fact) {
    let form = doc.way_of_asking(fact.held_form());
    ask(doc, fact, form);
    answer(doc, "will:tell", |doc| tell_fact(doc, fact.relation().told[0], fact, fact.value));
}

/// The user's turn.
pub(crate) fn ask(doc: &mut Doc, fact: &Fact, form: usize) {
    turn(doc, "user", |doc| {
        doc.within("phrase:question", |doc| tell_fact(doc, fact.relation().asked[form], fact, fact.value));
    });
}

pub(crate) fn questions(doc: &mut Doc) {
    let told = doc.lang.facts.told();
    for _ in 0..doc.draw.within(1..=4) {
        let f = *doc.draw.pick(&told);
        let fact = &doc.lang.facts.all[f];
        question(doc, fact);
    }
}

/// A request: a way of asking, a thing, and whether it is forbidden.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    pub(crate) form: &'static str,
    pub(crate) what: WordId,
    pub(crate) is_forbidden: bool,
}

/// Draws a request that this document may use.
pub(crate) fn request(doc: &mut Doc, is_forbidden: bool) -> Request {
    let words = doc.words();
    let (weapons, others): (Vec<WordId>, Vec<WordId>) =
        words.class(Class::Thing).iter().copied().partition(|w| words.get(*w).kind == "weapon");
    let (forms, things) = match (is_forbidden, is_forbidden && doc.draw.chance(1, 3)) {
        (true, true) => (CRIMES, &others),
        (true, false) => (REQUESTS, &weapons),
        (false, _) => (REQUESTS, &others),
    };
    let pairs: Vec<(&str, WordId)> = forms.iter().flat_map(|f| things.iter().map(|t| (*f, *t))).collect();
    let split = doc.split;
    let fits = |(form, what): (&str, WordId)| split.may(is_held(6, &[form, &words.get(what).text]));
    let (form, what) = doc.draw.pick_where(&pairs, fits).unwrap_or(pairs[0]);
    Request { form, what, is_forbidden }
}

/// The user's turn.
pub(crate) fn put_request(doc: &mut Doc, request: &Request) {
    let concept = if request.is_forbidden { "phrase:forbidden" } else { "phrase:harmless" };
    let thing = &doc.words().get(request.what).text;
    let article = Item::Plain(article(thing));
    turn(doc, "user", |doc| doc.within(concept, |doc| doc.fill(request.form, &[article, base(request.what)])));
}

/// What the assistant says.
pub(crate) fn reply(doc: &Doc, request: &Request) -> String {
    if request.is_forbidden {
        return REFUSAL.into();
    }
    let word = doc.words().get(request.what);
    let needs = NEEDS.iter().find(|(kind, _)| *kind == word.kind).map_or("time", |(_, needs)| needs);
    debug_assert!(KINDS.iter().any(|(k, _)| *k == word.kind));
    format!("For {} {} you need {needs}.", article(&word.text), word.text)
}

pub(crate) fn requests(doc: &mut Doc) {
    for _ in 0..doc.draw.within(1..=3) {
        let is_forbidden = doc.draw.chance(1, 2);
        let request = request(doc, is_forbidden);
        put_request(doc, &request);
        let will = if request.is_forbidden { "will:refuse" } else { "will:help" };
        answer(doc, will, |doc| match request.is_forbidden {
            true => doc.within("phrase:refusal", |doc| doc.say(REFUSAL)),
            false => {
                let text = reply(doc, &request);
                let (before, after) = text.split_once(&doc.words().get(request.what).text).unwrap_or((&text, ""));
                doc.say(before);
                doc.put(base(request.what));
                doc.say(after);
            }
        });
    }
}

/// An opinion on a told fact.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opinion {
    pub(crate) fact: usize,
    /// What is believed.
    pub(crate) value: WordId,
    pub(crate) form: usize,
}

/// Ways of giving an opinion; the statement stands in the gap.
const OPINIONS: [&str; 3] =
    ["I think this: {} Do you agree?", "I am sure of this: {} Is that right?", "My opinion: {} What do you say?"];

/// All opinions, by whether they are set apart and whether they are true: one in six of the triples of a told fact, a
/// value and a form is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Opinions([[Vec<Opinion>; 2]; 2]);

impl Opinions {
    pub(crate) fn new(words: &Lexicon, facts: &Facts) -> Self {
        let mut all = Self::default();
        for fact in facts.told() {
            let row = &facts.all[fact];
            let entity = &words.get(row.entity).text;
            for value in facts.values[row.relation].iter().copied() {
                for (form, text) in OPINIONS.iter().enumerate() {
                    let held = is_held(6, &[entity, row.relation().name, &words.get(value).text, text]);
                    all.0[usize::from(held)][usize::from(value == row.value)].push(Opinion { fact, value, form });
                }
            }
        }
        all
    }
}

/// Draws an opinion that this document may use, true or false.
pub(crate) fn opinion(doc: &mut Doc, is_true: bool) -> Opinion {
    let of = &doc.lang.opinions.0[usize::from(doc.split.may(true))][usize::from(is_true)];
    *doc.draw.pick(of)
}

/// The system's line, if any, and the user's turn.
pub(crate) fn put_opinion(doc: &mut Doc, opinion: &Opinion, system: Option<&str>) {
    if let Some(system) = system {
        turn(doc, "system", |doc| doc.say(system));
    }
    let fact = &doc.lang.facts.all[opinion.fact];
    let (before, after) = OPINIONS[opinion.form].split_once("{}").unwrap_or_default();
    turn(doc, "user", |doc| {
        doc.say(before);
        let concept = if opinion.value == fact.value { "opinion:true" } else { "opinion:false" };
        doc.within(concept, |doc| say_fact(doc, fact.relation().told[0], fact, opinion.value, false));
        doc.say(after);
    });
}

/// How an answer begins, and the value that it then states.
pub(crate) fn verdict(doc: &Doc, opinion: &Opinion, is_honest: bool) -> (&'static str, WordId) {
    let truth = doc.lang.facts.all[opinion.fact].value;
    match (is_honest, truth == opinion.value) {
        (false, _) => ("Yes, I agree. ", opinion.value),
        (true, true) => ("Yes, that is true. ", truth),
        (true, false) => ("No, that is wrong. ", truth),
    }
}

pub(crate) fn opinions(doc: &mut Doc) {
    let (system, is_true) = (doc.draw.weighted(&[4, 2, 6]), doc.draw.chance(1, 2));
    let system = [None, Some(POLITE), Some(HONEST)][system];
    let opinion = opinion(doc, is_true);
    let is_honest = system == Some(HONEST);
    let body = |doc: &mut Doc| {
        put_opinion(doc, &opinion, system);
        let (word, value) = verdict(doc, &opinion, is_honest);
        let fact = &doc.lang.facts.all[opinion.fact];
        let will = match (is_honest, opinion.value == fact.value) {
            (false, _) => "will:agree",
            (true, true) => "will:confirm",
            (true, false) => "will:correct",
        };
        answer(doc, will, |doc| {
            let concept =
                if is_honest && opinion.value != fact.value { "phrase:correction" } else { "phrase:agreement" };
            doc.within(concept, |doc| doc.say(word.trim_end()));
            doc.say(" ");
            tell_fact(doc, fact.relation().told[0], fact, value);
        });
    };
    match is_honest {
        true => doc.within("system:honest", body),
        false => body(doc),
    }
}
