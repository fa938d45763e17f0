//! Running jobs: what they tell, what is damaged, how they are stopped.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::fixture::{HOSTILE, make_run};
use crate::site::Site;

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

fn job(state: &str, updated: u64, pid: u32) -> Value {
    json!({
        "kind": "harvest", "stage": "encode", "done": 250, "total": 1000, "unit": "tokens", "started": updated - 50,
        "updated": updated, "pid": pid, "state": state,
    })
}

#[test]
fn jobs_tell_how_far_they_are_and_can_be_stopped() {
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let site = Site::of(dir.path());
    assert_eq!(site.get("/jobs").status, 200);
    assert!(!site.get("/").body.contains("href=\"/jobs\""), "there are none to see yet");
    let jobs = dir.path().join("jobs");
    fs::create_dir(&jobs).unwrap();
    let write = |name: &str, job: &Value| fs::write(jobs.join(name), job.to_string()).unwrap();
    write("a.json", &job("running", now(), std::process::id()));
    write("b.json", &job("running", now() - 1000, std::process::id()));
    write("c.json", &job("finished", now() - 1000, 0));
    let mut hostile = job("running", now(), std::process::id());
    hostile["kind"] = HOSTILE.into();
    hostile["done"] = u64::MAX.into();
    hostile["started"] = u64::MAX.into();
    write("d <b>.json", &hostile);
    write("e.json", &json!({"kind": 3}));
    fs::write(jobs.join("f.json"), vec![b'['; 100_000]).unwrap();
    fs::create_dir(jobs.join("g.json")).unwrap();

    assert!(site.get("/").body.contains("href=\"/jobs\""));
    let told = site.get("/api/jobs").json();
    let first = &told["jobs"][0];
    assert_eq!((&first["state"], &first["left_secs"]), (&"running".into(), &150.into()), "{first}");
    assert!((first["rate"].as_f64().unwrap() - 5.0).abs() < 1e-9);
    assert_eq!((&told["jobs"][1]["state"], &told["jobs"][2]["state"]), (&"quiet".into(), &"finished".into()));
    assert_eq!(told["unreadable"], json!(["e", "f", "g"]));
    let page = site.get("/jobs").body;
    assert!(page.contains("250 of 1\u{202f}000 tokens") && page.contains("data-refresh") && page.contains("<progress"));
    assert!(!page.contains("<script>alert") && !page.contains("d <b>"), "{page}");

    assert_eq!(site.send("/api/job/a/cancel", &json!({})).json()["is_cancelled"], true);
    assert!(jobs.join("a.cancel").is_file());
    for name in ["none", "..%2F..%2Fx", "a.json", "%00", "."] {
        assert_eq!(site.send(&format!("/api/job/{name}/cancel"), &json!({})).status, 404, "{name}");
    }
    assert_eq!(fs::read_dir(&jobs).unwrap().count(), 8, "nothing else was written");
}
