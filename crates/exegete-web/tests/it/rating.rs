//! Blind rating: every text comes once, in an order of the seed, without telling whose it is.

use std::collections::BTreeSet;

use exegete_store::Notes;
use serde_json::json;

use crate::fixture::make_run;
use crate::site::Site;

#[test]
fn texts_come_in_random_order_and_are_rated_once() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let site = Site::of(dir.path());
    let first = |seed: u64| site.get(&format!("/api/rating?seed={seed}")).json()["candidate"].as_i64().unwrap();
    let firsts: BTreeSet<i64> = (0..20).map(first).collect();
    assert!(firsts.len() > 10 && first(3) == first(3), "{firsts:?}");

    let task = site.get("/api/rating?seed=3").json();
    assert_eq!(task["total"], 180);
    let examples = task["examples"].as_array().unwrap();
    assert!(examples.len() == 8 || examples.len() > 2, "{}", examples.len());
    let page = site.get("/rate?seed=3").body;
    for hidden in ["/latent/", "by self", "score", "scale ", "rank"] {
        assert!(!page.contains(hidden), "{hidden:?} is told: {page}");
    }
    let mut seen = BTreeSet::new();
    for grade in [5, 0, 3] {
        let id = first(3);
        assert!(seen.insert(id), "it comes again");
        let rated = site.send(&format!("/api/rating/{id}"), &json!({ "grade": grade.to_string(), "seed": "3" }));
        assert_eq!(rated.status, 200, "{}", rated.body);
    }
    let skipped = first(3);
    let after = site.get(&format!("/api/rating?seed=3&skip={skipped}")).json()["candidate"].as_i64().unwrap();
    assert_ne!(after, skipped);
    for (id, grade) in [("1", "6"), ("1", "-1"), ("1", "x"), ("999999", "3"), ("x", "3")] {
        let answer = site.send(&format!("/api/rating/{id}"), &json!({ "grade": grade, "seed": "3" }));
        assert!([404, 422].contains(&answer.status), "{id} {grade}");
    }
    let kept = Notes::open_read_only(&dir.path().join("run.sqlite")).unwrap().ratings().unwrap();
    assert_eq!(kept.iter().map(|rating| rating.grade).collect::<Vec<_>>(), [5, 0, 3]);
    assert!(kept.iter().all(|rating| rating.method == "self" && rating.seed == 3));
}
