//! Every page and answer, with hostile text in tokens, explanations and searches.

use std::sync::OnceLock;

use exegete_web::{Dashboard, WebError, app};
use http_body_util::BodyExt;
use serde_json::Value;
use tower::ServiceExt;

use crate::fixture::{HOSTILE, N_LATENTS, make_run};

struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    body: String,
}

fn dashboard() -> Dashboard {
    static RUN: OnceLock<(tempfile::TempDir, Dashboard)> = OnceLock::new();
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        make_run(dir.path());
        let dashboard = Dashboard::open(dir.path()).unwrap();
        (dir, dashboard)
    };
    RUN.get_or_init(make).1.clone()
}

#[tokio::main(flavor = "current_thread")]
async fn get_from(host: Option<&str>, uri: &str) -> Answer {
    let mut request = axum::http::Request::builder().uri(uri);
    if let Some(host) = host {
        request = request.header("host", host);
    }
    let response = app(dashboard()).oneshot(request.body(axum::body::Body::empty()).unwrap()).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    Answer { status, headers, body: String::from_utf8_lossy(&bytes).into_owned() }
}

fn get(uri: &str) -> Answer {
    let answer = get_from(None, uri);
    assert!(!answer.body.contains("<script>alert"), "{uri} lets hostile text through");
    answer
}

fn json(uri: &str) -> Value {
    serde_json::from_str(&get(uri).body).unwrap()
}

fn ids(list: &Value) -> Vec<u64> {
    list["latents"].as_array().unwrap().iter().map(|l| l["latent"].as_u64().unwrap()).collect()
}

#[test]
fn the_first_page_tells_of_the_run_and_lists_latents() {
    let page = get("/");
    assert_eq!(page.status, 200);
    for part in [
        "SmolLM2-135M-Instruct.Q4_1.gguf",
        "blocks.15.hook_resid_post",
        "0.234",
        "0.229 to 0.240",
        "31.9",
        "8 random directions",
        "<svg",
    ] {
        assert!(page.body.contains(part), "the page lacks {part:?}");
    }
    assert!(!page.body.contains("models/"), "directories of the machine are not told");
    assert!(page.body.contains("&lt;script&gt;alert"), "hostile explanations are shown as text");
}

#[test]
fn every_answer_forbids_foreign_content() {
    for uri in [
        "/",
        "/latent/1",
        "/latent/none",
        "/nowhere",
        "/api/latents",
        "/training",
        "/api/training",
        "/static/style.css",
        "/map",
        "/compare?left=1&right=3",
        "/jobs",
        "/rate",
        "/try",
        "/api/nowhere",
        "/api/openapi.json",
    ] {
        let answer = get(uri);
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{uri}");
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        // What the policy forbids must not be used.
        assert!(!answer.body.contains(" style=\"") && !answer.body.contains("onclick"), "{uri}");
        assert!(!answer.body.contains("https://") && !answer.body.contains("src=\"http"), "{uri}");
    }
}

#[test]
fn only_local_names_are_answered() {
    for (host, status) in [
        ("localhost:8080", 200),
        ("127.0.0.1", 200),
        ("[::1]:80", 200),
        ("evil.example", 403),
        ("localhost.evil.example:80", 403),
        ("10.0.0.1", 403),
    ] {
        assert_eq!(get_from(Some(host), "/").status, status, "{host}");
    }
}

#[test]
fn a_latent_has_its_page() {
    let page = get("/latent/3");
    assert_eq!(page.status, 200);
    for part in [
        "rel=\"prev\" href=\"/latent/2\"",
        "rel=\"next\" href=\"/latent/4\"",
        "95\u{202f}% interval",
        "Promoted",
        "Suppressed",
        "Nearest decoder rows",
        "Firing on the same tokens",
        "Correlated latents",
        "Correlated neurons",
        "Neurons of the decoder row",
        "Tokens on which it fires",
        "Place in the window",
        "Logits of the whole vocabulary",
        "whole text",
        "Keep as label",
        "Strongest firings",
        "Random firings at every strength",
        "self similarity",
        "scale 120",
        "⏎",
        "of firings",
        " own\"",
    ] {
        assert!(page.body.contains(part), "the page lacks {part:?}");
    }
    assert!(page.body.matches("<svg").count() == 6, "levels, positions, logits and three curves");
    assert!(!get("/latent/0").body.contains("rel=\"prev\""));
}

