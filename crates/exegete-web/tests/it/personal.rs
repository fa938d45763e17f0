//! Notes, bookmarks and labels: kept over a restart, taken only as they should be, refused where nothing can be written.

use serde_json::{Value, json};

use crate::fixture::{HOSTILE, make_run};
use crate::site::Site;

const FORM: &str = "application/x-www-form-urlencoded";

#[test]
fn what_a_person_says_is_kept_over_a_restart_and_found() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let site = Site::of(dir.path());
    let note = site.send("/api/latent/7/note", &json!({ "text": format!("gannets {HOSTILE}") }));
    assert_eq!(note.status, 200, "{}", note.body);
    let form = site.post("/api/latent/7/note", FORM, "text=a+second+one&back=%2Flatent%2F7%23notes");
    assert_eq!((form.status, form.location.as_deref()), (303, Some("/latent/7#notes")));
    assert_eq!(site.send("/api/latent/9/bookmark", &json!({ "is_set": "true" })).status, 200);
    assert_eq!(site.send("/api/latent/3/label", &json!({ "method": "self", "rank": "1" })).json()["label"], "ships");

    for site in [site, Site::of(dir.path())] {
        let seven = site.get("/api/latent/7").json();
        assert_eq!(seven["notes"].as_array().unwrap().len(), 2);
        let page = site.get("/latent/7").body;
        assert!(page.contains("gannets &lt;script&gt;") && !page.contains("<script>alert"));
        assert_eq!(site.get("/api/latents?q=gannets").json()["latents"][0]["latent"], 7);
        assert_eq!(site.get("/api/latents?show=noted").json()["total"], 1);
        assert_eq!(site.get("/api/latents?show=bookmarked").json()["latents"][0]["latent"], 9);
        let three = site.get("/api/latent/3").json();
        assert_eq!((&three["explanation"], &three["label"]["scale"]), (&"ships".into(), &180.0.into()));
        assert!(site.get("/latent/3").body.contains("Label picked by hand"));
    }
    let site = Site::of(dir.path());
    let id = &note.json()["note"];
    assert_eq!(site.send(&format!("/api/note/{id}/remove"), &json!({})).status, 200);
    assert_eq!(site.send(&format!("/api/note/{id}/remove"), &json!({})).status, 404);
    assert_eq!(site.send("/api/latent/9/bookmark", &json!({ "is_set": "false" })).status, 200);
    assert_eq!(site.send("/api/latent/3/label", &json!({})).json()["label"], Value::Null);
    assert_eq!(site.get("/api/latents?show=bookmarked").json()["total"], 0);
    assert_eq!(site.get("/api/latent/3").json()["explanation"], HOSTILE);
}

#[test]
fn a_run_that_nothing_was_said_of_takes_a_first_note() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    std::fs::remove_file(dir.path().join("run.sqlite")).unwrap();
    let site = Site::of(dir.path());
    assert_eq!(site.get("/latent/7").status, 200);
    assert_eq!(site.send("/api/latent/7/note", &json!({ "text": "first" })).status, 200);
    assert_eq!(site.get("/api/latent/7").json()["notes"][0]["text"], "first");
}

#[test]
fn changes_are_taken_only_as_they_should_be() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let site = Site::of(dir.path());
    let long = "x".repeat(4001);
    for (uri, kind, body, status) in [
        ("/api/latent/7/note", "text/plain", "text=x", 415),
        ("/api/latent/7/note", "application/json", "{\"text\":", 422),
        ("/api/latent/7/note", "application/json", "{}", 422),
        ("/api/latent/7/note", "application/json", "{\"text\":\" \"}", 422),
        ("/api/latent/7/note", FORM, "text=%ff%fe", 200),
        ("/api/latent/7/note", FORM, "", 422),
        ("/api/latent/7/note", FORM, &format!("text={long}"), 422),
        ("/api/latent/180/note", FORM, "text=x", 404),
        ("/api/latent/x/note", FORM, "text=x", 404),
        ("/api/latent/7/bookmark", FORM, "is_set=perhaps", 422),
        ("/api/note/x/remove", FORM, "", 404),
        ("/api/job/..%2f..%2fx/cancel", FORM, "", 404),
        ("/api/latent/7/note", FORM, "text=x&back=%2F%2Fevil.example", 200),
        ("/api/latent/7/note", FORM, "text=x&back=https%3A%2F%2Fevil.example", 200),
        ("/api/latent/7/note", FORM, "text=x&back=%2F%5Cevil.example", 200),
    ] {
        let answer = site.post(uri, kind, body);
        assert_eq!((answer.status, answer.location), (status, None), "{uri} {body:.60}: {}", answer.body);
    }
    assert_eq!(site.get("/api/latent/7/note").status, 405);
}

#[test]
fn a_run_that_cannot_be_written_to_says_so() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let site = Site::of(dir.path());
    // A directory in the place of the journal is as good as a medium that is read only, for every user.
    std::fs::remove_file(dir.path().join("run.sqlite-wal")).ok();
    std::fs::create_dir_all(dir.path().join("run.sqlite-wal/x")).unwrap();
    let answer = site.send("/api/latent/7/note", &json!({ "text": "x" }));
    assert_eq!(answer.status, 409, "{}", answer.body);
    assert!(answer.json()["error"].as_str().unwrap().contains("cannot be written to"), "{}", answer.body);
    let page = site.post("/api/latent/7/note", FORM, "text=x&back=%2Flatent%2F7");
    assert!(page.status == 409 && page.body.contains("<h1>"), "a person sees a page: {}", page.body);
}
