//! The cache without the hub: offline, out of reach, and as the Python library leaves it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::server::{Behaviour, Place};
use crate::world::{GGUF, NEW, REPO, SHARDS, World, assert_says, parse};

/// Lays a snapshot out as `huggingface_hub.snapshot_download` does: blobs, relative links, a ref without a line's end, a
/// lock for each blob, and a note of a file that the repository does not have.
fn lay_out(world: &World, names: &[&str]) {
    let root = world.repo_dir();
    let locks = world.settings.cache.join(".locks/models--tiny--model");
    for dir in [root.join("blobs"), root.join("refs"), root.join(".no_exist").join(NEW), locks.clone()] {
        fs::create_dir_all(dir).unwrap();
    }
    fs::write(world.settings.cache.join("CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n").unwrap();
    fs::write(root.join("refs/main"), NEW).unwrap();
    fs::write(root.join(".no_exist").join(NEW).join("adapter_config.json"), "").unwrap();
    for name in names {
        let file = world.content(NEW, name);
        let pointer = root.join("snapshots").join(NEW).join(name);
        fs::create_dir_all(pointer.parent().unwrap()).unwrap();
        fs::write(root.join("blobs").join(file.checksum()), &file.content).unwrap();
        fs::write(locks.join(format!("{}.lock", file.checksum())), "").unwrap();
        let target = format!("{}blobs/{}", "../".repeat(name.split('/').count() + 1), file.checksum());
        #[cfg(unix)]
        std::os::unix::fs::symlink(target, pointer).unwrap();
        #[cfg(not(unix))]
        fs::copy(pointer.parent().unwrap().join(target), pointer).unwrap();
    }
}

/// Every path below `dir` with its content; links are followed.
fn contents(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut open = vec![dir.to_path_buf()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                all.insert(path.to_str().unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    all
}

#[test]
fn what_the_python_library_downloaded_is_used_as_it_is() {
    let mut world = World::new();
    lay_out(&world, &[&crate::world::WANTED[..], &[GGUF]].concat());
    let before = contents(&world.settings.cache);
    for offline in [None, Some("HF_HUB_OFFLINE")] {
        world.settings.offline = offline;
        let path = world.model(REPO).unwrap();
        assert_eq!(path, world.repo_dir().join("snapshots").join(NEW));
        let gguf = world.file(GGUF).unwrap();
        assert_eq!(fs::read(gguf).unwrap(), world.content(NEW, GGUF).content);
        assert!(world.server.requests().iter().all(|r| !r.is_content()));
        assert_eq!(contents(&world.settings.cache), before);
    }
}

#[test]
fn what_the_python_library_left_out_is_added() {
    let world = World::new();
    lay_out(&world, &["config.json", SHARDS[0]]);
    world.assert_whole(&world.model(REPO).unwrap(), NEW);
    let contents: Vec<_> = world.server.requests().into_iter().filter(|r| r.place == Place::Storage).collect();
    assert_eq!(contents.len(), 1, "{contents:?}");
}

#[test]
fn offline_uses_the_cache_and_asks_nobody() {
    let mut world = World::new();
    let path = world.model(REPO).unwrap();
    world.server.requests();
    world.settings.offline = Some("HF_HUB_OFFLINE");
    assert_eq!(world.model(REPO).unwrap(), path);
    assert_eq!(world.model(&format!("{REPO}@{NEW}")).unwrap(), path);
    assert_eq!(world.file(SHARDS[0]).unwrap(), path.join(SHARDS[0]));
    assert!(world.server.requests().is_empty());
}

#[test]
fn offline_names_what_is_missing() {
    let mut world = World::new();
    world.settings.offline = Some("HF_HUB_OFFLINE");
    let cache = world.settings.cache.display().to_string();
    assert_says(
        world.model(REPO),
        &["tiny/model@main: the revision is not in the cache", &cache, "unset HF_HUB_OFFLINE"],
    );
    assert_says(world.file(GGUF), &["quantized/tiny model.gguf is not in the cache", "HF_HUB_OFFLINE forbids"]);
    lay_out(&world, &["config.json"]);
    assert_says(world.model(REPO), &["model.safetensors or model.safetensors.index.json is not in the cache"]);
    lay_out(&world, &["model.safetensors.index.json", SHARDS[0]]);
    assert_says(world.model(REPO), &["model-00002-of-00002.safetensors is not in the cache"]);
    world.settings.offline = Some("TRANSFORMERS_OFFLINE");
    assert_says(world.model(REPO), &["TRANSFORMERS_OFFLINE forbids"]);
    assert!(world.server.requests().is_empty());
}

#[test]
fn a_hub_out_of_reach_leaves_the_cache_and_says_so() {
    let world = World::new();
    let path = world.model(REPO).unwrap();
    for always in [(503, ""), (429, "")] {
        world.server.behave(Behaviour { always: Some(always), ..Default::default() });
        world.server.requests();
        let (found, told) = world.told(|hub, events| hub.model(&parse(REPO), events));
        assert_eq!(found.unwrap(), path);
        assert!(told.last().unwrap().contains("UsingCache") && told.last().unwrap().contains("tiny/model"), "{told:?}");
        assert_eq!(world.server.requests().len(), 2, "it is not waited for long");
        let (found, told) = world.told(|hub, events| hub.file(&parse(REPO), SHARDS[0], events));
        assert_eq!(found.unwrap(), path.join(SHARDS[0]));
        assert!(told.last().unwrap().contains("UsingCache"), "{told:?}");
    }
    // Access that was taken away is no failure of the way to the hub.
    world.server.behave(Behaviour { always: Some((401, "")), ..Default::default() });
    assert_says(world.model(REPO), &["refuses access (401)"]);
}

#[test]
fn a_blob_that_another_process_downloads_is_waited_for() {
    let world = World::new();
    let file = world.content(NEW, SHARDS[0]);
    let locks = world.settings.cache.join(".locks/models--tiny--model");
    fs::create_dir_all(&locks).unwrap();
    // A lock of another open file is as one of another process.
    let lock = fs::File::create(locks.join(format!("{}.lock", file.checksum()))).unwrap();
    lock.lock().unwrap();
    thread::scope(|scope| {
        let (waits, is_waiting) = mpsc::channel();
        let world = &world;
        let other = scope.spawn(move || {
            world.hub().file(&parse(REPO), SHARDS[0], &|event| waits.send(format!("{event:?}")).unwrap()).unwrap()
        });
        let told = is_waiting.recv_timeout(Duration::from_secs(20)).unwrap();
        assert!(told.contains("another process downloads it") && told.contains(".lock"), "{told}");
        let blobs = world.repo_dir().join("blobs");
        fs::create_dir_all(&blobs).unwrap();
        fs::write(blobs.join(file.checksum()), &file.content).unwrap();
        lock.unlock().unwrap();
        assert_eq!(fs::read(other.join().unwrap()).unwrap(), file.content);
    });
    assert!(world.server.requests().iter().all(|r| r.method == "HEAD"), "the other process has done it");
}

#[test]
fn a_damaged_ref_or_a_dangling_link_is_mended() {
    let world = World::new();
    let path = world.model(REPO).unwrap();
    fs::write(world.repo_dir().join("refs/main"), "../../../elsewhere").unwrap();
    fs::remove_file(world.repo_dir().join("blobs").join(world.content(NEW, SHARDS[0]).checksum())).unwrap();
    assert!(!path.join(SHARDS[0]).exists());
    world.assert_whole(&world.model(REPO).unwrap(), NEW);
    assert_eq!(fs::read_to_string(world.repo_dir().join("refs/main")).unwrap(), NEW);
}
