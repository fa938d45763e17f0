//! The page of a training: under way, finished, killed at any instant, damaged, hostile.

use std::path::Path;

use exegete_store::{DensityRow, Run, StepLog, StepRow, write_density, write_steps};
use exegete_web::{Dashboard, app};
use http_body_util::BodyExt;
use serde_json::{Map, Value, json};
use tower::ServiceExt;

use crate::fixture::{HOSTILE, make_run};

const PLANNED: u64 = 1000;

/// A run that trains these dictionaries; none of them has begun.
fn begin(dir: &Path, names: &[String]) -> Run {
    let of = |name: &String| {
        let train = json!({"activation": "topk", "latents": 512});
        (format!("sae/{name}"), json!({"train": train, "sites": {"reads": ["blocks.2.hook_resid_post"], "writes": []}}))
    };
    let dictionaries: Map<String, Value> = names.iter().map(of).collect();
    let settings = json!({"command": "sae train", "model": "models/small", "dictionaries": dictionaries});
    Run::create_or_resume(dir, "exegete test", settings, &[]).unwrap()
}

/// Writes what a dictionary logged until `step`.
fn log(run: &mut Run, path: &str, step: u64) {
    let row = |step: u64| StepRow {
        step,
        loss: 1.5 / (1.0 + step as f32),
        fvu: 0.5,
        l0: 8.25,
        penalty: 0.0,
        sparsity: 0.0,
        aux: 0.1,
        pre_act: 0.0,
        dead: step,
    };
    let log = StepLog { planned: PLANNED, rows: (0..step).step_by(10).map(row).collect() };
    run.commit_part(&format!("{path}/steps.parquet"), 1, |w| write_steps(w, &log)).unwrap();
    let bin = |low, high, latents| DensityRow { step, tokens: 6400, low, high, latents };
    let rows = [bin(0.0, 0.0, 77), bin(0.001, 0.01, 300), bin(0.01, 0.1, 135)];
    run.commit_part(&format!("{path}/density.parquet"), 3, |w| write_density(w, &rows)).unwrap();
}

fn finish(run: &mut Run, stage: &str) {
    let fvu = json!({"value": 0.2345, "low": 0.22, "high": 0.25, "n": 9});
    let summary = json!({"kind": "topk", "n_latents": 512, "steps": PLANNED, "fvu": fvu, "l0": 8.0, "silent": 3});
    run.finish_stage(stage, summary).unwrap();
}

fn names(n: usize) -> Vec<String> {
    (0..n).map(|i| format!("topk-k={i}")).collect()
}

#[tokio::main(flavor = "current_thread")]
async fn get(dashboard: &Dashboard, uri: &str) -> (u16, String) {
    let request = axum::http::Request::builder().uri(uri).body(axum::body::Body::empty()).unwrap();
    let response = app(dashboard.clone()).oneshot(request).await.unwrap();
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    assert!(headers["content-security-policy"].to_str().unwrap().contains("default-src 'none'"), "{uri}");
    if status == 303 {
        return (status, headers["location"].to_str().unwrap().into());
    }
    let body = String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap();
    assert!(!body.contains("<script>alert") && !body.contains(" style=\""), "{uri}");
    (status, body)
}

fn json_of(dashboard: &Dashboard, uri: &str) -> Value {
    serde_json::from_str(&get(dashboard, uri).1).unwrap()
}

