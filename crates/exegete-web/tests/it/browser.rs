//! The pages in a browser: how they look at two widths and in two colours, what axe finds, keys, what is kept over a restart, a live
//! job, and a corpus that means harm. `tests/browser/check.mjs` drives Chromium; `.ci/run` installs what it needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use exegete_testkit::not_run;
use exegete_web::{Dashboard, Limits, StaticPages, accept, app};
use serde_json::json;

use crate::fixture::{make_hostile_run, make_run, make_run_of_two};
use crate::trying::StandIn;

/// Where Chromium lies on the systems that we know.
const CHROMIUM: [&str; 3] = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/// Chromium and the folder with playwright-core and axe-core; otherwise what is missing is said.
fn browser() -> Option<(&'static str, PathBuf)> {
    let Some(chromium) = CHROMIUM.into_iter().find(|path| Path::new(path).is_file()) else {
        not_run("no chromium (apt-get install chromium)");
        return None;
    };
    let modules = std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/exegete/browser/node_modules"));
    let has_modules =
        |modules: &PathBuf| ["playwright-core", "axe-core"].iter().all(|name| modules.join(name).is_dir());
    let has_node = Command::new("node").arg("--version").output().is_ok_and(|output| output.status.success());
    match modules.filter(|modules| has_modules(modules) && has_node) {
        Some(modules) => Some((chromium, modules)),
        None => {
            not_run("no playwright-core and axe-core in ~/.cache/exegete/browser (npm install, as .ci/run does)");
            None
        }
    }
}

/// Serves a run while the script goes through a phase of it.
fn check(dir: &Path, phase: &str, (chromium, modules): &(&str, PathBuf)) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let dashboard = Dashboard::open(dir).unwrap().with_session(Arc::new(StandIn));
    let addr = runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(accept(listener, app(dashboard), Limits::default()));
        addr
    });
    drive(&format!("http://{addr}"), phase, (chromium, modules));
}

/// Lets the script go through a phase of what stands at an address.
fn drive(address: &str, phase: &str, (chromium, modules): (&str, &Path)) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/browser/check.mjs");
    let mut node = Command::new("node");
    node.arg(script).env("ADDRESS", address).env("PHASE", phase);
    let output = node.env("MODULES", modules).env("CHROMIUM", chromium).output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{phase}:\n{told}{}", String::from_utf8_lossy(&output.stderr));
}

/// A job that goes on until it is asked to stop.
fn live_job(dir: &Path, is_over: &AtomicBool) {
    let jobs = dir.join("jobs");
    fs::create_dir_all(&jobs).unwrap();
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let started = now();
    for done in 1.. {
        // It is given time to be seen while it stops.
        let is_cancelled = jobs.join("live.cancel").exists();
        let write = |state: &str| {
            let job = json!({"kind": "harvest", "stage": "encode", "done": done * 10, "total": 100_000, "unit": "tokens",
                "started": started, "updated": now(), "pid": std::process::id(), "state": state});
            fs::write(jobs.join("live.tmp"), job.to_string()).unwrap();
            fs::rename(jobs.join("live.tmp"), jobs.join("live.json")).unwrap();
        };
        write("running");
        if is_cancelled || is_over.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
            return write("cancelled");
        }
        std::thread::sleep(Duration::from_millis(300));
    }
}

/// Ends the job however the check ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn pages_look_right_at_both_widths_in_both_colours() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    check(dir.path(), "looks", &browser);
}

#[test]
fn keys_lead_through_the_pages() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    check(dir.path(), "keys", &browser);
    check(dir.path(), "touch", &browser);
}

#[test]
fn what_is_done_on_the_pages_is_kept_over_a_restart() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    make_run(dir.path());
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| live_job(dir.path(), &is_over));
        let _over = Over(&is_over);
        check(dir.path(), "actions", &browser);
    });
    check(dir.path(), "kept", &browser);
}

#[test]
fn two_dictionaries_can_be_read_beside_each_other() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    make_run_of_two(dir.path());
    check(dir.path(), "beside", &browser);
}

#[test]
fn pages_from_a_file_tell_activations_without_a_script() {
    let Some((chromium, modules)) = browser() else { return };
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    make_run(dir.path());
    let write = |name: &str, text: &str| {
        let path = out.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        Ok(())
    };
    StaticPages::open(dir.path(), None).unwrap().folder(&[3, 6], write).unwrap();
    drive(&format!("file://{}", out.path().display()), "exported", (chromium, &modules));
}

#[test]
fn a_corpus_that_means_harm_does_none() {
    let Some(browser) = browser() else { return };
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("<img src=x onerror=window.hacked=1>");
    make_hostile_run(&run);
    check(&run, "hostile", &browser);
}
