//! The document at `/api/openapi.json` against the server: every route in it answers with the fields that it says, and no others.

use std::sync::Arc;

use exegete_web::{Dashboard, app};
use serde_json::{Value, json};

use crate::fixture::make_run;
use crate::site::Site;
use crate::trying::StandIn;

/// What an address of the document is asked with: the address filled in, and the body.
fn request_for(path: &str, site: &Site) -> (String, Value) {
    let top = || {
        let top = site.get("/api/latent/3").json()["top_examples"][0].clone();
        let pairs = ["source", "record", "window", "position"].map(|name| format!("{name}={}", top[name]));
        format!("/api/context?latent=3&{}", pairs.join("&"))
    };
    match path {
        "/api/context" => (top(), Value::Null),
        "/api/latent/{id}" => ("/api/latent/3?view=quantiles".into(), Value::Null),
        "/api/latent/{id}/note" => ("/api/latent/3/note".into(), json!({ "text": "x" })),
        "/api/latent/{id}/bookmark" => ("/api/latent/3/bookmark".into(), json!({ "is_set": "true" })),
        "/api/latent/{id}/label" => ("/api/latent/3/label".into(), json!({ "method": "self", "rank": "0" })),
        "/api/note/{id}/remove" => ("/api/note/1/remove".into(), json!({})),
        "/api/job/{name}/cancel" => ("/api/job/a/cancel".into(), json!({})),
        "/api/rating/{id}" => ("/api/rating/1".into(), json!({ "grade": "3", "seed": "0" })),
        "/api/try/latent/{id}" => ("/api/try/latent/3".into(), json!({ "text": "the apple" })),
        "/api/try/latents" => (path.into(), json!({ "text": "the apple", "order": "quantile" })),
        plain => (plain.into(), Value::Null),
    }
}

/// Complaints about a value by its schema.
fn check(document: &Value, schema: &Value, value: &Value, at: &str, faults: &mut Vec<String>) {
    if let Some(name) = schema["$ref"].as_str() {
        let schema = document.pointer(name.trim_start_matches('#')).unwrap_or_else(|| panic!("{name} is not there"));
        return check(document, schema, value, at, faults);
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let failed = choices.iter().map(|choice| {
            let mut faults = Vec::new();
            check(document, choice, value, at, &mut faults);
            faults
        });
        let failed: Vec<_> = failed.collect();
        if !failed.iter().any(Vec::is_empty) {
            faults.extend(failed.into_iter().next().unwrap_or_default());
        }
        return;
    }
    let fits = match schema["type"].as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => true,
    };
    if !fits {
        faults.push(format!("{at}: {} expected, found {value:.80}", schema["type"]));
        return;
    }
    for (i, item) in value.as_array().into_iter().flatten().enumerate() {
        check(document, &schema["items"], item, &format!("{at}[{i}]"), faults);
    }
    let Some(fields) = value.as_object().filter(|_| schema["type"] == "object") else { return };
    for (name, field) in fields {
        match (&schema["properties"][name], &schema["additionalProperties"]) {
            (Value::Null, Value::Bool(false)) => faults.push(format!("{at}.{name} is not in the document")),
            (Value::Null, additional) => check(document, additional, field, &format!("{at}.{name}"), faults),
            (schema, _) => check(document, schema, field, &format!("{at}.{name}"), faults),
        }
    }
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            faults.push(format!("{at}.{name} is missing"));
        }
    }
}

#[test]
fn every_route_answers_with_the_fields_of_the_document() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    std::fs::create_dir(dir.path().join("jobs")).unwrap();
    let job = json!({"kind": "harvest", "started": 5, "updated": 9, "state": "finished", "total": null});
    std::fs::write(dir.path().join("jobs/a.json"), job.to_string()).unwrap();
    let site = Site(app(Dashboard::open(dir.path()).unwrap().with_session(Arc::new(StandIn))));
    let document = site.get("/api/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut faults = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let (uri, body) = request_for(path, &site);
            let answer = if method == "post" { site.send(&uri, &body) } else { site.get(&uri) };
            assert_eq!(answer.status, 200, "{method} {uri}: {}", answer.body);
            let schema = &operation["responses"]["200"]["content"]["application/json"]["schema"];
            check(&document, schema, &answer.json(), path, &mut faults);
            // What goes wrong is told as the document says, too.
            let wrong = site.get(&format!("{}/nowhere", uri.split('?').next().unwrap())).json();
            check(&document, &document["components"]["schemas"]["Error"], &wrong, "error", &mut faults);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
