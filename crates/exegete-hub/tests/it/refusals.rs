//! What the hub refuses, and what is refused of it.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use exegete_hub::HubError;

use crate::server::{Behaviour, Place};
use crate::world::{NEW, REPO, SHARDS, World, assert_says, names_in, parse};

#[test]
fn a_wrong_checksum_is_refused_and_nothing_is_left() {
    for (file, kind) in [(SHARDS[0], "SHA-256"), ("config.json", "git blob SHA-1")] {
        let world = World::with(Behaviour { flip: file, ..Default::default() });
        let promised = world.content(NEW, file).checksum();
        let name = format!("tiny/model@main:{file}");
        assert_says(world.file(file), &[&name, kind, &format!("promised {promised}"), "was deleted, run"]);
        assert!(names_in(&world.repo_dir().join("blobs")).is_empty());
        assert!(!world.repo_dir().join("snapshots").exists());
        assert!(!world.repo_dir().join("refs").exists());
        assert!(matches!(world.model(REPO), Err(HubError::Corrupt { .. })));
        assert!(!world.repo_dir().join("snapshots").join(NEW).join(file).exists());
        world.assert_no_partial();
    }
}

#[test]
fn a_wrong_length_is_refused() {
    let world = World::with(Behaviour { lengthen: SHARDS[0], ..Default::default() });
    let size = world.content(NEW, SHARDS[0]).content.len();
    let (found, promised) = (format!("length {} bytes", size + 1), format!("promised {size} bytes"));
    assert_says(world.file(SHARDS[0]), &[SHARDS[0], &found, &promised]);
    world.assert_no_partial();
}

#[test]
fn a_gated_repository_needs_a_token() {
    let mut world = World::with(Behaviour { token: Some("hf_right"), ..Default::default() });
    let page = format!("accept its licence at {}/tiny/model", world.server.endpoint);
    let parts = ["tiny/model: the hub refuses access (401)", "gated or private", &page];
    assert_says(world.model(REPO), &[&parts[..], &["and set HF_TOKEN to a token that may read it"]].concat());
    assert_says(world.file(SHARDS[0]), &parts);
    world.token("hf_wrong");
    let error = world.model(REPO).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hf_wrong"));
    assert_says(Err::<(), _>(error), &[&parts[..], &["does not accept the one of HF_TOKEN"]].concat());
    world.token("hf_right");
    world.model(REPO).unwrap();
}

#[test]
fn a_forbidden_repository_is_not_tried_again() {
    let world = World::with(Behaviour { always: Some((403, "")), ..Default::default() });
    assert_says(world.model(REPO), &["tiny/model: the hub refuses access (403)", "set HF_TOKEN"]);
    assert_eq!(world.server.requests().len(), 1);
}

#[test]
fn what_the_hub_does_not_have_is_named() {
    let world = World::new();
    let endpoint = format!("the hub at {} has no ", world.server.endpoint);
    assert_says(world.model("tiny/nothing"), &[&endpoint, "has no repository tiny/nothing; check the name"]);
    assert_says(world.model("tiny/model@v9"), &["has no revision v9 of tiny/model"]);
    assert_says(world.file("x.gguf"), &["has no file x.gguf in tiny/model@main"]);
    world.server.behave(Behaviour { always: Some((404, "")), ..Default::default() });
    assert_says(world.file("x.gguf"), &["no file x.gguf in tiny/model@main (or no such repository or revision)"]);
    assert_says(world.model(REPO), &["no revision main of tiny/model (or no such repository)"]);
    assert!(!world.settings.cache.exists(), "nothing was made for it");
}

#[test]
fn a_limit_is_waited_for_as_long_as_the_server_asks() {
    let world = World::with(Behaviour { hub_statuses: vec![(429, "Retry-After: 1\r\n")], ..Default::default() });
    let begun = Instant::now();
    let (path, told) = world.told(|hub, events| hub.model(&parse(REPO), events));
    world.assert_whole(&path.unwrap(), NEW);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    assert!(told[0].contains("429") && told[0].contains("pause: Some(1s)"), "{told:?}");
}

#[test]
fn an_endless_limit_is_an_error() {
    let world = World::with(Behaviour { always: Some((429, "")), ..Default::default() });
    assert_says(
        world.model(REPO),
        &["tiny/model@main: 127.0.0.1", "limits requests (429)", "after 4 tries", "set HF_TOKEN"],
    );
    assert_eq!(world.server.requests().len(), 4);
    let world = World::with(Behaviour { always: Some((429, "RateLimit: \"api\";r=0;t=0\r\n")), ..Default::default() });
    assert_says(world.file(SHARDS[0]), &[SHARDS[0], "after 4 tries; it asks to wait 0 s"]);
}