#[test]
fn abstentions_and_dead_latents_are_said_plainly() {
    assert!(get("/latent/45").body.contains("Abstained."));
    let dead = get(&format!("/latent/{}", N_LATENTS - 1)).body;
    assert!(dead.contains("Never fired") && !dead.contains("rel=\"next\""));
}

#[test]
fn unknown_latents_and_pages_are_not_found() {
    for uri in
        ["/latent/180", "/latent/-1", "/latent/%3Cscript%3Ealert", "/latent/99999999999", "/nowhere", "/static/x"]
    {
        assert_eq!(get(uri).status, 404, "{uri}");
    }
    assert!(get("/latent/180").body.contains("180 latents"));
    assert_eq!(get("/api/latent/180").status, 404);
    assert!(json("/api/latent/180")["error"].as_str().unwrap().contains("180"));
}

#[test]
fn lists_are_sorted_filtered_and_paged() {
    assert_eq!(ids(&json("/api/latents?sort=latent"))[..3], [0, 1, 2]);
    assert_eq!(ids(&json("/api/latents?sort=latent&order=desc"))[0], u64::from(N_LATENTS) - 1);
    let by_rate = json("/api/latents?sort=rate");
    let rates: Vec<f64> =
        by_rate["latents"].as_array().unwrap().iter().map(|l| l["firing_rate"]["value"].as_f64().unwrap()).collect();
    assert!(rates.is_sorted_by(|a, b| a >= b) && rates[0] > 0.0);
    assert_eq!(by_rate["total"], N_LATENTS);
    assert_eq!(json("/api/latents?show=alive")["total"], N_LATENTS - 1);
    assert_eq!(json("/api/latents?show=explained")["total"], 56);
    let last = json("/api/latents?sort=latent&page=4");
    assert_eq!((ids(&last)[0], &last["pages"]), (150, &4.into()));
    for page in ["0", "-1", "99", "x", ""] {
        assert_eq!(get(&format!("/?page={page}")).status, 200, "page {page:?}");
    }
    assert!(json("/api/latents")["latents"][0]["explanation"].is_string(), "explained latents come first");
}

#[test]
fn search_finds_ids_texts_and_tokens() {
    assert_eq!(ids(&json("/api/latents?q=%237")), [7]);
    let royal = ids(&json("/api/latents?q=royal&sort=latent"));
    assert!(royal.len() == 15 && royal.iter().all(|id| id % 12 == 6), "{royal:?}");
    let harbour = json("/api/latents?q=harbour&sort=latent");
    assert!(harbour["total"].as_u64().unwrap() > 14, "tokens count as well as texts");
    assert_eq!(json("/api/latents?q=nosuchword")["total"], 0);
    assert!(get("/?q=nosuchword").body.contains("No latent matches"));
}

#[test]
fn hostile_searches_are_only_text() {
    for q in [
        "%3Cscript%3Ealert(1)%3C/script%3E",
        "%22%20onfocus=alert(1)%20%22",
        "%22AND%22*",
        "'%00",
        "NEAR(",
        "%23",
        "%ff",
    ] {
        let page = get(&format!("/?q={q}&sort={q}&show={q}&order={q}"));
        assert_eq!(page.status, 200, "{q}");
        assert!(!page.body.contains("\" onfocus"), "{q}");
        assert_eq!(get(&format!("/api/latents?q={q}")).status, 200, "{q}");
    }
}

