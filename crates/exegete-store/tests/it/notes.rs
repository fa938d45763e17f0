//! Notes: replacing, searching with hostile text, reading on a read-only medium.

use std::collections::BTreeMap;
use std::fs;

use exegete_base::LatentId;
use exegete_store::{Curves, Explanation, Notes, StoreError};
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
