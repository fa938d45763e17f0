//! Runs: resuming, refusing, locking, and surviving a kill at every killpoint.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;

use exegete_store::run::part_name;
use exegete_store::{Run, Source, StoreError, killpoint};
use serde_json::json;

fn source(sha256: &str) -> Source {
    Source { path: "a.txt".into(), sha256: sha256.into(), bytes: 3 }
}

fn start(dir: &Path, settings: serde_json::Value) -> Result<Run, StoreError> {
    Run::create_or_resume(dir, "exegete 0.1.0", settings, &[source("aa")])
}

fn put(run: &mut Run, rel: &str, content: &[u8]) {
    run.commit_part(rel, 1, |w| w.write_all(content)).unwrap();
}

#[test]
fn a_run_goes_on_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let mut run = start(&path, json!({"k": 1})).unwrap();
    let (first, second) = (part_name("tokens", 0), part_name("tokens", 1));
    assert!(!run.part_done(&first));
    put(&mut run, &first, b"abc");
    run.finish_stage("tokens", json!({"tokens": 3})).unwrap();
    drop(run);
    let run = start(&path, json!({"k": 1})).unwrap();
    assert!(run.part_done(&first) && !run.part_done(&second));
    assert_eq!(run.stage("tokens"), Some(&json!({"tokens": 3})));
    assert_eq!(run.parts_under("tokens/"), [path.join("tokens/part-00000.parquet")]);
    assert_eq!(run.manifest().parts[&first].bytes, 3);
    fs::write(run.path(&first), b"shorter or longer").unwrap();
    assert!(!run.part_done(&first));
}

#[test]
fn other_settings_inputs_and_programs_are_refused_key_by_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let settings = json!({"train": {"k": 32, "steps": 10}, "seed": 0});
    drop(start(&path, settings.clone()).unwrap());
    let error = start(&path, json!({"train": {"k": 64, "steps": 10}, "model": "m"})).unwrap_err().to_string();
    for part in ["train.k: was 32, now 64", "seed: was 0, now (absent)", "model: was (absent), now \"m\"", "--out"] {
        assert!(error.contains(part), "{error:?} lacks {part:?}");
    }
    assert!(!error.contains("steps"));
    let error = Run::create_or_resume(&path, "exegete 0.2.0", settings, &[source("bb")]).unwrap_err().to_string();
    assert!(error.contains("now exegete 0.2.0") && error.contains("a.txt: its content has changed"), "{error}");
}

#[test]
fn a_run_of_another_command_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run");
    let harvest = json!({"command": "harvest", "seed": 0, "keep": {"top_examples": 20}, "k": 32, "site": null});
    drop(start(&path, harvest).unwrap());
    let import = json!({"command": "import", "seed": 0, "format": "neuronpedia", "k": null});
    let error = Run::create_or_resume(&path, "exegete 0.1.0", import, &[source("bb")]).unwrap_err().to_string();
    let sentence =
        "was made by \"exegete harvest\" and not by \"exegete import\": format, k, keep, inputs differ; give another";
    assert!(error.contains(sentence) && !error.contains("top_examples"), "{error}");
}

#[test]
fn a_directory_with_other_things_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    assert!(matches!(start(dir.path(), json!({})), Err(StoreError::NotARun { .. })));
    assert!(matches!(Run::open(dir.path()), Err(StoreError::NotARun { .. })));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn one_writer_and_any_readers() {
    let dir = tempfile::tempdir().unwrap();
    let writer = start(dir.path(), json!({})).unwrap();
    let error = start(dir.path(), json!({})).unwrap_err();
    assert!(
        matches!(&error, StoreError::Locked { writer, .. } if *writer == format!("process {}", std::process::id())),
        "{error}"
    );
    let mut reader = Run::open(dir.path()).unwrap();
    assert!(matches!(reader.commit_part("x", 0, |_| Ok(())), Err(StoreError::ReadOnly { .. })));
    assert!(matches!(reader.finish_stage("x", json!(1)), Err(StoreError::ReadOnly { .. })));
    // A writer that has just begun has not told its id yet.
    fs::write(dir.path().join("lock"), "").unwrap();
    let error = start(dir.path(), json!({})).unwrap_err().to_string();
    assert!(error.contains("is being written by another process;"), "{error}");
    drop(writer);
    start(dir.path(), json!({})).unwrap();
}

#[test]
fn parts_stay_inside_the_run_and_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = start(&dir.path().join("run"), json!({})).unwrap();
    for name in ["../x", "/x", "", "a/../../x"] {
        assert!(matches!(run.commit_part(name, 0, |_| Ok(())), Err(StoreError::PartName { .. })), "{name}");
    }
    put(&mut run, "state/part-0", b"x");
    run.remove_part("state/part-0").unwrap();
    run.remove_part("state/part-0").unwrap();
    assert!(!run.path("state/part-0").exists() && run.manifest().parts.is_empty());
}

#[test]
fn a_damaged_or_newer_manifest_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    drop(start(dir.path(), json!({})).unwrap());
    let path = dir.path().join("manifest.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, &text[..text.len() / 2]).unwrap();
    assert!(matches!(Run::open(dir.path()), Err(StoreError::Damaged { .. })));
    fs::write(&path, text.replace("\"format\": 1", "\"format\": 9")).unwrap();
    assert!(matches!(Run::open(dir.path()), Err(StoreError::Version { found: 9, .. })));
}

/// Three parts and a stage: what the crash test kills. Harmless where it is run as a test of its own.
#[test]
fn crash_worker() {
    let Some(dir) = std::env::var_os("EXEGETE_TEST_CRASH_DIR") else { return };
    let mut run = start(Path::new(&dir), json!({})).unwrap();
    for idx in 0..3 {
        let name = part_name("p", idx);
        if !run.part_done(&name) {
            put(&mut run, &name, format!("part {idx}").as_bytes());
        }
    }
    run.finish_stage("p", json!(3)).unwrap();
}

#[cfg(unix)]
#[test]
fn a_run_killed_anywhere_resumes_to_the_same_content() {
    use std::os::unix::process::ExitStatusExt;
    let work = |dir: &Path, killpoint: Option<String>| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["runs::crash_worker", "--exact"]).env("EXEGETE_TEST_CRASH_DIR", dir);
        command.envs(killpoint.map(|k| (killpoint::KILLPOINT_VAR, k)));
        command.output().unwrap().status
    };
    let content = |dir: &Path| {
        let names = (0..3).map(|idx| part_name("p", idx)).chain(["manifest.json".into()]);
        names.map(|name| fs::read(dir.join(name)).unwrap()).collect::<Vec<_>>()
    };
    let undisturbed = tempfile::tempdir().unwrap();
    assert!(work(undisturbed.path(), None).success());
    // Renames: the first manifest, then a part and a manifest each time, and the stage's manifest.
    let instants = [("rename.before", 8), ("rename.after", 8), ("commit.before", 4), ("commit.after", 4)];
    for (name, n) in instants {
        for count in 1..=n {
            let dir = tempfile::tempdir().unwrap();
            let status = work(dir.path(), Some(format!("{name}:{count}")));
            assert_eq!(status.signal(), Some(9), "{name}:{count}");
            assert!(work(dir.path(), None).success(), "{name}:{count}");
            assert_eq!(content(dir.path()), content(undisturbed.path()), "{name}:{count}");
            assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3, "lock, manifest and parts alone remain");
        }
    }
}