#[test]
fn the_api_sends_the_whole_latent() {
    let latent = json("/api/latent/3");
    assert_eq!(latent["explanation"], HOSTILE);
    assert_eq!(latent["methods"][0]["explanations"][0]["scale"], 120.0);
    assert!(latent["methods"][0]["curves"]["entropy"][5].is_null());
    let levels = latent["levels"].as_array().unwrap();
    let total: u64 = levels.iter().map(|l| l["count"].as_u64().unwrap()).sum();
    assert_eq!(total, latent["count"]);
    assert!(levels.iter().all(|l| !l["examples"].as_array().unwrap().is_empty()), "every level has examples");
    let top = &latent["top_examples"][0];
    assert_eq!(top["value"], latent["max"]);
    let own: Vec<&Value> = top["tokens"].as_array().unwrap().iter().filter(|t| t["is_own"] == true).collect();
    assert!(own.len() == 1 && own[0]["value"] == top["value"]);
}

#[test]
fn a_run_without_latents_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(Dashboard::open(dir.path()), Err(WebError::Store(_))));
    drop(exegete_store::Run::create_or_resume(dir.path(), "t", Value::Null, &[]).unwrap());
    let error = Dashboard::open(dir.path()).err().unwrap();
    assert!(error.to_string().contains("latents.parquet"), "{error}");
}

#[test]
fn a_bare_run_without_notes_tokens_and_stages_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = exegete_store::Run::create_or_resume(dir.path(), "t", Value::Null, &[]).unwrap();
    run.commit_part("latents.parquet", 0, |w| exegete_store::write_latents(w, &[])).unwrap();
    let bare = app(Dashboard::open(dir.path()).unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = axum::http::Request::builder().uri("/").body(axum::body::Body::empty()).unwrap();
    assert_eq!(runtime.block_on(bare.oneshot(request)).unwrap().status(), 200);
}

#[test]
fn filters_and_columns_are_those_of_the_table() {
    assert_eq!(json("/api/latents?show=dead")["total"], 1);
    assert_eq!(json("/api/latents?show=bookmarked")["total"], 0);
    assert_eq!(json("/api/latents?kind=positional")["total"], 18);
    let few = json("/api/latents?kind=few-tokens")["total"].as_u64().unwrap();
    assert_eq!(few, (0..u64::from(N_LATENTS) - 1).filter(|id| id % 40 < 20).count() as u64);
    let rates: Vec<f64> = json("/api/latents?low=0.001&high=0.01&sort=rate&order=asc")["latents"]
        .as_array()
        .unwrap()
        .iter()
        .map(|l| l["firing_rate"]["value"].as_f64().unwrap())
        .collect();
    assert!(!rates.is_empty() && rates.is_sorted() && rates[0] >= 0.001 && rates[rates.len() - 1] <= 0.01);
    for column in [
        "count",
        "max",
        "mean",
        "std",
        "logit",
        "cosine",
        "cofiring",
        "correlation",
        "distinct",
        "token",
        "position",
        "norm",
    ] {
        let list = json(&format!("/api/latents?sort={column}"));
        assert_eq!((&list["sort"], &list["is_descending"]), (&column.into(), &true.into()));
        let values: Vec<f64> = list["latents"].as_array().unwrap().iter().filter_map(|l| l["value"].as_f64()).collect();
        assert!(values.len() == 50 && values.is_sorted_by(|a, b| a >= b), "{column}: {values:?}");
    }
    assert!(get("/?sort=distinct").body.contains("different tokens"));
    assert_eq!(ids(&json("/api/latents?sort=distinct&page=4")).last(), Some(&179), "what has no value comes last");
}

