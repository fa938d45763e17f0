//! A run of several dictionaries.

use exegete_web::{Dashboard, app};
use serde_json::json;

use crate::fixture::{make_run, make_run_of_two};
use crate::site::Site;

#[test]
fn every_dictionary_has_its_pages_and_links_stay_in_it() {
    let dir = tempfile::tempdir().unwrap();
    make_run_of_two(dir.path());
    let site = Site::of(dir.path());
    let whole = site.get("/api/overview?dictionary=nar%20row").json();
    assert_eq!((&whole["latents"], &whole["dictionary"]), (&40.into(), &"nar row".into()));
    assert_eq!(whole["dictionaries"].as_array().unwrap().len(), 2, "what lies outside of the run is none");
    assert_eq!(site.get("/api/overview").json()["latents"], 180, "the first without a name");
    let page = site.get("/latent/3?dictionary=nar%20row&view=intervals").body;
    for part in [
        "href=\"/latent/4?view=intervals&amp;dictionary=nar%20row\"",
        "action=\"/api/latent/3/note?dictionary=nar%20row\"",
        "href=\"/?dictionary=nar%20row\"",
        "href=\"/context?latent=3&amp;",
    ] {
        assert!(page.contains(part), "{part} is not in {page}");
    }
    let home = site.get("/?dictionary=nar%20row&q=the&show=alive").body;
    assert!(home.contains("name=\"dictionary\" value=\"nar row\"") && home.contains("show=alive&amp;sort="), "{home}");
    assert!(!site.get("/latent/3").body.contains("/latent/4?dictionary"), "the first needs no name");
    assert_eq!(site.get("/latent/100?dictionary=nar%20row").status, 404);
    for of in ["wide", "nar%20row"] {
        // What is no share, or not told, is not said.
        assert_eq!(site.get(&format!("/api/map?dictionary={of}")).json()["variance"], json!([]), "{of}");
        assert!(!site.get(&format!("/map?dictionary={of}")).body.contains("of the variance"), "{of}");
    }
    assert_eq!(site.get("/?dictionary=nosuch").status, 404);
    assert_eq!(site.get("/api/latents?dictionary=..%2F..%2Felsewhere").status, 404);
    assert_eq!(site.get("/?dictionary=outside").status, 404);

    assert_eq!(site.send("/api/latent/3/note?dictionary=nar%20row", &json!({ "text": "narrow" })).status, 200);
    assert_eq!(site.get("/api/latent/3?dictionary=nar%20row").json()["notes"][0]["text"], "narrow");
    assert!(site.get("/api/latent/3").json()["notes"].as_array().unwrap().is_empty());
    let both = site.get("/compare?dictionary=wide&left=3&other=nar%20row&right=3").body;
    assert!(both.contains("of wide") && both.contains("of nar row"), "{both}");
}

#[test]
fn a_run_beside_another_is_compared_with_it_and_keeps_what_is_said_in_it() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (own, beside) = (dir.path().join("own"), other.path().join("beside"));
    make_run(&own);
    make_run_of_two(&beside);
    let site = Site(app(Dashboard::open_beside(&own, std::slice::from_ref(&beside)).unwrap()));
    let names: Vec<String> = site.get("/api/overview").json()["dictionaries"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["own", "wide of beside", "nar row of beside"]);
    let whole = site.get("/compare?other=wide%20of%20beside").body;
    assert!(
        whole.contains("Two dictionaries side by side") && whole.matches("class=\"overview\"").count() == 2,
        "{whole}"
    );
    let both = site.get("/compare?left=3&other=nar%20row%20of%20beside&right=5").body;
    assert!(both.contains("of nar row of beside"), "{both}");
    let note = "/api/latent/3/note?dictionary=nar%20row%20of%20beside";
    assert_eq!(site.send(note, &json!({ "text": "elsewhere" })).status, 200);
    assert!(site.get("/api/latent/3").json()["notes"].as_array().unwrap().is_empty());
    assert_eq!(Site::of(&beside).get("/api/latent/3?dictionary=nar%20row").json()["notes"][0]["text"], "elsewhere");

    // One that is gone takes nothing with it.
    std::fs::remove_dir_all(&beside).unwrap();
    assert_eq!(site.get("/latent/3").status, 200);
    assert_eq!(site.get("/latent/3?dictionary=wide%20of%20beside").status, 404);
    assert!(Dashboard::open_beside(&own, &[beside]).is_err());
}
