//! The variables of the Python library.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use exegete_hub::{Hub, HubError, HubSettings, Token};

use crate::world::{World, assert_says, parse};

const SECRET: &str = "hf_sesame0123456789";

fn settings(variables: &[(&str, &str)]) -> Result<HubSettings, HubError> {
    HubSettings::from_vars(&|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value)))
}

fn cache(variables: &[(&str, &str)]) -> String {
    settings(variables).unwrap().cache.to_str().unwrap().to_owned()
}

#[test]
fn the_cache_is_where_the_python_library_has_it() {
    let home = ("HOME", "/u");
    assert_eq!(cache(&[home]), "/u/.cache/huggingface/hub");
    assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/x")]), "/x/huggingface/hub");
    assert_eq!(cache(&[home, ("XDG_CACHE_HOME", "/x"), ("HF_HOME", "/h")]), "/h/hub");
    assert_eq!(cache(&[home, ("HF_HOME", "~/h")]), "/u/h/hub");
    assert_eq!(cache(&[home, ("HF_HOME", "/h"), ("HF_HUB_CACHE", "/c")]), "/c");
    assert_eq!(cache(&[home, ("HF_HOME", "")]), "/u/.cache/huggingface/hub");
    assert_says(settings(&[]), &["HF_HOME is not set, and neither is HOME"]);
}

#[test]
fn offline_is_said_in_several_words() {
    let offline = |variables: &[(&str, &str)]| settings(&[&[("HOME", "/u")], variables].concat()).unwrap().offline;
    for yes in ["1", "true", "TRUE", "Yes", "on"] {
        assert_eq!(offline(&[("HF_HUB_OFFLINE", yes)]), Some("HF_HUB_OFFLINE"));
        assert_eq!(offline(&[("TRANSFORMERS_OFFLINE", yes)]), Some("TRANSFORMERS_OFFLINE"));
    }
    for no in ["", "0", "false", "no", "off"] {
        assert_eq!(offline(&[("HF_HUB_OFFLINE", no), ("TRANSFORMERS_OFFLINE", no)]), None);
    }
}

#[test]
fn the_token_is_found_and_never_shown() {
    let dir = tempfile::tempdir().unwrap();
    let home = ("HF_HOME", dir.path().to_str().unwrap());
    assert_eq!(settings(&[home]).unwrap().token, None);
    fs::write(dir.path().join("token"), format!("{SECRET}\n")).unwrap();
    let secret = Some(Token::new(SECRET, "x").unwrap());
    assert_eq!(settings(&[home]).unwrap().token, secret);
    assert_eq!(settings(&[home, ("HF_TOKEN", "other")]).unwrap().token, Some(Token::new("other", "x").unwrap()));
    let moved = ("HF_TOKEN_PATH", dir.path().join("elsewhere"));
    assert_eq!(settings(&[home, (moved.0, moved.1.to_str().unwrap())]).unwrap().token, None);
    let settings_of_secret = settings(&[home]).unwrap();
    let shown = format!("{:?} {:?}", settings_of_secret, Hub::new(settings_of_secret.clone()).unwrap());
    assert!(shown.contains("Token(hidden)") && !shown.contains("sesame"), "{shown}");
    for (bad, name) in [("sesame street", "HF_TOKEN"), ("sesäme", "HF_TOKEN")] {
        let error = settings(&[home, (name, bad)]).unwrap_err().to_string();
        assert!(error.contains("HF_TOKEN holds no token") && !error.contains("ses"), "{error}");
    }
    fs::write(dir.path().join("token"), "two\nlines").unwrap();
    assert_says(settings(&[home]), &[dir.path().join("token").to_str().unwrap(), "holds no token"]);
}

#[test]
fn an_endpoint_that_is_no_address_is_refused() {
    for (endpoint, why) in [
        ("hub.example", "HF_ENDPOINT begins with neither"),
        ("ftp://hub.example", "HF_ENDPOINT begins with neither"),
        ("https://user:word@hub.example", "HF_ENDPOINT holds a user name or password; a token belongs in HF_TOKEN"),
        ("https://hub.example?x=y", "HF_ENDPOINT holds a query"),
        ("https://a b", "HF_ENDPOINT is no address"),
    ] {
        let settings = settings(&[("HOME", "/u"), ("HF_ENDPOINT", endpoint)]).unwrap();
        assert_says(Hub::new(settings), &[why]);
    }
    assert_eq!(settings(&[("HOME", "/u")]).unwrap().endpoint, "https://huggingface.co");
}

#[test]
fn certificates_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("roots.pem");
    let name = path.to_str().unwrap();
    let hub = |variable| Hub::new(settings(&[("HOME", "/u"), (variable, name)]).unwrap());
    assert_says(hub("SSL_CERT_FILE"), &["cannot read the certificates of SSL_CERT_FILE", name]);
    fs::write(&path, "nothing").unwrap();
    assert_says(hub("REQUESTS_CA_BUNDLE"), &[name, "holds no PEM certificate"]);
}

#[test]
fn a_moved_home_is_a_cache_of_its_own() {
    let world = World::new();
    let homes = [world.dir().join("first"), world.dir().join("second")];
    for home in &homes {
        let variables = [("HF_HOME", home.to_str().unwrap()), ("HF_ENDPOINT", world.server.endpoint.as_str())];
        let hub = Hub::new(settings(&variables).unwrap()).unwrap();
        let path = hub.model(&parse("tiny/model"), &|_| ()).unwrap();
        assert!(path.starts_with(home.join("hub")), "{}", path.display());
        assert!(path.join("config.json").is_file());
        let contents = world.server.requests().iter().filter(|r| r.is_content()).count();
        assert!(contents > 0, "the second home begins empty");
    }
    assert!(!Path::new(&world.settings.cache).exists());
}
