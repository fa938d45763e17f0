//! Notes: replacing, searching with hostile text, reading on a read-only medium.

use std::collections::BTreeMap;
use std::fs;

use exegete_base::LatentId;
use exegete_base::stats::Estimate;
use exegete_store::{Curves, Explanation, Notes, Score, StoreError};
use proptest::prelude::*;
use serde_json::json;

pub(crate) fn explanation(method: &str, rank: u32, text: &str) -> Explanation {
    Explanation {
        method: method.into(),
        rank,
        text: text.into(),
        scale: 12.5,
        score: 0.25,
        abstained: false,
        settings: json!({"layer": 2}),
    }
}

fn put(notes: &mut Notes, latent: u32, method: &str, texts: &[&str]) {
    let rows: Vec<Explanation> =
        texts.iter().enumerate().map(|(i, text)| explanation(method, i as u32, text)).collect();
    notes.put_explanations(LatentId(latent), method, &rows, &Curves::default()).unwrap();
}

#[test]
fn explanations_and_curves_come_back_and_are_replaced_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut notes = Notes::open(&dir.path().join("run.sqlite")).unwrap();
    let mut rows = vec![explanation("self", 0, "the sea"), explanation("self", 1, "ships")];
    rows[1].abstained = true;
    let curves = Curves {
        scales: vec![1.0, 2.0],
        curves: BTreeMap::from([("entropy".into(), vec![0.5, 0.25]), ("empty".into(), vec![])]),
    };
    notes.put_explanations(LatentId(3), "self", &rows, &curves).unwrap();
    put(&mut notes, 3, "judge", &["water"]);
    assert_eq!(notes.explanations_of(LatentId(3)).unwrap()[1..], rows);
    assert_eq!(notes.curves_of(LatentId(3)).unwrap()["self"], curves);
    put(&mut notes, 3, "self", &["harbours"]);
    let texts: Vec<String> = notes.explanations_of(LatentId(3)).unwrap().into_iter().map(|e| e.text).collect();
    assert_eq!(texts, ["water", "harbours"]);
    assert!(notes.search("ships").unwrap().is_empty());
    assert_eq!(notes.search("harb").unwrap(), [(LatentId(3), "harbours".to_string())]);
}

#[test]
fn the_first_text_of_a_latent_is_its_best_and_abstentions_do_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let mut notes = Notes::open(&dir.path().join("n")).unwrap();
    put(&mut notes, 1, "self", &["first", "second"]);
    put(&mut notes, 2, "self", &[]);
    let mut unsure = explanation("self", 0, "unsure");
    unsure.abstained = true;
    notes.put_explanations(LatentId(4), "self", &[unsure], &Curves::default()).unwrap();
    assert_eq!(notes.first_texts().unwrap(), BTreeMap::from([(LatentId(1), "first".into())]));
    assert_eq!(notes.explained_latents("self").unwrap(), [1, 2, 4].map(LatentId));
    assert!(notes.explained_latents("judge").unwrap().is_empty());
}

#[test]
fn numbers_that_are_none_survive() {
    let dir = tempfile::tempdir().unwrap();
    let mut notes = Notes::open(&dir.path().join("n")).unwrap();
    let row = Explanation { scale: f64::NAN, score: f64::INFINITY, ..explanation("self", 0, "x") };
    let curves = Curves { scales: vec![f64::NAN, 1.0], ..Curves::default() };
    notes.put_explanations(LatentId(0), "self", &[row], &curves).unwrap();
    let back = &notes.explanations_of(LatentId(0)).unwrap()[0];
    assert!(back.scale.is_nan() && back.score.is_nan());
    let scales = &notes.curves_of(LatentId(0)).unwrap()["self"].scales;
    assert!(scales[0].is_nan() && scales[1] == 1.0);
}

#[test]
fn a_database_is_read_while_it_is_written_and_where_nothing_can_be_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run #1?.sqlite");
    let mut writer = Notes::open(&path).unwrap();
    put(&mut writer, 1, "self", &["one"]);
    let reader = Notes::open_read_only(&path).unwrap();
    put(&mut writer, 2, "self", &["two"]);
    assert_eq!(reader.first_texts().unwrap().len(), 2);
    drop((writer, reader));
    assert_eq!(Notes::open_read_only(&path).unwrap().first_texts().unwrap().len(), 2);
    assert!(Notes::open_read_only(&dir.path().join("none")).is_err());
}