#[test]
fn a_run_that_is_trained_is_served_and_read_afresh() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = begin(dir.path(), &names(2));
    let dashboard = Dashboard::open(dir.path()).unwrap();
    assert_eq!(get(&dashboard, "/"), (303, "/training".into()));
    assert_eq!(get(&dashboard, "/latent/0").0, 404);
    assert_eq!(get(&dashboard, "/api/latents").0, 404);
    let (status, page) = get(&dashboard, "/training");
    assert!(status == 200 && page.contains("No step was saved yet") && page.contains("data-refresh"), "{page}");
    assert_eq!(json_of(&dashboard, "/api/training")["progress"], "waiting");

    log(&mut run, "sae/topk-k=0", 205);
    let (_, page) = get(&dashboard, "/training");
    for part in ["Training", "201", "of 1\u{202f}000", "8.25", "not begun", "77 silent on 6\u{202f}400", "<svg"] {
        assert!(page.contains(part), "{part:?} is not in {page}");
    }
    assert!(!page.contains("Penalty weight"), "there is no penalty to show");
    let told = json_of(&dashboard, "/api/training");
    let first = &told["dictionaries"][0];
    assert_eq!(
        (&told["progress"], &first["step"], &first["last"]["dead"]),
        (&"running".into(), &201.into(), &200.into())
    );
    assert_eq!(told["steps"].as_array().unwrap().len(), first["curves"]["fvu"].as_array().unwrap().len());
    assert_eq!(first["density"]["bins"][1]["latents"], 135);
    assert!(told["dictionaries"][1]["curves"].is_null());

    for name in names(2) {
        log(&mut run, &format!("sae/{name}"), PLANNED);
        finish(&mut run, &format!("train/{name}"));
    }
    let (_, page) = get(&dashboard, "/training");
    assert!(page.contains("Finished") && page.contains("0.234") && !page.contains("data-refresh"), "{page}");
    assert!(!page.contains("models/"), "directories of the machine are not told");
    let told = json_of(&dashboard, "/api/training");
    assert_eq!((&told["progress"], &told["finished"]), (&"finished".into(), &2.into()));
    let (_, one) = get(&dashboard, "/training?only=topk-k%3D1");
    assert!(one.contains("<h1>topk-k=1</h1>") && !one.contains("topk-k=0"), "{one}");
    assert_eq!(get(&dashboard, "/training?only=topk").0, 404);
    assert_eq!(get(&dashboard, "/api/training?only=%3Cscript%3Ealert").0, 404);
}

#[test]
fn a_large_grid_is_drawn_a_dozen_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = begin(dir.path(), &names(30));
    names(30).iter().for_each(|name| log(&mut run, &format!("sae/{name}"), 30));
    let dashboard = Dashboard::open(dir.path()).unwrap();
    for (from, drawn) in [("", 12), ("?from=12", 12), ("?from=29", 6), ("?from=999", 6), ("?from=x", 12)] {
        let (status, page) = get(&dashboard, &format!("/training{from}"));
        let rows = page.matches("data-name=\"latents\"").count();
        assert_eq!((status, rows, page.matches("class=\"swatch\"").count()), (200, 30, 2 * drawn), "{from}");
        assert!(page.contains("25 to 30") && page.contains("?only=topk-k%3D29"), "{from}");
    }
}

#[test]
fn what_is_damaged_or_missing_is_told_and_the_rest_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = begin(dir.path(), &names(4));
    names(4).iter().for_each(|name| log(&mut run, &format!("sae/{name}"), 50));
    let path = |name: &str, file: &str| dir.path().join("sae").join(name).join(file);
    std::fs::remove_file(path("topk-k=0", "steps.parquet")).unwrap();
    let whole = std::fs::read(path("topk-k=1", "steps.parquet")).unwrap();
    std::fs::write(path("topk-k=1", "steps.parquet"), &whole[..whole.len() / 2]).unwrap();
    std::fs::write(path("topk-k=2", "density.parquet"), b"PAR1 nothing PAR1").unwrap();
    let dashboard = Dashboard::open(dir.path()).unwrap();
    let told = json_of(&dashboard, "/api/training");
    let problems: Vec<bool> =
        told["dictionaries"].as_array().unwrap().iter().map(|d| d["problem"].is_string()).collect();
    assert_eq!(problems, [true, true, true, false], "{told}");
    let (status, page) = get(&dashboard, "/training");
    assert!(status == 200 && page.matches("class=\"problem\"").count() == 3, "{page}");
    // Every byte of a log may be another.
    let mut at = 0;
    while at < whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x5a;
        std::fs::write(path("topk-k=1", "steps.parquet"), bytes).unwrap();
        assert_eq!(get(&dashboard, "/training").0, 200, "byte {at}");
        at += whole.len() / 60 + 1;
    }
    // The manifest is gone, as it is after a run was taken back.
    std::fs::remove_file(dir.path().join("manifest.json")).unwrap();
    let (status, page) = get(&dashboard, "/training");
    assert!(status == 500 && page.contains("manifest.json"), "{page}");
    assert_eq!(get(&dashboard, "/api/training").0, 500);
}