#[test]
fn random_firings_are_shown_in_three_views() {
    for (view, kind) in [("intervals", "Five intervals"), ("quantiles", "Five quantiles")] {
        let page = get(&format!("/latent/3?view={view}")).body;
        assert!(page.contains(kind) && page.contains("Shares are estimated"), "{view}");
        assert!(page.contains(&format!("rel=\"next\" href=\"/latent/4?view={view}\"")), "the view goes along");
        let latent = json(&format!("/api/latent/3?view={view}"));
        let groups = latent["groups"]["groups"].as_array().unwrap();
        let shares: f64 = groups.iter().map(|group| group["share"].as_f64().unwrap()).sum();
        assert!(groups.len() == 5 && (shares - 1.0).abs() < 1e-9, "{shares}");
        for group in groups {
            for example in group["examples"].as_array().unwrap() {
                let value = example["value"].as_f64().unwrap();
                assert!(group["low"].as_f64().unwrap() <= value && value <= group["high"].as_f64().unwrap());
            }
        }
    }
    assert!(json("/api/latent/3")["groups"].is_null());
}

#[test]
fn the_whole_window_of_an_example_is_told() {
    let top = json("/api/latent/3")["top_examples"][0].clone();
    let at = |position: u64| {
        let part = |name: &str| top[name].as_u64().unwrap();
        let (source, record, window) = (part("source"), part("record"), part("window"));
        format!("latent=3&source={source}&record={record}&window={window}&position={position}")
    };
    let asked = at(top["position"].as_u64().unwrap());
    let whole = json(&format!("/api/context?{asked}"));
    let tokens = whole["example"]["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 64);
    let own = &tokens[top["position"].as_u64().unwrap() as usize];
    assert!(own["is_own"] == true && own["value"] == top["value"]);
    assert_eq!(get(&format!("/context?{asked}")).status, 200);
    // Only examples are told, whatever else is in the corpus.
    assert_eq!(get(&format!("/context?{}", at(9999))).status, 404);
    for asked in ["", "latent=3", "latent=3&source=../../x&record=0&window=0&position=0", "latent=-1"] {
        assert_eq!(get(&format!("/api/context?{asked}")).status, 404, "{asked}");
    }
}

#[test]
fn the_map_has_a_place_for_every_decoder_row() {
    let map = json("/api/map?column=max");
    for list in ["latents", "x", "y", "values"] {
        assert_eq!(map[list].as_array().unwrap().len(), N_LATENTS as usize, "{list}");
    }
    assert_eq!(map["column"], "max");
    assert_eq!(json("/api/map?column=%3Cscript%3Ealert")["column"], "rate");
    assert!(get("/map").body.contains("data-map=\"/api/map?column=rate\""));
    assert_eq!(map["variance"], serde_json::json!([0.0123, 0.0087]));
    let told = "The axes hold 2.10\u{202f}% of the variance of these directions (1.23\u{202f}% and 0.870\u{202f}%)";
    assert!(get("/map").body.contains(told), "{}", get("/map").body);
}

#[test]
fn two_latents_stand_side_by_side() {
    let page = get("/compare?left=3&right=%2314&view=quantiles").body;
    for part in ["Latent 3", "Latent 14", "largest activation", "Five quantiles"] {
        assert!(page.contains(part), "{part}");
    }
    let near = get("/compare?left=3&right=14").body;
    assert!(near.contains("cosine of the decoder rows"), "14 is a neighbour of 3");
    assert!(get("/compare").body.contains("Give the numbers of two latents"));
    assert!(get("/compare?left=3&right=%3Cscript%3Ealert").body.contains("There is no latent"));
}

#[test]
fn the_overview_counts_what_the_table_holds() {
    let whole = json("/api/overview");
    assert_eq!((&whole["latents"], &whole["alive"], &whole["tokens"]), (&180.into(), &179.into(), &15360.into()));
    let rates: f64 = [1, 2, 3, 4]
        .iter()
        .flat_map(|page| json(&format!("/api/latents?page={page}"))["latents"].as_array().unwrap().clone())
        .map(|l| l["firing_rate"]["value"].as_f64().unwrap())
        .sum();
    assert!((whole["l0"].as_f64().unwrap() - rates).abs() < 1e-9);
}
