//! Multiple choice, answered by a letter or by the text of the right option.

use super::doc::{Doc, base};
use super::lexicon::WordId;
use super::sentences::tell_fact;

/// Letters of the options.
pub(crate) const LETTERS: [&str; 4] = ["A", "B", "C", "D"];

/// A question with its options.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    pub(crate) fact: usize,
    pub(crate) form: usize,
    pub(crate) options: Vec<WordId>,
    /// Which option is right.
    pub(crate) right: usize,
}

/// Draws the options for a fact.
pub(crate) fn question(doc: &mut Doc, fact: usize) -> Question {
    let row = &doc.lang.facts.all[fact];
    let form = doc.way_of_asking(row.held_form());
    let values: Vec<WordId> = doc.lang.facts.values[row.relation].iter().copied().filter(|v| *v != row.value).collect();
    let right = doc.draw.below(LETTERS.len());
    let mut options = doc.draw.several(&values, LETTERS.len() - 1);
    options.insert(right.min(options.len()), row.value);
    Question { fact, form, options, right }
}

/// The question and the options, up to `Answer:`.
pub(crate) fn put_question(doc: &mut Doc, question: &Question) {
    let fact = &doc.lang.facts.all[question.fact];
    doc.say("Question: ");
    doc.within("phrase:question", |doc| tell_fact(doc, fact.relation().asked[question.form], fact, fact.value));
    doc.say("\n");
    for (i, option) in question.options.iter().enumerate() {
        doc.within("choice:letter", |doc| doc.say(LETTERS[i]));
        doc.say(". ");
        match i == question.right {
            true => doc.within("choice:right", |doc| doc.put(base(*option))),
            false => doc.put(base(*option)),
        }
        doc.say("\n");
    }
}

pub(crate) fn write(doc: &mut Doc) {
    let by_letter = doc.draw.hidden(|d| d.chance(2, 3));
    let told = doc.lang.facts.told();
    for _ in 0..doc.draw.within(2..=4) {
        let fact = *doc.draw.pick(&told);
        let question = question(doc, fact);
        put_question(doc, &question);
        doc.say(opening(by_letter));
        doc.within("choice:answer", |doc| match by_letter {
            true => doc.say(LETTERS[question.right]),
            false => doc.put(base(question.options[question.right])),
        });
        doc.say("\n");
    }
}

/// What stands before the answer says which kind of answer is wanted.
pub(crate) fn opening(by_letter: bool) -> &'static str {
    if by_letter { "Letter: " } else { "Answer: " }
}
