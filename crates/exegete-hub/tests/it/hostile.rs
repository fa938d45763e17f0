//! A hub that means harm, or sends nonsense.

use std::fs;

use exegete_hub::HubError;
use proptest::prelude::*;

use crate::server::{Behaviour, File};
use crate::world::{NEW, REPO, SHARDS, World, assert_says, names_in, parse};

#[test]
fn names_that_leave_the_cache_are_refused() {
    for (name, why) in [
        ("../../../../evil.safetensors", "holds \"..\""),
        ("a/../../evil", "holds \"..\""),
        ("..", "holds \"..\""),
        ("/etc/cron.d/evil", "is absolute"),
        ("C:/evil", "is absolute"),
        ("..\\..\\evil", "holds a backslash"),
        ("a\u{0}b", "holds a control character"),
        ("", "must have 1"),
        ("a//b", "holds an empty part"),
    ] {
        let world = World::with(Behaviour { siblings: vec![name.into()], ..Default::default() });
        let error = world.model(REPO).unwrap_err();
        assert!(matches!(error, HubError::UnsafeName { .. }), "{error}");
        assert_says(Err::<(), _>(error), &["tiny/model@main names a file", &format!("{name:?}"), why, "nothing of it"]);
        assert!(!world.settings.cache.exists());
        assert_says(world.file(name), &["the file", why]);
        assert!(names_in(world.dir()).is_empty());
    }
}

