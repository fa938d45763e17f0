//! Serving a run that only trains dictionaries.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Stdio};

use serde_json::Value;

use super::{exegete, stderr};

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Serves a run on a free port; returns the address.
fn serve(run: &Path) -> (Server, String) {
    let mut child = exegete().arg("serve").arg(run).args(["--port", "0"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split("http://").nth(1).and_then(|rest| rest.split('/').next());
    let address = address.unwrap_or_else(|| panic!("no address in {line:?}")).to_owned();
    (Server(child), address)
}

/// Status line, headers and body of an answer.
fn get(address: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[test]
fn a_training_that_was_killed_and_goes_on_is_watched() {
    let dir = tempfile::tempdir().unwrap();
    let (grid, out) = (dir.path().join("grid.toml"), dir.path().join("run"));
    let text = "latents = 256\nepochs = 2\nbatch = 128\n[[dictionary]]\nname = \"topk\"\nk = [4, 8]\n";
    std::fs::write(&grid, text).unwrap();
    let train = || {
        let mut command = exegete();
        command.args(["sae", "train", "builtin:organism", "--max-tokens", "20000", "--checkpoint-steps", "20"]);
        command.arg("--grid").arg(&grid).arg("--out").arg(&out);
        command
    };
    let killed = train().env("EXEGETE_KILLPOINT", "commit.after:30").output().unwrap();
    assert!(!killed.status.success(), "it was not killed");
    let (_server, address) = serve(&out);
    let (head, _) = get(&address, "/");
    assert!(head.contains(" 303 ") && head.contains("location: /training"), "{head}");
    let (head, page) = get(&address, "/training");
    assert!(head.contains(" 200 ") && page.contains("not finished") && page.contains("<svg"), "{page}");
    let told = || -> Value { serde_json::from_str(&get(&address, "/api/training").1).unwrap() };
    let half = told();
    let step = half["dictionaries"][0]["step"].as_u64().unwrap();
    assert!(step > 0 && half["finished"] == 0, "{half}");

    let output = train().output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let whole = told();
    assert_eq!((&whole["progress"], &whole["finished"]), (&"finished".into(), &2.into()));
    for dictionary in whole["dictionaries"].as_array().unwrap() {
        assert!(
            dictionary["step"].as_u64().unwrap() > step && dictionary["step"] == dictionary["planned"],
            "{dictionary}"
        );
        // Every latent is in the histogram, once.
        let bins = dictionary["density"]["bins"].as_array().unwrap();
        let in_bins: u64 = bins.iter().map(|bin| bin["latents"].as_u64().unwrap()).sum();
        assert_eq!(in_bins + dictionary["density"]["silent"].as_u64().unwrap(), 256);
        assert_eq!(dictionary["density"]["tokens"], 100 * 128);
    }
}