#[test]
fn a_limit_of_hours_is_an_error_at_once() {
    let world = World::with(Behaviour { always: Some((429, "Retry-After: 7200\r\n")), ..Default::default() });
    assert_says(world.model(REPO), &["(429)", "after 1 tries; it asks to wait 7200 s"]);
}

#[test]
fn failures_of_servers_pass_or_are_named() {
    let statuses = vec![(500, ""), (503, ""), (504, "")];
    let world = World::with(Behaviour { hub_statuses: statuses, ..Default::default() });
    world.assert_whole(&world.model(REPO).unwrap(), NEW);
    let world = World::with(Behaviour { always: Some((502, "")), ..Default::default() });
    assert_says(world.model(REPO), &["tiny/model@main: no answer from 127.0.0.1", "after 4 tries: it answers 502"]);
    let world = World::with(Behaviour { always: Some((418, "")), ..Default::default() });
    assert_says(world.model(REPO), &["answers what no hub does: the status 418", "check HF_ENDPOINT"]);
}

#[test]
fn a_storage_address_that_has_expired_is_asked_for_again() {
    let world = World::with(Behaviour { storage_statuses: vec![403], ..Default::default() });
    world.assert_whole(&world.model(REPO).unwrap(), NEW);
    let world = World::with(Behaviour { storage_statuses: vec![403; 99], ..Default::default() });
    let error = world.model(REPO).unwrap_err().to_string();
    assert!(error.contains(&world.server.storage()) && error.contains("403") && !error.contains("sesame"), "{error}");
    let resolved = world.server.requests().iter().filter(|r| r.place == Place::Hub && r.is_content()).count();
    assert!(resolved >= 4, "each try asks the hub for a new address");
}

#[test]
fn nobody_there_is_an_error_that_names_the_host() {
    let mut world = World::new();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    world.settings.endpoint = format!("http://127.0.0.1:{port}");
    assert_says(world.model(REPO), &["no answer from 127.0.0.1", &port.to_string(), "after 4 tries", "efused"]);
}

#[test]
fn a_server_without_tls_is_not_trusted_and_not_asked_again() {
    let mut world = World::new();
    world.settings.endpoint = world.server.endpoint.replace("http:", "https:");
    world.token("hf_sesame");
    let error = world.model(REPO).unwrap_err();
    assert!(matches!(error, HubError::Tls { .. }), "{error:?}");
    assert_says(Err::<(), _>(error), &["no trusted connection to 127.0.0.1", "SSL_CERT_FILE"]);
    assert!(world.server.requests().iter().all(|r| r.authorization.is_none()));
}

#[test]
fn redirects_without_end_are_an_error() {
    let world = World::with(Behaviour { redirect: Some("/round/and/round".into()), ..Default::default() });
    assert_says(world.model(REPO), &["more than 5 redirects"]);
    for (to, why) in [("ftp://x/y", "begins with neither"), ("http://a@b/", "user name"), ("http://[", "no address")] {
        let world = World::with(Behaviour { redirect: Some(to.into()), ..Default::default() });
        assert_says(world.model(REPO), &["answers what no hub does", why]);
    }
}

#[test]
fn a_repository_without_safetensors_is_told_what_to_do() {
    let world = World::new();
    let without = |names: &[&str]| {
        let mut repos = world.server.repos();
        let files = repos.get_mut(REPO).unwrap().commits.get_mut(NEW).unwrap();
        files.retain(|name, _| !names.contains(&name.as_str()));
    };
    without(&[SHARDS[1]]);
    assert_says(
        world.model(REPO),
        &["tiny/model@main has no model-00002-of-00002.safetensors, which its model.safetens"],
    );
    without(&["model.safetensors.index.json"]);
    let parts =
        ["has no model.safetensors and no model.safetensors.index.json", "pytorch_model.bin is a pickle", "never read"];
    assert_says(world.model(REPO), &parts);
    without(&["config.json"]);
    assert_says(world.model(REPO), &["has no config.json", "such as \":quantized/tiny model.gguf\""]);
    assert!(!fs::exists(world.repo_dir().join("refs")).unwrap());
}
