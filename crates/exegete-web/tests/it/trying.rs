//! Trying texts, with a stand-in for the model.

use std::sync::Arc;

use exegete_web::wire::{FiringLatent, TriedLatents, TriedText, TriedToken};
use exegete_web::{Dashboard, Session, app};
use serde_json::json;

use crate::fixture::make_run;
use crate::site::Site;

/// Words are tokens, and a latent fires on words that begin with its last digit's letter.
pub(crate) struct StandIn;

impl Session for StandIn {
    fn activations(&self, _: &str, latent: u32, text: &str) -> Result<TriedText, String> {
        let token = |(i, word): (usize, &str)| TriedToken {
            text: format!(" {word}"),
            value: (i > 0).then_some(if word.starts_with('a') { 2.5 } else { 0.0 }),
        };
        Ok(TriedText { latent, tokens: text.split_whitespace().enumerate().map(token).collect() })
    }

    fn latents(&self, _: &str, text: &str, position: Option<usize>) -> Result<TriedLatents, String> {
        if text.contains("refuse") {
            return Err("the model says <no>".into());
        }
        let firing = |latent: u32| FiringLatent {
            latent,
            position: 0,
            value: 9.0 - latent as f32,
            quantile: None,
            effect: (latent > 0).then_some(latent as f32 % 3.0 - 1.0),
            explanation: None,
        };
        let tokens: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let n = if position.is_some() { 2 } else { 5 };
        Ok(TriedLatents { tokens, latents: (0..n).map(firing).collect(), total: n as usize })
    }
}

#[test]
fn texts_are_tried_where_a_model_is_at_hand() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let site = Site(app(Dashboard::open(dir.path()).unwrap().with_session(Arc::new(StandIn))));
    let tried = site.send("/api/try/latent/3", &json!({ "text": "the apple" })).json();
    assert_eq!((&tried["tokens"][0]["value"], &tried["tokens"][1]["value"]), (&json!(null), &json!(2.5)));
    let tried = site.send("/api/try/latents", &json!({ "text": "the apple", "order": "effect" })).json();
    let order = |tried: &serde_json::Value| -> Vec<u64> {
        tried["latents"].as_array().unwrap().iter().map(|firing| firing["latent"].as_u64().unwrap()).collect()
    };
    assert_eq!((&tried["total"], order(&tried)), (&5.into(), vec![2, 3, 1, 4, 0]), "by size, what has none last");
    let tried = site.send("/api/try/latents", &json!({ "text": "the apple" })).json();
    assert_eq!(order(&tried), [0, 1, 2, 3, 4]);
    let tried = site.send("/api/try/latents", &json!({ "text": "the apple", "order": "quantile" })).json();
    let shares: Vec<f64> =
        tried["latents"].as_array().unwrap().iter().filter_map(|firing| firing["quantile"].as_f64()).collect();
    assert!(shares.len() == 5 && shares.is_sorted_by(|a, b| a >= b) && shares.iter().all(|s| (0.0..=1.0).contains(s)));
    assert!(tried["latents"][3]["explanation"].is_string(), "what they are called is filled in");
    let tried = site.send("/api/try/latents", &json!({ "text": "the apple", "position": 1 })).json();
    assert_eq!(order(&tried), [0, 1], "those of one token");
    assert_eq!(site.send("/api/try/latents", &json!({ "text": "x", "position": "last" })).status, 422);
    let refused = site.send("/api/try/latents", &json!({ "text": "refuse" }));
    assert_eq!((refused.status, refused.json()["error"].as_str()), (422, Some("the model says <no>")));
    assert_eq!(site.send("/api/try/latents", &json!({ "text": "x", "order": "rank" })).status, 422);
    assert_eq!(site.send("/api/try/latents", &json!({ "text": "x".repeat(5000) })).status, 413);
    assert_eq!(site.send("/api/try/latent/180", &json!({ "text": "x" })).status, 404);
    // A form is answered with a page, which the script takes the text from.
    let form = |text: &str| {
        let body = format!("text={text}&back=%2Flatent%2F3");
        site.post("/api/try/latent/3", "application/x-www-form-urlencoded", &body)
    };
    let page = form("the+%3Cb%3E+apple");
    assert!(
        page.status == 200 && page.body.contains("&lt;b&gt;") && page.body.contains("Strongest: 2.50"),
        "{}",
        page.body
    );
    assert!(page.body.contains("data-value=\"2.5\" tabindex=\"0\">apple"), "{}", page.body);
    assert!(form("the+sea").body.contains("It does not fire."));
    let refused = form(&"x".repeat(5000));
    assert!(refused.status == 413 && refused.body.contains("class=\"notice\""), "{}", refused.body);
    assert!(site.get("/latent/3").body.contains("Try a text") && site.get("/try").status == 200);
}

#[test]
fn without_a_model_there_is_none_to_ask_and_this_is_said() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let site = Site::of(dir.path());
    for uri in ["/api/try/latent/3", "/api/try/latents"] {
        let answer = site.send(uri, &json!({ "text": "x" }));
        assert!(answer.status == 404 && answer.body.contains("--model"), "{}", answer.body);
    }
    assert!(site.get("/try").status == 404 && !site.get("/latent/3").body.contains("Try a text"));
}