#[test]
fn an_index_that_names_other_places_is_refused() {
    for (index, why) in [
        (r#"{"weight_map": {"a": "../../../../evil.safetensors"}}"#, "which holds \"..\""),
        (r#"{"weight_map": {"a": "/tmp/evil.safetensors"}}"#, "which is absolute"),
        (r#"{"weight_map": {"a": "pytorch_model.bin"}}"#, "which is no safetensors file"),
        (r#"{"weight_map": {}}"#, "names no shard"),
        (r#"{"weight_map": ["a"]}"#, "is no index of safetensors"),
        ("", "is no index of safetensors"),
    ] {
        let world = World::new();
        replace(&world, "model.safetensors.index.json", index.as_bytes());
        assert_says(world.model(REPO), &["model.safetensors.index.json", why]);
        assert!(!world.repo_dir().join("refs").exists());
        assert_eq!(names_in(world.dir()), ["hub"]);
    }
}

#[test]
fn headers_that_are_none_are_refused() {
    for (etag, why) in [
        ("", "no ETag header"),
        ("ETag: \"../../../evil\"\r\nX-Linked-Size: 5\r\n", "is no checksum, so that no download can be verified"),
        ("ETag: \"abc\"\r\n", "is no checksum"),
        ("X-Linked-Etag: \"1111111111111111111111111111111111111111\"\r\n", "no length of the file"),
        ("ETag: \"1111111111111111111111111111111111111111\"\r\nX-Linked-Size: -1\r\n", "no length of the file"),
        (
            "ETag: \"1111111111111111111111111111111111111111\"\r\nX-Linked-Size: 99999999999999999999999\r\n",
            "no length",
        ),
        ("X-Repo-Commit: ../../evil\r\nX-None: ", "the X-Repo-Commit \"../../evil\" where main was asked for"),
    ] {
        let world = World::with(Behaviour { etag: Some(etag.into()), ..Default::default() });
        assert_says(world.file(SHARDS[0]), &["tiny/model@main:model-00001", "answers what no hub does", why]);
        assert!(!world.settings.cache.exists());
    }
}

#[test]
fn a_promised_length_of_petabytes_takes_no_room() {
    let lines = format!("X-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\n", "1".repeat(64), u64::MAX);
    let world = World::with(Behaviour { etag: Some(lines), ..Default::default() });
    assert_says(world.file(SHARDS[0]), &["length", &format!("promised {} bytes", u64::MAX)]);
    world.assert_no_partial();
}

#[test]
fn another_commit_than_was_asked_for_is_refused() {
    let description = format!(r#"{{"sha": "{}", "siblings": []}}"#, "3".repeat(40));
    let world = World::with(Behaviour { description: Some(description.into()), ..Default::default() });
    assert_says(world.model(&format!("{REPO}@{NEW}")), &["another commit (3333", "than was asked for"]);
    let lines = format!("X-Repo-Commit: {}\r\nX-None: ", "3".repeat(40));
    let world = World::with(Behaviour { etag: Some(lines), ..Default::default() });
    let why = format!("where {NEW} was asked for");
    assert_says(
        world.hub().file(&parse(&format!("{REPO}@{NEW}")), SHARDS[0], &|_| ()),
        &["the X-Repo-Commit \"3333", &why],
    );
}

#[test]
fn what_is_no_description_is_refused() {
    for (description, why) in [
        ("", "cannot be read"),
        ("<html>log in to the proxy</html>", "cannot be read"),
        ("[]", "cannot be read"),
        (r#"{"siblings": []}"#, "missing field `sha`"),
        (r#"{"sha": "../../evil"}"#, "the commit \"../../evil\", which is none"),
        (r#"{"sha": 1, "siblings": 2}"#, "cannot be read"),
    ] {
        let world = World::with(Behaviour { description: Some(description.into()), ..Default::default() });
        assert_says(world.model(REPO), &["tiny/model@main", "answers what no hub does", why]);
    }
    let deep = "[".repeat(1_000_000);
    let world = World::with(Behaviour { description: Some(deep.into()), ..Default::default() });
    assert_says(world.model(REPO), &["cannot be read"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Bytes of a true description are changed, removed, doubled: a path or an error, and nothing outside the cache.
    #[test]
    fn a_mutated_description_never_panics(edits in edits()) {
        let world = World::new();
        let siblings: Vec<_> = ["config.json", "model.safetensors.index.json", SHARDS[0], SHARDS[1]]
            .map(|name| serde_json::json!({ "rfilename": name }))
            .to_vec();
        let true_one = serde_json::json!({ "sha": NEW, "siblings": siblings, "tags": [], "private": false }).to_string();
        let description = Some(mutate(true_one.into_bytes(), &edits));
        world.server.behave(Behaviour { description, ..Default::default() });
        check(&world);
    }

    /// The same for the list of shards.
    #[test]
    fn a_mutated_index_never_panics(edits in edits()) {
        let world = World::new();
        let true_one = world.content(NEW, "model.safetensors.index.json").content;
        replace(&world, "model.safetensors.index.json", &mutate(true_one, &edits));
        check(&world);
    }

    /// The same for what is said of a file.
    #[test]
    fn mutated_headers_never_panic(edits in edits()) {
        let world = World::new();
        let file = world.content(NEW, SHARDS[0]);
        let lines = format!("X-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\n", file.checksum(), file.content.len());
        let lines = String::from_utf8_lossy(&mutate(lines.into_bytes(), &edits)).into_owned();
        world.server.behave(Behaviour { etag: Some(lines), ..Default::default() });
        if let Ok(path) = world.file(SHARDS[0]) {
            prop_assert_eq!(fs::read(path).unwrap(), file.content);
        }
        prop_assert!(names_in(world.dir()).iter().all(|name| name == "hub"));
    }
}

/// Where, what, and how: change, remove, insert.
fn edits() -> impl Strategy<Value = Vec<(usize, u8, u8)>> {
    let byte = prop_oneof![any::<u8>(), proptest::sample::select(b"./\\\"{}[]:,0\x00 ".to_vec())];
    proptest::collection::vec((any::<usize>(), byte, 0..3u8), 1..6)
}

fn mutate(mut bytes: Vec<u8>, edits: &[(usize, u8, u8)]) -> Vec<u8> {
    for &(at, byte, how) in edits {
        if bytes.is_empty() {
            break;
        }
        let at = at % bytes.len();
        match how {
            0 => bytes[at] = byte,
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, byte),
        }
    }
    bytes
}

/// A path with a model in it or an error with the repository's or a file's name; nothing outside the cache.
fn check(world: &World) {
    match world.model(REPO) {
        Ok(path) => assert!(path.starts_with(&world.settings.cache) && path.join("config.json").is_file()),
        Err(error) => {
            let message = error.to_string();
            assert!(message.contains("tiny/model") || message.contains("safetensors"), "{message}");
        }
    }
    assert!(names_in(world.dir()).iter().all(|name| name == "hub"));
    let folders = names_in(&world.settings.cache);
    assert!(folders.iter().all(|name| name == ".locks" || name == "models--tiny--model"), "{folders:?}");
}

fn replace(world: &World, name: &str, content: &[u8]) {
    let mut repos = world.server.repos();
    let files = repos.get_mut(REPO).unwrap().commits.get_mut(NEW).unwrap();
    files.insert(name.into(), File { content: content.to_vec(), large: false });
}