#[test]
fn a_file_that_is_no_database_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n");
    fs::write(&path, vec![7u8; 5000]).unwrap();
    assert!(matches!(Notes::open(&path), Err(StoreError::Sqlite { .. })));
    assert!(matches!(Notes::open_read_only(&path), Err(StoreError::Sqlite { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn no_search_text_can_break_the_query(text in prop_oneof![".*", "[\"'*():^ a\\-+\u{0}]{0,12}", "(AND|OR|NOT|NEAR|\"| )*"]) {
        let dir = tempfile::tempdir().unwrap();
        let mut notes = Notes::open(&dir.path().join("n")).unwrap();
        put(&mut notes, 1, "self", &["a \"quoted\" thing"]);
        notes.search(&text).unwrap();
    }
}

#[test]
fn what_a_person_says_comes_back_and_can_be_taken_away() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n");
    let mut notes = Notes::open(&path).unwrap();
    put(&mut notes, 3, "self", &["the sea", "ships"]);
    let first = notes.add_note(LatentId(3), "Fires in \"Logs\"\u{0}").unwrap();
    let second = notes.add_note(LatentId(5), "again").unwrap();
    notes.set_bookmark(LatentId(7), true).unwrap();
    notes.set_bookmark(LatentId(7), true).unwrap();
    notes.set_label(LatentId(3), "self", Some(40.0), "ships").unwrap();
    notes.set_label(LatentId(3), "self", Some(f64::NAN), "boats").unwrap();
    let candidate = notes.candidates().unwrap().remove(1);
    notes.rate(&candidate, 4, u64::MAX).unwrap();
    drop(notes);

    let notes = Notes::open(&path).unwrap();
    assert_eq!(notes.notes_of(LatentId(3)).unwrap()[0].text, "Fires in \"Logs\"\u{0}");
    assert_eq!(notes.noted_latents().unwrap(), [3, 5].map(LatentId));
    assert_eq!(notes.noted_with("LOGS").unwrap(), [LatentId(3)]);
    assert_eq!(notes.bookmarks().unwrap(), [LatentId(7)]);
    assert!(notes.is_bookmarked(LatentId(7)).unwrap() && !notes.is_bookmarked(LatentId(3)).unwrap());
    let label = notes.label_of(LatentId(3)).unwrap().unwrap();
    assert_eq!((label.text.as_str(), label.scale), ("boats", None));
    let rating = &notes.ratings().unwrap()[0];
    assert_eq!((rating.text.as_str(), rating.grade, rating.seed), ("ships", 4, u64::MAX));
    assert_eq!(notes.first_text(LatentId(3)).unwrap().as_deref(), Some("the sea"));

    assert!(notes.remove_note(first).unwrap() && !notes.remove_note(first).unwrap());
    assert!(notes.remove_note(second).unwrap());
    notes.set_bookmark(LatentId(7), false).unwrap();
    notes.remove_label(LatentId(3)).unwrap();
    assert!(notes.noted_latents().unwrap().is_empty() && notes.bookmarks().unwrap().is_empty());
    assert!(notes.labels().unwrap().is_empty());
}

/// A database of version 1, from before ratings and labels.
const VERSION_1: &str = "
CREATE TABLE explanations (
    id INTEGER PRIMARY KEY, latent INTEGER NOT NULL, method TEXT NOT NULL, rank INTEGER NOT NULL, text TEXT NOT NULL,
    scale REAL, score REAL, abstained INTEGER NOT NULL, settings TEXT NOT NULL, UNIQUE (latent, method, rank)
);
CREATE TABLE curves (
    latent INTEGER NOT NULL, method TEXT NOT NULL, scales TEXT NOT NULL, curves TEXT NOT NULL, PRIMARY KEY (latent, method)
);
CREATE TABLE notes (id INTEGER PRIMARY KEY, latent INTEGER NOT NULL, text TEXT NOT NULL, created_secs INTEGER NOT NULL);
CREATE TABLE bookmarks (latent INTEGER PRIMARY KEY, created_secs INTEGER NOT NULL);
INSERT INTO explanations VALUES (1, 3, 'self', 0, 'the sea', 1.0, 0.5, 0, '{}');
INSERT INTO notes VALUES (1, 3, 'old', 10);
PRAGMA user_version = 1;
";

#[test]
fn a_database_of_version_1_is_read_as_it_is_and_brought_up_to_date_by_a_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("n");
    rusqlite::Connection::open(&path).unwrap().execute_batch(VERSION_1).unwrap();
    let old = Notes::open_read_only(&path).unwrap();
    assert_eq!(old.notes_of(LatentId(3)).unwrap()[0].text, "old");
    assert!(old.ratings().unwrap().is_empty() && old.label_of(LatentId(3)).unwrap().is_none());
    let version = old.data_version().unwrap();
    let new = Notes::open(&path).unwrap();
    new.set_label(LatentId(3), "self", None, "sea").unwrap();
    assert_ne!(old.data_version().unwrap(), version);
    assert_eq!(old.label_of(LatentId(3)).unwrap().unwrap().text, "sea");
    assert_eq!(old.first_text(LatentId(3)).unwrap().as_deref(), Some("the sea"));
    drop((old, new));
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 4).unwrap();
    assert!(matches!(Notes::open(&path), Err(StoreError::Version { found: 4, .. })));
}

#[test]
fn scores_of_a_text_come_back_and_are_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.sqlite");
    let mut notes = Notes::open(&path).unwrap();
    let score = |text: &str, against: &str, value: f64| Score {
        latent: 3,
        text: text.into(),
        scorer: "detection".into(),
        against: against.into(),
        judge: "local".into(),
        value: Estimate { value, low: 0.5, high: f64::INFINITY, n: 100 },
        failed: 2,
        chance: 0.5,
        measures: serde_json::json!({"auroc": 0.75}),
        settings: serde_json::json!({}),
    };
    notes.put_scores(&[score("ships", "random", 0.8), score("ships", "neighbours", f64::NAN)]).unwrap();
    notes.put_scores(&[score("ships", "random", 0.9), score("sea", "random", 0.6)]).unwrap();
    let told = notes.scores_of(LatentId(3)).unwrap();
    let short: Vec<(&str, &str)> = told.iter().map(|s| (s.text.as_str(), s.against.as_str())).collect();
    assert_eq!(short, [("ships", "neighbours"), ("ships", "random"), ("sea", "random")]);
    assert!(told[0].value.value.is_nan() && told[1].value.value == 0.9 && told[1].value.high.is_nan());
    assert_eq!((told[1].failed, &told[1].measures["auroc"]), (2, &0.75.into()));
    assert_eq!(notes.scores().unwrap().len(), 3);
    assert!(notes.scores_of(LatentId(4)).unwrap().is_empty());
    drop(notes);
    // A database of before has none, and is read all the same.
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch("DROP TABLE scores; PRAGMA user_version = 2;").unwrap();
    drop(old);
    assert!(Notes::open_read_only(&path).unwrap().scores().unwrap().is_empty());
}
