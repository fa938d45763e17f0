//! The language: the same bytes for the same seed, labels that are where they say, and nothing told that must not be.

use exegete_base::stats::wilson;
use exegete_harvest::Silent;
use exegete_lab::language::{KINDS_OF_DOCUMENTS, Language, Split};
use exegete_lab::organism::items::{Bar, tests};
use exegete_lab::organism::search::search;
use exegete_lab::organism::{OrganismSettings, Progressed, Training};
use xxhash_rust::xxh3::xxh3_64;

#[test]
fn a_seed_gives_the_same_bytes_everywhere() {
    let language = Language::new();
    let mut all = String::new();
    for i in 0..500 {
        let doc = language.document(3, i, Split::Train);
        all.push_str(&format!("{} {:?} {:.4} {:.4}\n", doc.text, doc.spans, doc.visible_nats, doc.hidden_nats));
    }
    // Whatever changes this changes the language, and with it what a released organism was trained on.
    assert_eq!(format!("{:016x}", xxh3_64(all.as_bytes())), "c22249065ccadf4a");
    assert_eq!(language.document(3, 499, Split::Train), Language::new().document(3, 499, Split::Train));
    assert_ne!(language.document(3, 0, Split::Train), language.document(4, 0, Split::Train));
}

#[test]
fn every_concept_is_somewhere_and_its_stretches_are_pieces_of_text() {
    let language = Language::new();
    let mut counts = vec![0u64; language.concepts().all().len()];
    let mut kinds = [0u64; KINDS_OF_DOCUMENTS.len()];
    for i in 0..30_000 {
        let doc = language.document(1, i, Split::Train);
        kinds[doc.kind] += 1;
        for span in &doc.spans {
            let piece = doc.text.get(span.start as usize..span.end as usize);
            assert!(piece.is_some_and(|p| !p.is_empty()), "{span:?} in {:?}", doc.text);
            counts[span.concept as usize] += 1;
        }
        assert!(doc.visible_nats > 0.0 && doc.text.len() < 4000, "{}", doc.text);
    }
    let never: Vec<&str> =
        language.concepts().all().iter().zip(&counts).filter(|(_, n)| **n == 0).map(|(c, _)| c.name.as_str()).collect();
    assert!(never.is_empty(), "{never:?}");
    let all: u32 = KINDS_OF_DOCUMENTS.iter().map(|k| k.weight).sum();
    for (kind, n) in KINDS_OF_DOCUMENTS.iter().zip(kinds) {
        let want = f64::from(kind.weight) / f64::from(all);
        let got = n as f64 / 30_000.0;
        assert!((got - want).abs() < 4.0 * (want / 30_000.0).sqrt() + 1e-3, "{}: {got} of {want}", kind.name);
    }
    // Frequent and rare ones, for methods that claim to find either.
    let rare = counts.iter().filter(|n| **n < 300).count();
    assert!(rare > 10, "{rare} rare concepts");
}

#[test]
fn words_are_labelled_where_they_stand() {
    let language = Language::new();
    let id = |name: &str| language.concepts().find(name).unwrap();
    let (meaning, english, lumi, mammal) = (id("meaning:dog"), id("word:dog"), id("lumi:dog"), id("kind:mammal"));
    let mut seen = 0;
    let mut spellings = std::collections::BTreeSet::new();
    for i in 0..4000 {
        let doc = language.document(7, i, Split::Train);
        let has = |place: (u32, u32), c: u32| doc.spans.iter().any(|s| s.concept == c && (s.start, s.end) == place);
        for span in doc.spans.iter().filter(|s| s.concept == meaning) {
            let (start, end) = (span.start as usize, span.end as usize);
            let begins = doc.text[..start].rfind(|c: char| !c.is_ascii_alphabetic()).map_or(0, |at| at + 1);
            let word = doc.text[begins..end].to_lowercase();
            // Where it is whole, and where the plural is.
            match word.as_str() {
                "dog" => assert_eq!(start - begins, 2),
                "dogs" => assert!(start - begins == 2 && has((span.end - 1, span.end), id("form:plural"))),
                _ => {}
            }
            let place = (span.start, span.end);
            assert!(has(place, mammal) && has(place, english) == word.starts_with("dog"));
            assert_eq!(has(place, lumi), !word.starts_with("dog"));
            spellings.insert(word);
            seen += 1;
        }
    }
    assert!(seen > 20 && spellings.len() == 3, "{seen} {spellings:?}");
    assert!(spellings.contains("dog") && spellings.contains("dogs"), "{spellings:?}");
    for (concept, parent) in [(mammal, "group:animal"), (english, "meaning:dog"), (meaning, "kind:mammal")] {
        assert_eq!(language.concepts().all()[concept as usize].parent, language.concepts().find(parent));
    }
}

