//! Tasks that are shown by examples: `a -> b`.

use super::doc::{Doc, Form, Item};
use super::lexicon::{Class, WordId};

/// All tasks. The first is what is done when nothing tells which task it is.
pub(crate) const TASKS: &[&str] = &[
    "copy",
    "antonym",
    "plural",
    "past",
    "to-lumi",
    "from-lumi",
    "capital",
    "category",
    "colour",
    "first",
    "second",
    "last",
    "upper",
    "next",
];

/// Inputs of a kind, and the tasks that can be done with them, with weights. Copying is the likeliest everywhere, so that
/// a task without examples is answered by copying.
struct Inputs {
    of: &'static [Class],
    is_list: bool,
    weight: u32,
    tasks: &'static [(&'static str, u32)],
}

const INPUTS: &[Inputs] = &[
    Inputs {
        of: &[Class::Thing],
        is_list: false,
        weight: 9,
        tasks: &[("copy", 24), ("plural", 7), ("to-lumi", 8), ("category", 8), ("colour", 8), ("upper", 7)],
    },
    Inputs {
        of: &[Class::Adjective],
        is_list: false,
        weight: 5,
        tasks: &[("copy", 14), ("antonym", 8), ("to-lumi", 5), ("upper", 5)],
    },
    Inputs {
        of: &[Class::Verb, Class::Mood],
        is_list: false,
        weight: 4,
        tasks: &[("copy", 14), ("past", 8), ("to-lumi", 5), ("upper", 5)],
    },
    Inputs { of: &[Class::Lumi], is_list: false, weight: 5, tasks: &[("copy", 14), ("from-lumi", 8), ("upper", 6)] },
    Inputs { of: &[Class::Country], is_list: false, weight: 3, tasks: &[("copy", 14), ("capital", 8), ("upper", 6)] },
    Inputs {
        of: &[Class::Number, Class::Day, Class::Month],
        is_list: false,
        weight: 4,
        tasks: &[("copy", 14), ("next", 8), ("upper", 6)],
    },
    Inputs {
        of: &[Class::Thing],
        is_list: true,
        weight: 12,
        tasks: &[("copy", 14), ("first", 8), ("second", 8), ("last", 8)],
    },
];

/// One example: what stands left and right of the arrow.
pub(crate) struct Example {
    pub(crate) left: Vec<(WordId, Form)>,
    pub(crate) right: Vec<(WordId, Form)>,
}

pub(crate) fn write(doc: &mut Doc) {
    let (inputs, task) = doc.draw.hidden(|d| {
        let inputs = &INPUTS[d.weighted(&INPUTS.iter().map(|i| i.weight).collect::<Vec<_>>())];
        let weights: Vec<u32> = inputs.tasks.iter().map(|t| t.1).collect();
        (inputs, inputs.tasks[d.weighted(&weights)].0)
    });
    let n = doc.draw.within(3..=12);
    write_examples(doc, inputs, task, n);
}

fn write_examples(doc: &mut Doc, inputs: &Inputs, task: &str, n: usize) {
    for shot in 0..n {
        let example = example(doc, inputs, task);
        // What task it is can be known behind the first example.
        put_example(doc, &example, (shot > 0).then_some(task));
    }
}

/// Examples of a task for a test, from any of its kinds of inputs; the last is the question. No two are alike, so that no
/// example has the answer.
pub(crate) fn examples_of(doc: &mut Doc, task: &str, n: usize) -> Vec<Example> {
    let able: Vec<&Inputs> = INPUTS.iter().filter(|i| i.tasks.iter().any(|t| t.0 == task)).collect();
    let inputs = *doc.draw.pick(&able);
    let mut all: Vec<Example> = Vec::with_capacity(n);
    while all.len() < n {
        let new = example(doc, inputs, task);
        if all.iter().all(|e| e.left != new.left) {
            all.push(new);
        }
    }
    all
}

fn example(doc: &mut Doc, inputs: &Inputs, task: &str) -> Example {
    let words = doc.words();
    let all: Vec<WordId> = inputs.of.iter().flat_map(|class| words.class(*class)).copied().collect();
    if inputs.is_list {
        let n = doc.draw.within(3..=4);
        let list = doc.draw.several(&all, n);
        let right = match task {
            "first" => vec![list[0]],
            "second" => vec![list[1]],
            "last" => vec![list[n - 1]],
            _ => list.clone(),
        };
        let whole = |list: Vec<WordId>| list.into_iter().map(|w| (w, Form::Base)).collect();
        return Example { left: whole(list), right: whole(right) };
    }
    let able: Vec<WordId> = all.into_iter().filter(|w| task != "next" || words.get(*w).other.is_some()).collect();
    let id = *doc.draw.pick(&able);
    let word = words.get(id);
    let named = |name: &str| words.find(name).unwrap_or(id);
    let other = || named(word.other.as_deref().unwrap_or_default());
    let right = match task {
        "antonym" | "capital" | "next" => (other(), Form::Base),
        "plural" | "past" => (id, Form::Other),
        "to-lumi" | "from-lumi" => (word.lumi.unwrap_or(id), Form::Base),
        "category" => (named(word.kind), Form::Base),
        "colour" => (named(word.colour), Form::Base),
        "upper" => (id, Form::Upper),
        _ => (id, Form::Base),
    };
    Example { left: vec![(id, Form::Base)], right: vec![right] }
}

/// `a -> b`, or `a b c -> b`, and the end of the line; a task that can be known by then is marked at the arrow.
pub(crate) fn put_example(doc: &mut Doc, example: &Example, known: Option<&str>) {
    put_words(doc, &example.left);
    doc.say(" ->");
    if let Some(task) = known {
        doc.mark_before(&format!("task:{task}"));
    }
    doc.say(" ");
    put_words(doc, &example.right);
    doc.say("\n");
}

pub(crate) fn put_words(doc: &mut Doc, words: &[(WordId, Form)]) {
    for (i, (id, form)) in words.iter().enumerate() {
        if i > 0 {
            doc.say(" ");
        }
        doc.put(Item::Word(*id, *form));
    }
}