#[test]
fn hostile_manifests_are_only_text_and_lead_nowhere() {
    let dir = tempfile::tempdir().unwrap();
    let (inner, outer) = (dir.path().join("run"), dir.path().join("other"));
    log(&mut begin(&outer, &[]), "sae/x", 100);
    let mut hostile: Vec<String> = ["../../other/sae/x", "..", "/etc", "a/b", "", "."].map(String::from).into();
    hostile.push(HOSTILE.replace('/', ""));
    let mut run = begin(&inner, &hostile);
    let dashboard = Dashboard::open(&inner).unwrap();
    let told = json_of(&dashboard, "/api/training");
    assert_eq!((&told["total"], &told["dictionaries"][0]["step"]), (&1.into(), &Value::Null), "{told}");
    assert!(get(&dashboard, "/training").1.contains("&lt;script&gt;"));
    // Numbers that no training gives.
    let nan = StepRow {
        step: u64::MAX,
        loss: f32::NAN,
        fvu: f32::INFINITY,
        l0: -1.0,
        penalty: 0.0,
        sparsity: f32::MAX,
        aux: 0.0,
        pre_act: 0.0,
        dead: u64::MAX,
    };
    let rows = vec![nan, StepRow { step: 0, ..nan }];
    let steps = StepLog { planned: 0, rows };
    let path = format!("sae/{}", hostile.last().unwrap());
    run.commit_part(&format!("{path}/steps.parquet"), 1, |w| write_steps(w, &steps)).unwrap();
    let bin = |low, high| DensityRow { step: 1, tokens: 0, low, high, latents: u64::MAX };
    let bins = [bin(0.0, 0.0), bin(0.0, 0.0), bin(f64::NAN, -1.0), bin(2.0, 1.0)];
    run.commit_part(&format!("{path}/density.parquet"), 1, |w| write_density(w, &bins)).unwrap();
    assert_eq!(get(&dashboard, "/training").0, 200);
    assert_eq!(get(&dashboard, "/api/training").0, 200);
}

#[test]
fn a_tour_tells_of_its_training_and_then_of_its_latents() {
    let dir = tempfile::tempdir().unwrap();
    let settings = json!({"command": "tour", "model": "m", "train": {"activation": "batchtopk", "latents": 180}});
    let mut run = Run::create_or_resume(dir.path(), "t", settings, &[]).unwrap();
    log(&mut run, "sae", 400);
    let dashboard = Dashboard::open(dir.path()).unwrap();
    assert_eq!(get(&dashboard, "/").0, 303);
    let told = json_of(&dashboard, "/api/training");
    assert_eq!((&told["total"], &told["dictionaries"][0]["kind"]), (&1.into(), &"batchtopk".into()));
    finish(&mut run, "train");
    run.commit_part("latents.parquet", 0, |w| exegete_store::write_latents(w, &[])).unwrap();
    let (status, page) = get(&dashboard, "/");
    assert!(status == 200 && page.contains("href=\"/training\""), "{page}");
    assert!(get(&dashboard, "/training").1.contains("href=\"/\">All latents"));
}

#[test]
fn a_run_whose_training_is_known_by_its_summary_alone_is_shown() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let dashboard = Dashboard::open(dir.path()).unwrap();
    let (status, page) = get(&dashboard, "/training");
    assert!(status == 200 && page.contains("Finished") && page.contains("4\u{202f}800"), "{page}");
}
