//! Connections that break, and servers that do not continue as they should.

use std::fs;
use std::time::{Duration, Instant};

use exegete_hub::HubError;

use crate::server::{Behaviour, Place};
use crate::world::{NEW, REPO, SHARDS, World, assert_says, parse};

const CUT: &str = SHARDS[0];

fn cut(cuts: &[u64]) -> Behaviour {
    Behaviour { cuts: cuts.to_vec(), cut_file: "?signature=sesame", ..Default::default() }
}

/// The ranges asked of the storage.
fn ranges(world: &World) -> Vec<Option<String>> {
    world.server.requests().into_iter().filter(|r| r.place == Place::Storage).map(|r| r.range).collect()
}

#[test]
fn a_cut_connection_is_resumed_wherever_it_was_cut() {
    let size = World::new().content(NEW, CUT).content.len() as u64;
    for at in [0, 1, 8, 1000, size / 2, size - 1] {
        let world = World::with(cut(&[at]));
        let path = world.file(CUT).unwrap();
        assert_eq!(fs::read(path).unwrap(), world.content(NEW, CUT).content, "cut at {at}");
        let second = (at > 0).then(|| format!("bytes={at}-"));
        assert_eq!(ranges(&world), [None, second], "cut at {at}");
        world.assert_no_partial();
    }
}

#[test]
fn many_cuts_are_survived_as_long_as_bytes_arrive() {
    // More cuts than tries: each one got further.
    let world = World::with(cut(&[100; 20]));
    let (path, told) = world.told(|hub, events| hub.model(&parse(REPO), events));
    world.assert_whole(&path.unwrap(), NEW);
    assert!(told.iter().any(|event| event.contains("Waiting") && event.contains(CUT)), "{told:?}");
    assert!(ranges(&world).contains(&Some("bytes=2000-".into())));
}

#[test]
fn a_small_file_is_resumed_too() {
    let world = World::with(Behaviour { cuts: vec![5], cut_file: "config.json", ..Default::default() });
    let path = world.model(REPO).unwrap();
    world.assert_whole(&path, NEW);
}

#[test]
fn an_end_of_patience_keeps_what_arrived_for_the_next_run() {
    let world =
        World::with(Behaviour { cuts: vec![1000, 0, 0, 0], cut_file: "?signature=sesame", ..Default::default() });
    let result = world.file(CUT);
    assert_says(result, &["tiny/model@main:model-00001", &world.server.storage(), "after 4 tries", "to continue"]);
    assert_eq!(fs::metadata(world.partial(CUT)).unwrap().len(), 1000);
    assert!(!world.repo_dir().join("snapshots").exists());
    world.server.requests();
    let (path, told) = world.told(|hub, events| hub.file(&parse(REPO), CUT, events));
    assert_eq!(fs::read(path.unwrap()).unwrap(), world.content(NEW, CUT).content);
    assert_eq!(ranges(&world), [Some("bytes=1000-".into())]);
    assert!(told[0].contains("done: 1000"), "{told:?}");
}

#[test]
fn a_server_that_ignores_ranges_is_begun_again() {
    let world = World::with(Behaviour { ignore_range: true, ..cut(&[3000, 2000]) });
    let path = world.file(CUT).unwrap();
    assert_eq!(fs::read(path).unwrap(), world.content(NEW, CUT).content);
    assert_eq!(ranges(&world), [None, Some("bytes=3000-".into()), Some("bytes=2000-".into())]);
    world.assert_no_partial();
}

#[test]
fn a_server_that_ignores_ranges_and_always_breaks_is_an_error() {
    let world = World::with(Behaviour {
        ignore_range: true,
        always_cut: Some(1500),
        cut_file: "?signature=sesame",
        ..Default::default()
    });
    assert_says(world.file(CUT), &[CUT, &world.server.storage(), "after 4 tries"]);
    assert_eq!(ranges(&world).len(), 4, "only the first got further");
}

#[test]
fn a_part_that_was_not_asked_for_is_not_taken() {
    let world = World::with(Behaviour { wrong_range: true, ..cut(&[700]) });
    let (path, told) = world.told(|hub, events| hub.file(&parse(REPO), CUT, events));
    assert_eq!(fs::read(path.unwrap()).unwrap(), world.content(NEW, CUT).content);
    assert!(told.iter().any(|event| event.contains("another part of the file")), "{told:?}");
    assert_eq!(ranges(&world), [None, Some("bytes=700-".into()), None]);
}

#[test]
fn a_leftover_of_other_bytes_is_found_out() {
    for leftover in [vec![7; 500], vec![7; 100_000]] {
        let world = World::new();
        fs::create_dir_all(world.repo_dir().join("blobs")).unwrap();
        fs::write(world.partial(CUT), &leftover).unwrap();
        let path = world.file(CUT).unwrap();
        assert_eq!(fs::read(path).unwrap(), world.content(NEW, CUT).content);
        world.assert_no_partial();
    }
}

#[test]
fn a_leftover_that_is_whole_is_not_asked_for() {
    let world = World::new();
    fs::create_dir_all(world.repo_dir().join("blobs")).unwrap();
    fs::write(world.partial(CUT), world.content(NEW, CUT).content).unwrap();
    world.file(CUT).unwrap();
    assert!(ranges(&world).is_empty());
    world.assert_no_partial();
}

#[test]
fn a_silent_connection_is_left_and_resumed() {
    let mut world = World::with(Behaviour { cut_is_silence: true, ..cut(&[900]) });
    world.settings.silence = Duration::from_millis(300);
    let begun = Instant::now();
    let path = world.file(CUT).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(fs::read(path).unwrap(), world.content(NEW, CUT).content);
    assert_eq!(ranges(&world), [None, Some("bytes=900-".into())]);
}

/// A device that is always full stands in for the disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let world = World::new();
    fs::create_dir_all(world.repo_dir().join("blobs")).unwrap();
    std::os::unix::fs::symlink("/dev/full", world.partial(CUT)).unwrap();
    let error = world.model(REPO).unwrap_err();
    assert!(matches!(error, HubError::DiskFull { .. }), "{error}");
    let size = format!("has {} bytes", world.content(NEW, CUT).content.len());
    assert_says(
        Err::<(), _>(error),
        &["the disk is full: tiny/model@main:model-00001", &size, ".incomplete", "move HF_HOME"],
    );
}
