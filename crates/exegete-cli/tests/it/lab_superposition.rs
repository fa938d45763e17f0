//! `exegete lab superposition`: figures and tables, all or nothing.

use std::path::Path;
use std::process::Command;

use super::{exegete, stderr};

const SMALL: &str = "--grid 3 --restarts 1 --steps 50 --batch 32 --features 8 --hidden 2 --densities 3 --sweep-steps 50 \
                     --sweep-batch 32 --probe-width 9 --probe-steps 20 --booleans 16 --active 3 --widths 32,64 \
                     --networks 2 --reads 4";

fn study(out: &Path) -> Command {
    let mut command = exegete();
    command.args(["lab", "superposition", "--threads", "2", "--out"]).arg(out).args(SMALL.split_whitespace());
    command
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_study_writes_figures_and_tables_and_says_what_it_found() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("study");
    let done = study(&out).output().unwrap();
    assert!(done.status.success(), "{}", stderr(&done));
    let text = String::from_utf8_lossy(&done.stdout).into_owned();
    for part in
        ["16 features", "antipodal", "truth: hidden", "truth: output", "one AND per neuron", "naive mse", "exponent"]
    {
        assert!(text.contains(part), "{text:?} lacks {part:?}");
    }
    let files = "dimensionality.csv dimensionality.svg pairs.svg phases-predicted.svg phases.csv phases.svg probe.csv \
                 probe.svg report.json uand.csv uand.svg";
    assert_eq!(names(&out), files.split_whitespace().collect::<Vec<_>>());
    assert_eq!(names(dir.path()), ["study"]);
    for csv in ["phases.csv", "dimensionality.csv", "probe.csv", "uand.csv"] {
        let table = std::fs::read_to_string(out.join(csv)).unwrap();
        let columns = |line: &str| line.split('"').step_by(2).map(|part| part.matches(',').count()).sum::<usize>();
        let widths: Vec<usize> = table.lines().map(columns).collect();
        assert!(widths.len() > 2 && widths.iter().all(|n| *n == widths[0]), "{csv}: {widths:?}");
    }
    // The same again gives the same, and not into a directory that is full.
    let again = dir.path().join("again");
    let json = study(&again).arg("--json").output().unwrap();
    let printed: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert!(printed["uand"][0]["widths"][0]["naive_mse_balanced"].is_number() && printed["seed"] == 0);
    for file in files.split_whitespace() {
        assert_eq!(std::fs::read(out.join(file)).unwrap(), std::fs::read(again.join(file)).unwrap(), "{file}");
    }
    let refused = study(&out).output().unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("--out") && stderr(&refused).contains("not empty"), "{}", stderr(&refused));
}

#[test]
fn bad_sizes_name_the_flag_and_write_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for flags in [["--dtype", "bf16"], ["--hidden", "9"], ["--widths", "8"], ["--probe-width", "4"], ["--active", "15"]]
    {
        let refused = study(&dir.path().join("study")).args(flags).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        assert!(stderr(&refused).contains(flags[0]), "{flags:?}: {}", stderr(&refused));
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = study(&dir.path().join("study"));
    command.args(["--grid", "64", "--steps", "20000"]).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1500));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("nothing was written"), "{}", stderr(&output));
    assert!(names(dir.path()).is_empty());
}
