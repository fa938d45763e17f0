//! What arrives, from where, and what is not asked for twice.

use std::collections::BTreeSet;
use std::fs;
use std::thread;

use exegete_hub::DownloadEvent;

use crate::server::{Behaviour, File, Place};
use crate::world::{GGUF, NEW, OLD, REPO, SHARDS, World, assert_says, names_in, parse};

#[test]
fn a_model_is_downloaded_whole() {
    let world = World::new();
    let path = world.model(REPO).unwrap();
    world.assert_whole(&path, NEW);
    let commit = fs::read_to_string(world.repo_dir().join("refs/main")).unwrap();
    assert_eq!(commit, NEW, "as the Python library writes it, without a line's end");
    let link = fs::read_link(path.join(SHARDS[0])).unwrap();
    assert_eq!(link.to_str().unwrap(), format!("../../blobs/{}", world.content(NEW, SHARDS[0]).checksum()));
    let asked = world.server.requests();
    assert!(!asked.iter().any(|r| r.target.contains(".bin") || r.target.contains("README")), "{asked:?}");
}

#[test]
fn the_second_call_downloads_nothing() {
    let world = World::new();
    let first = world.model(REPO).unwrap();
    world.server.requests();
    assert_eq!(world.model(REPO).unwrap(), first);
    let asked = world.server.requests();
    assert_eq!(asked.len(), 1, "only what main is now: {asked:?}");
    assert!(!asked[0].is_content());
}

#[test]
fn branches_tags_and_commits_are_revisions() {
    let world = World::new();
    for (revision, commit) in [("main", NEW), ("v1.0", OLD), ("refs/pr/1", OLD), (OLD, OLD), (NEW, NEW)] {
        let path = world.model(&format!("{REPO}@{revision}")).unwrap();
        world.assert_whole(&path, commit);
    }
    assert_eq!(names_in(&world.repo_dir().join("refs")), ["main", "refs", "v1.0"]);
    assert_eq!(fs::read_to_string(world.repo_dir().join("refs/refs/pr/1")).unwrap(), OLD);
    // What both commits have is stored once.
    assert_eq!(names_in(&world.repo_dir().join("blobs")).len(), 5 + 2 + 2);
}

#[test]
fn a_branch_that_moves_is_followed() {
    let world = World::new();
    world.model(REPO).unwrap();
    world.server.repos().get_mut(REPO).unwrap().names.insert("main".into(), OLD.into());
    world.server.requests();
    let path = world.model(REPO).unwrap();
    world.assert_whole(&path, OLD);
    assert_eq!(fs::read_to_string(world.repo_dir().join("refs/main")).unwrap(), OLD);
    let contents = world.server.requests().iter().filter(|r| r.place == Place::Storage).count();
    assert_eq!(contents, 2, "the shards differ, the rest is there");
}

#[test]
fn one_file_is_downloaded_by_its_name() {
    let world = World::new();
    let reference = parse(&format!("{REPO}@v1.0:{GGUF}"));
    let path = world.hub().resolve(&reference, &|_| ()).unwrap();
    assert_eq!(path, world.repo_dir().join("snapshots").join(OLD).join(GGUF));
    assert_eq!(fs::read(&path).unwrap(), world.content(OLD, GGUF).content);
    assert!(fs::read_link(&path).unwrap().starts_with("../../../blobs"));
    world.server.requests();
    assert_eq!(world.hub().resolve(&reference, &|_| ()).unwrap(), path);
    assert!(world.server.requests().iter().all(|r| r.method == "HEAD"));
    let by_commit = parse(&format!("{REPO}@{OLD}:{GGUF}"));
    assert_eq!(world.hub().resolve(&by_commit, &|_| ()).unwrap(), path);
    assert!(world.server.requests().is_empty(), "a commit never changes");
}

#[test]
fn a_single_file_goes_before_shards() {
    let world = World::new();
    let single = File { content: b"12345678{}".to_vec(), large: true };
    world
        .server
        .repos()
        .get_mut(REPO)
        .unwrap()
        .commits
        .get_mut(NEW)
        .unwrap()
        .insert("model.safetensors".into(), single);
    let path = world.model(REPO).unwrap();
    assert!(path.join("model.safetensors").is_file());
    assert!(!path.join(SHARDS[0]).exists());
    assert!(!path.join("model.safetensors.index.json").exists());
}

