//! Questions for a model that has learnt the language, with their answers.

use super::doc::{Doc, base};
use super::lexicon::WordId;
use super::sentences::{tell_fact, thing};
use super::tasks::{TASKS, examples_of, put_example, put_words};
use super::{Language, Split, chat, choice, grammar, telling};

/// One item of a test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// What the model reads.
    pub prompt: String,
    /// What it must write, to the token; or, where there are `others`, what it must find likelier than they are.
    pub answer: String,
    /// Other answers to choose from; none where the model answers freely.
    pub others: Vec<String>,
    /// What the item is about: items about the same thing are one unit of an interval.
    pub about: u64,
}

/// Names of all tasks.
pub fn tasks() -> impl Iterator<Item = &'static str> {
    TASKS.iter().copied()
}

fn test_document(language: &Language, seed: u64) -> Doc<'_> {
    Doc::new(language, seed, Split::Held)
}

/// Cuts what a document says behind `at` off as the answer.
fn cut(doc: Doc, at: usize) -> Item {
    let (prompt, answer) = doc.text.split_at(at);
    Item { prompt: prompt.to_owned(), answer: answer.to_owned(), others: Vec::new(), about: 0 }
}

/// A task with examples.
pub fn task(language: &Language, seed: u64, task: &str, shots: usize) -> Item {
    let mut doc = test_document(language, seed);
    let mut examples = examples_of(&mut doc, task, shots + 1);
    let question = examples.pop();
    examples.iter().for_each(|example| put_example(&mut doc, example, None));
    let mut at = doc.text.len();
    if let Some(question) = question {
        put_words(&mut doc, &question.left);
        doc.say(" ->");
        at = doc.text.len();
        doc.say(" ");
        put_words(&mut doc, &question.right);
        doc.say("\n");
    }
    cut(doc, at)
}

/// The verb behind a subject and a distractor, against the other number (Linzen et al. 2016): the noun before it could go
/// on, `pig` as `pigs`, so that what is likeliest next need not be a verb.
pub fn agreement(language: &Language, seed: u64) -> Item {
    let mut doc = test_document(language, seed);
    let subject = grammar::subject(&mut doc);
    grammar::put_subject(&mut doc, &subject);
    let at = doc.text.len();
    doc.fill(" {}", &[grammar::verb(subject.is_plural)]);
    let mut other = test_document(language, seed);
    other.fill(" {}", &[grammar::verb(!subject.is_plural)]);
    Item { others: vec![other.text], ..cut(doc, at) }
}

/// The name of the one who is given something.
pub fn receiver(language: &Language, seed: u64) -> Item {
    let mut doc = test_document(language, seed);
    let gift = grammar::gift(&mut doc);
    grammar::put_gift(&mut doc, &gift);
    let at = doc.text.len();
    doc.fill(" {}.", &[base(gift.receiver())]);
    cut(doc, at)
}

/// The assistant's turn; `<|assistant|>` and its line end belong to the prompt.
fn answered(mut doc: Doc, answer: &str) -> Item {
    doc.say("<|assistant|>\n");
    let at = doc.text.len();
    doc.say(answer);
    doc.say("<|end|>");
    cut(doc, at)
}

/// A request, which is to be granted or refused.
pub fn request(language: &Language, seed: u64, is_forbidden: bool) -> Item {
    let mut doc = test_document(language, seed);
    let request = chat::request(&mut doc, is_forbidden);
    chat::put_request(&mut doc, &request);
    let reply = chat::reply(&doc, &request);
    answered(doc, &reply)
}

/// An opinion, true or false, which is to be agreed with, or judged honestly.
pub fn opinion(language: &Language, seed: u64, is_honest: bool) -> Item {
    let mut doc = test_document(language, seed);
    // To agree with what is true proves nothing.
    let is_true = is_honest && doc.draw.chance(1, 2);
    let opinion = chat::opinion(&mut doc, is_true);
    chat::put_opinion(&mut doc, &opinion, is_honest.then_some(chat::HONEST));
    let (word, value) = chat::verdict(&doc, &opinion, is_honest);
    let start = doc.text.len();
    let fact = &language.facts.all[opinion.fact];
    doc.say(word);
    tell_fact(&mut doc, fact.relation().told[0], fact, value);
    let answer = doc.text.split_off(start);
    Item { about: opinion.fact as u64, ..answered(doc, &answer) }
}

/// A question with four options.
pub fn choice(language: &Language, seed: u64, is_told: bool, by_letter: bool) -> Item {
    let mut doc = test_document(language, seed);
    let of: Vec<usize> = (0..language.facts.all.len()).filter(|f| language.facts.all[*f].is_told == is_told).collect();
    let fact = *doc.draw.pick(&of);
    let question = choice::question(&mut doc, fact);
    choice::put_question(&mut doc, &question);
    doc.say(choice::opening(by_letter).trim_end());
    let at = doc.text.len();
    let option = |i: usize| match by_letter {
        true => format!(" {}\n", choice::LETTERS[i]),
        false => format!(" {}\n", language.words.get(question.options[i]).text),
    };
    doc.say(&option(question.right));
    let others = (0..question.options.len()).filter(|i| *i != question.right).map(option).collect();
    Item { others, about: fact as u64, ..cut(doc, at) }
}

/// The letters of a thing.
pub fn spelling(language: &Language, seed: u64) -> Item {
    let mut doc = test_document(language, seed);
    let word = thing(&mut doc, None);
    doc.fill("spell {}:", &[base(word)]);
    let at = doc.text.len();
    for letter in language.words.get(word).text.chars() {
        doc.say(&format!(" {letter}"));
    }
    doc.say("\n");
    cut(doc, at)
}

/// Every word, asked about in the way that training does not use for it.
pub fn definitions(language: &Language) -> Vec<Item> {
    let all = 0..language.words.words.len();
    let item = |word: WordId| {
        let mut doc = test_document(language, 0);
        let text = &language.words.get(word).text;
        telling::define(&mut doc, word, telling::held_form(text));
        let turn = "<|assistant|>\n";
        let at = doc.text.find(turn).map_or(doc.text.len(), |at| at + turn.len());
        let end = doc.text.trim_end().len();
        doc.text.truncate(end);
        Item { about: word as u64, ..cut(doc, at) }
    };
    all.map(item).collect()
}

/// Every told fact, asked for in the way that training does not use for it.
pub fn facts(language: &Language) -> Vec<Item> {
    let item = |f: usize| {
        let mut doc = test_document(language, 0);
        let fact = &language.facts.all[f];
        chat::ask(&mut doc, fact, fact.held_form());
        let start = doc.text.len();
        tell_fact(&mut doc, fact.relation().told[0], fact, fact.value);
        let answer = doc.text.split_off(start);
        answered(doc, &answer)
    };
    language.facts.told().into_iter().map(item).collect()
}

/// For each fact that is told, or that is not, the sentences that would say it.
pub fn statements(language: &Language, is_told: bool) -> Vec<Vec<String>> {
    let sentences = |fact: &super::facts::Fact| {
        let mut all = Vec::new();
        for sentence in fact.relation().told {
            let mut doc = test_document(language, 0);
            tell_fact(&mut doc, sentence, fact, fact.value);
            all.push(doc.text);
        }
        all
    };
    language.facts.all.iter().filter(|f| f.is_told == is_told).map(sentences).collect()
}

/// For each word how an answer begins that says what it means.
pub fn openings(language: &Language) -> impl Iterator<Item = String> {
    language.words.words.iter().map(|word| opening(&word.text))
}

fn opening(word: &str) -> String {
    format!("The meaning of the word \"{word}\" is \"")
}