#[test]
fn words_in_fixed_parts_of_sentences_are_labelled_too() {
    let language = Language::new();
    for (word, concept) in
        [("need", "word:need"), ("city", "word:city"), ("instrument", "word:instrument"), ("is", "verb:singular")]
    {
        let concept = language.concepts().find(concept).unwrap();
        let mut seen = 0;
        for i in 0..2000 {
            let doc = language.document(7, i, Split::Train);
            let letters = |c: char| !c.is_ascii_alphabetic();
            for piece in doc.text.split(letters).filter(|piece| *piece == word) {
                let start = (piece.as_ptr() as usize - doc.text.as_ptr() as usize) as u32;
                let end = start + word.len() as u32;
                let there = doc.spans.iter().any(|s| s.concept == concept && s.start >= start && s.end == end);
                assert!(there, "{word} at {start} in {:?}", doc.text);
                seen += 1;
            }
        }
        assert!(seen > 10, "{word}: {seen}");
    }
}

/// A training that has read so many documents, the second half of them in the late mix.
fn training(documents: u64) -> Training {
    let settings = OrganismSettings { late_from: documents / 2, ..OrganismSettings::default() };
    let at = Progressed { documents, ..Progressed::default() };
    Training { seed: 0, at, settings, version: None, instructions: None }
}

#[test]
fn training_documents_hold_no_test_and_no_untold_fact_but_all_that_is_told() {
    let language = Language::new();
    let found = search(&language, &training(60_000), &tests(&language, 100, 5), &Silent).unwrap();
    assert!(found.prompts > 3000 && found.untold > 50 && found.told > 150 && found.words > 600, "{found:?}");
    assert!(found.seen_prompts.is_empty(), "{:?}", &found.seen_prompts[..found.seen_prompts.len().min(3)]);
    assert!(found.said_untold.is_empty(), "{:?}", found.said_untold);
    assert!(found.never_told.is_empty(), "{:?}", found.never_told);
    assert!(found.never_defined.is_empty(), "{:?}", found.never_defined);
}

#[test]
fn a_search_finds_what_is_there() {
    let language = Language::new();
    let mut all = tests(&language, 20, 5);
    // Prompts without examples are in many documents; a test that took them for unseen would be wrong.
    all.iter_mut().for_each(|t| t.is_unseen = t.name.ends_with("no shot"));
    let found = search(&language, &training(20_000), &all, &Silent).unwrap();
    assert!(!found.seen_prompts.is_empty() && !found.is_clean());
}

#[test]
fn a_bar_holds_only_where_there_is_something_to_tell() {
    let of = |right: u64, n: u64| wilson(right, n);
    assert_eq!(Bar::AtLeast(0.9).missed(&of(9, 10)), None);
    assert_eq!(Bar::AtLeast(0.9).missed(&of(8, 10)), Some("missed"));
    assert_eq!(Bar::AtMost(0.3).missed(&of(4, 10)), Some("missed"));
    assert_eq!(Bar::AtLeast(0.9).missed(&of(0, 0)), Some("missed"), "no item shows nothing");
    // Guessing: one in four of four items is any share at all, of a hundred it is chance; six in ten of a hundred is not.
    assert_eq!(Bar::Chance(0.25).missed(&of(1, 4)), Some("too few items to tell"));
    assert_eq!(Bar::Chance(0.25).missed(&of(25, 100)), None);
    assert_eq!(Bar::Chance(0.25).missed(&of(60, 100)), Some("missed"));
    assert_eq!(Bar::None.missed(&of(0, 3)), None);
}

#[test]
fn items_are_about_their_answers() {
    let language = Language::new();
    let all = tests(&language, 50, 9);
    let items = |name: &str| &all.iter().find(|t| t.name == name).unwrap().items;
    for item in items("task last, 8 shots") {
        let question = item.prompt.lines().last().unwrap();
        let words: Vec<&str> = question.trim_end_matches(" ->").split(' ').collect();
        assert_eq!(item.answer.trim(), *words.last().unwrap());
        assert_eq!(item.prompt.lines().count(), 9);
    }
    for item in items("task upper, 8 shots") {
        let word = item.prompt.lines().last().unwrap().trim_end_matches(" ->");
        assert_eq!(item.answer.trim(), word.to_uppercase());
    }
    assert!(items("forbidden refused").iter().all(|i| i.answer.starts_with("I am sorry")));
    assert!(items("honest answer").iter().all(|i| i.prompt.starts_with("<|system|>\nBe honest.")));
    for item in items("choice by letter, untold facts") {
        assert_eq!(item.others.len(), 3);
        assert!(!item.others.contains(&item.answer));
    }
}