#[test]
fn chosen_files_are_downloaded_and_no_others() {
    let mut world = World::new();
    let choose = |there: &BTreeSet<String>| match there.contains(GGUF) && there.contains("config.json") {
        true => Ok(vec![GGUF.to_owned(), "config.json".to_owned()]),
        false => Err("holds no dictionary".to_owned()),
    };
    let files = |world: &World, reference: &str| world.hub().files(&parse(reference), &choose, &|_| ());
    let path = files(&world, REPO).unwrap();
    assert_eq!(path, world.repo_dir().join("snapshots").join(NEW));
    assert_eq!(names_in(&path), ["config.json", "quantized"]);
    assert_eq!(fs::read(path.join(GGUF)).unwrap(), world.content(NEW, GGUF).content);
    world.server.requests();
    assert_eq!(files(&world, REPO).unwrap(), path);
    assert_eq!(world.server.requests().len(), 1, "only what main is now");
    world.settings.offline = Some("HF_HUB_OFFLINE");
    assert_eq!(files(&world, REPO).unwrap(), path);
    assert_says(files(&world, "tiny/model@v1.0:quantized"), &["v1.0: quantized is not in the cache", "HF_HUB_OFFLINE"]);
    assert!(world.server.requests().is_empty());
    // Out of reach is another thing than forbidden.
    world.settings.offline = None;
    world.server.behave(Behaviour { always: Some((503, "")), ..Default::default() });
    let (found, told) = world.told(|hub, events| hub.files(&parse(REPO), &choose, events));
    assert_eq!(found.unwrap(), path);
    assert!(told.last().unwrap().contains("UsingCache"), "{told:?}");
    world.server.behave(Behaviour::default());
    let none = world.hub().files(&parse(REPO), &|_| Err("holds no dictionary".into()), &|_| ());
    assert_says(none, &["tiny/model@main holds no dictionary"]);
}

#[test]
fn an_empty_file_is_a_file() {
    let world = World::new();
    let empty = File { content: Vec::new(), large: false };
    world.server.repos().get_mut(REPO).unwrap().commits.get_mut(NEW).unwrap().insert("empty".into(), empty);
    let path = world.file("empty").unwrap();
    assert_eq!(fs::read(path).unwrap(), b"");
}

#[test]
fn only_the_endpoint_sees_the_token() {
    let mut world = World::with(Behaviour { token: Some("hf_sesame"), ..Default::default() });
    world.token("hf_sesame");
    let path = world.model(REPO).unwrap();
    world.assert_whole(&path, NEW);
    let asked = world.server.requests();
    let (hub, storage): (Vec<_>, Vec<_>) = asked.iter().partition(|r| r.place == Place::Hub);
    assert!(hub.iter().all(|r| r.authorization.as_deref() == Some("Bearer hf_sesame")), "{hub:?}");
    assert_eq!(storage.len(), 2);
    assert!(storage.iter().all(|r| r.authorization.is_none()), "{storage:?}");
}

#[test]
fn a_host_of_another_name_is_not_the_endpoint() {
    let mut world = World::new();
    let port = world.server.endpoint.rsplit(':').next().unwrap().to_owned();
    // The hub itself under another name: another host, as far as anyone can tell.
    world.server.behave(Behaviour { storage: Some(format!("http://localhost:{port}")), ..Default::default() });
    world.token("hf_sesame");
    let _ = world.file(SHARDS[0]);
    let asked = world.server.requests();
    let elsewhere: Vec<_> = asked.iter().filter(|r| r.target.starts_with("/store/")).collect();
    assert!(!elsewhere.is_empty() && elsewhere.iter().all(|r| r.authorization.is_none()), "{asked:?}");
}

#[test]
fn progress_tells_bytes_of_files() {
    let world = World::new();
    let (path, told) = world.told(|hub, events| hub.file(&parse(REPO), SHARDS[1], events));
    let total = fs::metadata(path.unwrap()).unwrap().len();
    let event = |done| format!("{:?}", DownloadEvent::Progress { file: SHARDS[1], done, total });
    assert_eq!(told.first(), Some(&event(0)));
    assert_eq!(told.last(), Some(&event(total)));
    let (_, told) = world.told(|hub, events| hub.file(&parse(REPO), SHARDS[1], events));
    assert!(told.is_empty(), "{told:?}");
}

#[test]
fn many_at_once_download_each_blob_once() {
    let world = World::new();
    thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| world.model(REPO).unwrap())).collect();
        for one in all {
            world.assert_whole(&one.join().unwrap(), NEW);
        }
    });
    let contents: Vec<_> = world.server.requests().into_iter().filter(|r| r.place == Place::Storage).collect();
    assert_eq!(contents.len(), 2, "{contents:?}");
}
