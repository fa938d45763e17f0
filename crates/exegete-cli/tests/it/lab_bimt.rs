//! `exegete lab bimt` at small sizes: files, text, JSON, refusals, interruption.

use std::path::Path;
use std::process::Command;

use super::{exegete, stderr};

fn small(out: &Path) -> Command {
    let mut command = exegete();
    let flags = "lab bimt --task sharing --steps 400 --seeds 2 --width 6 --scaling-steps 40 --scaling-seeds 1 \
        --scaling-widths 2,3,4,5 --threads 2";
    command.args(flags.split_whitespace()).arg("--out").arg(out);
    command
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_study_writes_tables_and_figures() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("study");
    let output = small(&out).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", stderr(&output));
    for part in ["published", "8.5e-5", "seed 4", "L1+local+swap", "random units", "roughness", "n = 2 seeds"] {
        assert!(text.contains(part), "{text}\nlacks {part:?}");
    }
    let tables =
        ["curves.csv", "formulas.csv", "greedy.csv", "ladder.csv", "runs.csv", "scaling.csv", "smoothness.csv"];
    let figures = ["curve_sharing.svg", "greedy_sharing.svg", "ladder_sharing.svg", "smoothness_sharing.svg"];
    let found = names(&out);
    for name in tables.iter().chain(&figures).chain(&["report.json"]) {
        assert!(found.iter().any(|f| f == name), "{found:?} lacks {name}");
    }
    assert_eq!(found.iter().filter(|f| f.starts_with("network_sharing_")).count(), 5, "{found:?}");
    for name in tables {
        let table = std::fs::read_to_string(out.join(name)).unwrap();
        let mut widths = table.lines().map(|line| line.split(',').count());
        let first = widths.next().unwrap();
        assert!(first > 3 && widths.all(|w| w == first), "{name}:\n{table}");
    }
    let narrow = small(&dir.path().join("other")).args(["--dtype", "bf16"]).output().unwrap();
    assert!(stderr(&narrow).contains("--dtype bf16: these networks"), "{}", stderr(&narrow));
    // A directory that holds something is not touched.
    let again = small(&out).output().unwrap();
    assert_eq!(again.status.code(), Some(1));
    assert!(stderr(&again).contains("--out") && stderr(&again).contains("not empty"), "{}", stderr(&again));
    assert_eq!((names(&out), names(dir.path())), (found, vec!["study".to_owned()]));
}

#[test]
fn json_is_one_object_and_the_same_each_time() {
    let dir = tempfile::tempdir().unwrap();
    let json = |out: &str, threads: &str| {
        let flags = ["--json", "--parts", "formulas,greedy", "--threads", threads];
        let output = small(&dir.path().join(out)).args(flags).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        let mut value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        value.as_object_mut().unwrap().remove("out");
        value
    };
    let value = json("a", "1");
    assert_eq!(value, json("b", "2"));
    assert_eq!(value["formulas"][0]["published_mse"], 8.5e-5);
    assert_eq!(value["formulas"][0]["test_mse"]["n"], 2);
    assert!(value["ladder"].as_array().unwrap().is_empty() && value["greedy"].as_array().unwrap().len() == 3);
    let report = std::fs::read_to_string(dir.path().join("a/report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["formulas"], value["formulas"]);
}

#[test]
fn bad_settings_name_their_flag_and_leave_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("study");
    let cases: [(&[&str], i32, &str); 6] = [
        (&["--steps", "0"], 1, "--steps"),
        (&["--width", "1000"], 1, "--width"),
        (&["--scaling-widths", "4,3,2,1"], 1, "--scaling-widths"),
        (&["--seed", "99999999999"], 1, "--seed"),
        (&["--parts", "ladders"], 2, "--parts"),
        (&["--task", "sine"], 2, "--task"),
    ];
    for (flags, status, part) in cases {
        // A flag typed twice counts as typed last.
        let output = small(&out).args(flags).output().unwrap();
        assert_eq!(output.status.code(), Some(status), "{flags:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(part), "{}", stderr(&output));
    }
    assert!(names(dir.path()).is_empty());
}

#[cfg(unix)]
#[test]
fn an_interruption_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = small(&dir.path().join("study"))
        .args(["--steps", "10000000", "--parts", "formulas"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    // The temporary directory says that the work has begun, and that signals are listened to.
    let began = std::time::Instant::now();
    while names(dir.path()).is_empty() {
        assert!(began.elapsed().as_secs() < 60 && child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert!(names(dir.path()).is_empty());
}
