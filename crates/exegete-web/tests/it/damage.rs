//! Runs of which something is missing or damaged, and runs under way: what is intact is shown, and what is not is named.

use std::fs;

use exegete_store::Run;
use exegete_web::{Colours, Dashboard, StaticPages, latent_lines};
use serde_json::json;

use crate::fixture::make_run;
use crate::site::Site;

fn flip(path: &std::path::Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

#[test]
fn what_is_intact_is_shown_and_what_is_not_is_named() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let part = dir.path().join("examples/part-00000.parquet");
    flip(&part);
    let site = Site::of(dir.path());
    let page = site.get("/latent/3").body;
    assert!(page.contains("missing or damaged") && page.contains("examples/part-00000.parquet"), "{page}");
    let told = site.get("/api/latent/3").json();
    assert!(told["top_examples"].as_array().unwrap().is_empty(), "no number of a damaged part is shown");
    assert!(told["count"].as_u64().unwrap() > 0, "the table is whole");
    assert_eq!(told["problems"].as_array().unwrap().len(), 1);
    let detail = Dashboard::open(dir.path()).unwrap().latent("", 3, "levels").unwrap();
    assert!(latent_lines(&detail, Colours(false))[0].contains("examples/part-00000.parquet"));
    let refused = StaticPages::open(dir.path(), None).map(drop).unwrap_err().to_string();
    assert!(refused.contains("examples/part-00000.parquet"), "what goes to others is whole: {refused}");

    fs::remove_file(&part).unwrap();
    let page = Site::of(dir.path()).get("/latent/3").body;
    assert!(page.contains("missing or damaged") && page.contains("part-00000.parquet"), "{page}");
    flip(&dir.path().join("latents.parquet"));
    let refused = Dashboard::open(dir.path()).map(drop).unwrap_err().to_string();
    assert!(refused.contains("latents.parquet"), "{refused}");
}

#[test]
fn a_harvest_under_way_is_served_by_its_jobs() {
    let dir = tempfile::tempdir().unwrap();
    drop(Run::create_or_resume(dir.path(), "exegete test", json!({}), &[]).unwrap());
    assert!(Dashboard::open(dir.path()).is_err(), "there is nothing to see yet");
    fs::create_dir(dir.path().join("jobs")).unwrap();
    let job = json!({"kind": "harvest", "started": 1, "updated": 2, "state": "failed"});
    fs::write(dir.path().join("jobs/harvest.json"), job.to_string()).unwrap();
    let site = Site::of(dir.path());
    let first = site.get("/");
    assert_eq!((first.status, first.location.as_deref()), (303, Some("/jobs")));
    assert_eq!((site.get("/jobs").status, site.get("/training").status, site.get("/latent/3").status), (200, 404, 404));
}

#[test]
fn steps_lead_to_latents_that_there_are() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let mut run = Run::open_to_write(dir.path()).unwrap();
    let mut rows = exegete_store::read_latents(&run.path("latents.parquet")).unwrap();
    rows.retain(|row| row.latent.0 % 50 == 5);
    run.commit_part("latents.parquet", rows.len() as u64, |w| exegete_store::write_latents(w, &rows)).unwrap();
    drop(run);
    let page = Site::of(dir.path()).get("/latent/55").body;
    assert!(page.contains("href=\"/latent/5\"") && page.contains("href=\"/latent/105\""), "{page}");
    assert!(!page.contains("href=\"/latent/54\""));
}

#[test]
fn where_a_form_goes_is_ours_or_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let site = Site::of(dir.path());
    for back in ["%2Flatent%2F7%00", "%2Flatent%2F7%7F", "%2F%2Felsewhere", "%2F%5Celsewhere", "%2Fa%0D%0Ab"] {
        let form = format!("text=a&back={back}");
        let answer = site.post("/api/latent/7/note", "application/x-www-form-urlencoded", &form);
        assert_eq!((answer.status, answer.location), (200, None), "{back}");
    }
    let kept = site.post("/api/latent/7/note", "application/x-www-form-urlencoded", "text=a&back=%2Flatent%2F7");
    assert_eq!((kept.status, kept.location.as_deref()), (303, Some("/latent/7")));
    let empty = site.post("/api/latent/7/note", "application/x-www-form-urlencoded", "text=&back=%2Flatent%2F7");
    assert!(empty.status == 422 && empty.body.contains("<html"), "a form is told on a page: {}", empty.body);
}

#[test]
fn json_says_numbers_and_truth_values_as_themselves() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let site = Site::of(dir.path());
    assert_eq!(site.send("/api/latent/3/bookmark", &json!({ "is_set": true })).json()["is_bookmarked"], true);
    assert_eq!(site.send("/api/latent/3/bookmark", &json!({ "is_set": [] })).status, 422);
    let method = site.get("/api/latent/3").json()["methods"][0]["method"].clone();
    assert_eq!(site.send("/api/latent/3/label", &json!({ "method": method, "rank": 0 })).status, 200);
    assert_eq!(site.send("/api/latent/3/label", &json!({ "method": "nope", "rank": 7 })).status, 404);
    assert!(site.get("/api/latent/3").json()["label"].is_object(), "a slip takes no label away");
    assert_eq!(site.send("/api/latent/3/label", &json!({})).status, 200);
    assert!(site.get("/api/latent/3").json()["label"].is_null());
}
