//! A tour killed at any instant and run again ends with the same content as one that was left alone.

use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{NO_DATA, small_tour, stderr, stories};

/// Where the program can be killed, and how often it surely comes by there in the small tour: each stage's steps, and
/// the instants before and after a rename, a commit of the manifest and a commit of the notes.
const INSTANTS: [(&str, u64); 12] = [
    ("tokens", 15),
    ("cache", 25),
    ("train", 200),
    ("harvest", 6),
    ("vocabulary", 4),
    ("explain", 5),
    ("rename.before", 12),
    ("rename.after", 12),
    ("commit.before", 8),
    ("commit.after", 8),
    ("sqlite.commit", 5),
    ("train", 300),
];

/// The files whose content must not depend on interruptions.
fn content(run: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = vec![run.join("latents.parquet")];
    files.extend(std::fs::read_dir(run.join("examples")).unwrap().map(|e| e.unwrap().path()));
    files.push(run.join("sae/sae_weights.safetensors"));
    files
        .into_iter()
        .map(|p| (p.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&p).unwrap()))
        .collect()
}

/// Every file of a run, by its path in it.
fn listing(run: &Path) -> Vec<String> {
    let (mut files, mut dirs) = (Vec::new(), vec![run.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for path in std::fs::read_dir(&dir).unwrap().map(|e| e.unwrap().path()) {
            if path.is_dir() {
                dirs.push(path);
            } else {
                files.push(path.strip_prefix(run).unwrap().display().to_string());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn a_killed_tour_goes_on_to_the_same_end() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let text = exegete_testkit::data_dir().unwrap().join("corpora/tinystories");
    let dir = tempfile::tempdir().unwrap();
    let whole = small_tour(&model, &text, &dir.path().join("whole")).output().unwrap();
    assert!(whole.status.success(), "{}", stderr(&whole));
    let last = String::from_utf8_lossy(&whole.stdout).lines().last().unwrap().to_owned();
    assert!(last.starts_with("tour: done tokens=") && last.contains(" explained=5 "), "{last}");
    let want = content(&dir.path().join("whole"));

    let seed = std::env::var("EXEGETE_TEST_SEED").ok().and_then(|s| s.parse().ok());
    let seed: u64 = seed.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs());
    eprintln!("seed {seed} (EXEGETE_TEST_SEED repeats it)");
    for (i, (name, most)) in INSTANTS.iter().enumerate() {
        let count = 1 + exegete_base::sampling::pair_hash(seed, i as u64, 0) % most;
        eprintln!("killed at {name}, time {count}");
        let out = dir.path().join(format!("killed-{i}"));
        let killed =
            small_tour(&model, &text, &out).env("EXEGETE_KILLPOINT", format!("{name}:{count}")).output().unwrap();
        assert_eq!(killed.status.signal(), Some(9), "not killed at {name}:{count}: {}", stderr(&killed));
        let resumed = small_tour(&model, &text, &out).output().unwrap();
        assert!(resumed.status.success(), "{}", stderr(&resumed));
        let got = content(&out);
        assert_eq!(got.keys().collect::<Vec<_>>(), want.keys().collect::<Vec<_>>());
        let differs: Vec<&String> = want.keys().filter(|name| got[*name] != want[*name]).collect();
        assert!(differs.is_empty(), "killed at {name}:{count} with seed {seed}: {differs:?} differ");
        assert_eq!(listing(&out), listing(&dir.path().join("whole")), "killed at {name}:{count} with seed {seed}");
    }
}

#[test]
fn ctrl_c_says_how_to_go_on() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let text = exegete_testkit::data_dir().unwrap().join("corpora/tinystories");
    let dir = tempfile::tempdir().unwrap();
    let mut command = small_tour(&model, &text, &dir.path().join("run"));
    command.args(["--epochs", "2000"]).stderr(std::process::Stdio::piped());
    let child = command.spawn().unwrap();
    let checkpoint = dir.path().join("run/sae/checkpoint.bin");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(120);
    while !checkpoint.exists() && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let kill = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("run the same command again"), "{}", stderr(&output));
}
