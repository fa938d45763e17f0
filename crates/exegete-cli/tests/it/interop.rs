//! Runs for other programs, and runs made of their files.

use std::fs;
use std::path::Path;
use std::process::Output;

use exegete_testkit::require_data;
use serde_json::{Value, json};

use super::{exegete, stderr};

/// Runs the program on words, of which those that begin with a slash are paths in `dir`.
fn run(dir: &Path, words: &str) -> Output {
    let word = |word: &str| word.strip_prefix('/').map_or(word.into(), |name| dir.join(name).into_os_string());
    exegete().args(words.split_whitespace().map(word)).output().unwrap()
}

#[track_caller]
fn succeed(dir: &Path, words: &str) -> String {
    let output = run(dir, words);
    assert!(output.status.success(), "{words}: {}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[track_caller]
fn fail(dir: &Path, words: &str, expected: &[&str]) {
    let output = run(dir, words);
    let told = stderr(&output);
    assert!(!output.status.success(), "{words} should fail");
    assert!(expected.iter().all(|part| told.contains(part)) && !told.contains("panicked"), "{words}: {told}");
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// 1 and 1.0 are the same number in JSON.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        (a, b) => a == b,
    }
}

#[test]
fn the_sample_of_saedashboard_comes_back_whole() {
    let data = require_data!();
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let sample = data.join("autointerp/neuronpedia_batch/batch-0.json");
    fs::copy(&sample, dir.join("sample.json")).unwrap();
    let told = succeed(dir, "import /sample.json --format saedashboard --check");
    assert!(told.contains("files=1 features=2"), "{told}");
    let told = succeed(dir, "import /sample.json --format saedashboard --out /run");
    assert!(told.contains("features=2 texts=73 outside_bins=0"), "{told}");
    assert!(succeed(dir, "import /sample.json --format saedashboard --out /run").contains("already"));
    succeed(dir, "export /run --format saedashboard --out /back");
    assert!(same(&json_of(&dir.join("back/batch-0.json")), &json_of(&sample)), "the sample has changed");
    let settings = json_of(&dir.join("back/run_settings.json"));
    assert_eq!((&settings["n_prompts_total"], &settings["model_id"]), (&json!(5000), &json!("gpt2-small")));
    let skipped = json_of(&dir.join("back/skipped_indexes.json"));
    assert_eq!((&skipped["layer"], &skipped["skipped_indexes"]), (&json!("0"), &json!([])));

    // Other commands open the run, and the other format holds it.
    let shown = succeed(dir, "show /run 0");
    assert!(
        shown.contains("␣Brigade") && shown.contains("[brigade]") && shown.contains("of 640\u{202f}000 tokens"),
        "{shown}"
    );
    succeed(dir, "export /run --format neuronpedia --out /np");
    let request = json_of(&dir.join("np/batch-0.json"));
    assert_eq!((&request["modelId"], &request["source"]), (&json!("gpt2-small"), &json!("0-res-jb")));
    assert_eq!(request["features"][0]["activations"].as_array().unwrap().len(), 38);
    succeed(dir, "import /np --format neuronpedia --out /run2");
    succeed(dir, "export /run2 --format neuronpedia --out /np2");
    assert_eq!(fs::read(dir.join("np/batch-0.json")).unwrap(), fs::read(dir.join("np2/batch-0.json")).unwrap());
    succeed(dir, "export /run --format html --single-file --out /page.html");
    let page = fs::read_to_string(dir.join("page.html")).unwrap();
    assert!(page.contains("Brigade") && !page.contains("<script") && !page.contains("src="));

    // A file that stops in the middle, and one whose counts disagree, leave nothing behind.
    let text = fs::read_to_string(&sample).unwrap();
    fs::write(dir.join("cut.json"), &text[..text.len() / 2]).unwrap();
    fail(dir, "import /cut.json --format saedashboard --out /no", &["cut.json", "line 1 column"]);
    fs::write(dir.join("bad.json"), text.replacen("[0.112", "[", 1).replacen("[, ", "[", 1).replacen("[,", "[", 1))
        .unwrap();
    fail(
        dir,
        "import /bad.json --format saedashboard --out /no",
        &["bad.json", "features[0].neuron_alignment_values has 2"],
    );
    assert!(!dir.join("no").exists());
    fail(dir, "import /sample.json --format neuronpedia --check", &["sample.json: modelId is missing"]);
}

/// A request with two features, one of which has markup for text.
fn request() -> Value {
    let text = |value: f64| json!({ "tokens": ["<b>", " sea", "\n"], "values": [0.0, value, 0.5] });
    json!({ "modelId": "tiny", "source": "2-words", "features": [
        { "index": 7, "density": 0.01, "topLogits": [{ "token": " sea", "value": 1.5 }],
          "explanations": [{ "text": "<script>alert(1)</script>", "methodName": "m", "modelName": "x" }],
          "activations": [text(3.25), text(2.5)] },
        { "index": 1_000_000, "activations": [text(1.0)] },
    ] })
}

#[test]
fn a_request_becomes_a_run_and_pages() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::write(dir.join("batch-0.json"), request().to_string()).unwrap();
    succeed(dir, "import /batch-0.json --format neuronpedia --out /run");
    succeed(dir, "export /run --format neuronpedia --out /out");
    assert!(same(&json_of(&dir.join("out/batch-0.json")), &request()));
    assert!(succeed(dir, "show /run 1000000").contains("[sea]"));
    fail(dir, "show /run 8", &["no latent \"8\"", "7 to 1000000"]);
    let settings = json!({ "command": "harvest", "keep": { "top_examples": 20 }, "text": ["a"] });
    let other = json!({ "format": 1, "program": "p", "settings": settings, "inputs": [], "parts": {}, "stages": {} });
    fs::create_dir(dir.join("other")).unwrap();
    fs::write(dir.join("other/manifest.json"), other.to_string()).unwrap();
    let sentence =
        "was made by \"exegete harvest\" and not by \"exegete import\": format, keep, model, text, inputs differ; give";
    fail(dir, "import /batch-0.json --format neuronpedia --out /other", &[sentence]);
    succeed(dir, "export /run --format neuronpedia --out /one --latents 7 --model-id other --source 3-x");
    let one = json_of(&dir.join("one/batch-0.json"));
    assert_eq!((&one["modelId"], &one["source"]), (&json!("other"), &json!("3-x")));
    assert_eq!(one["features"].as_array().unwrap().len(), 1);

    succeed(dir, "export /run --format html --out /pages");
    let index = fs::read_to_string(dir.join("pages/index.html")).unwrap();
    let page = fs::read_to_string(dir.join("pages/latent/7.html")).unwrap();
    for text in [&index, &page] {
        assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;") && !text.contains("<script"), "{text}");
        assert!(text.contains("Content-Security-Policy") && text.contains("default-src 'none'"));
        let without_names = text.replace("http://www.w3.org/2000/svg", "");
        assert!(["href=\"/", "src=", "url(", "http:", "https:"].iter().all(|sign| !without_names.contains(sign)));
    }
    assert!(page.contains("&lt;b&gt;") && page.contains("../style.css") && page.contains("href=\"1000000.html\""));
    // Every address leads to a file that is there.
    for (folder, text) in [("pages", &index), ("pages/latent", &page)] {
        for part in text.split("href=\"").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(dir.join(folder).join(name).is_file(), "{folder}/{name}");
        }
    }

    fail(dir, "export /run --format html --out /pages", &["not empty"]);
    fail(dir, "export /run --format html --out /p --latents 8", &["--latents: the run has no latent 8"]);
    fail(dir, "export /run --format html --out /p --top 3", &["--top has no effect with --format html"]);
    fail(dir, "export /run --format neuronpedia --out /p --model-id Big", &["modelId is \"Big\"", "--model-id"]);
    fail(dir, "export /run --format delphi --module layers.2 --out /p", &["--keep-activations"]);
    fail(dir, "export /run --format delphi --module ../x --out /p", &["--module"]);
    fail(dir, "export /run --format html --dictionary b --out /p", &["none called \"b\""]);
    assert!(!dir.join("p").exists());
}

#[test]
fn files_that_do_not_go_together_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("in")).unwrap();
    fail(dir, "import /in --format neuronpedia --out /run", &["holds no batch-N.json"]);
    fail(dir, "import /nowhere --format neuronpedia --out /run", &["nowhere"]);
    fs::write(dir.join("in/batch-0.json"), request().to_string()).unwrap();
    fs::write(dir.join("in/batch-1.json"), request().to_string()).unwrap();
    fail(dir, "import /in --format neuronpedia --out /run", &["batch-1.json: feature 7 stands there twice"]);
    let mut other = request();
    other["source"] = json!("3-words");
    fs::write(dir.join("in/batch-1.json"), other.to_string()).unwrap();
    fail(dir, "import /in --format neuronpedia --out /run", &["batch-1.json is of another model or source than"]);
    assert!(!dir.join("run").exists());
    other["source"] = json!("2-words");
    other["features"] = json!([{ "index": 3, "activations": [{ "tokens": ["a"], "values": [1] }] }]);
    // Batches are numbered, and 10 comes after 9.
    fs::rename(dir.join("in/batch-1.json"), dir.join("in/batch-10.json")).unwrap();
    fs::write(dir.join("in/batch-10.json"), other.to_string()).unwrap();
    fail(dir, "import /in --format neuronpedia --out /run --latents 9", &["holds none of the latents asked for"]);
    assert!(succeed(dir, "import /in --format neuronpedia --out /run").contains("files=2 features=3"));
}

#[test]
fn a_bulk_export_becomes_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for name in ["features", "activations", "explanations"] {
        fs::create_dir_all(dir.join("in").join(name)).unwrap();
    }
    let write = |name: &str, rows: &[Value]| {
        let lines: Vec<String> = rows.iter().map(Value::to_string).collect();
        fs::write(dir.join("in").join(name).join("batch-0.jsonl"), lines.join("\n")).unwrap();
    };
    let feature = |i: &str| json!({ "modelId": "tiny", "layer": "2-words", "index": i, "frac_nonzero": 0.25 });
    write("features", &[feature("3"), feature("5")]);
    write(
        "activations",
        &[json!({ "index": "3", "tokens": ["at", " sea"], "values": [0, 3.25], "binMin": -1, "binContains": -1 })],
    );
    write("explanations", &[json!({ "index": "3", "description": "ships", "typeName": "oai" })]);
    let told = succeed(dir, "import /in --format neuronpedia --check");
    assert!(told.contains("files=3 features=2"), "{told}");
    assert!(succeed(dir, "import /in --format neuronpedia --out /run").contains("features=2 texts=1"));
    let shown = succeed(dir, "show /run 3");
    assert!(shown.contains("says: ships") && shown.contains("at [sea]") && shown.contains("25.0\u{202f}%"), "{shown}");
    // A feature without a text is no feature of a request.
    assert!(succeed(dir, "export /run --format neuronpedia --out /np").contains("features=1 skipped=1"));
    fail(dir, "import /in --format neuronpedia --out /no --latents 8", &["holds none of the latents asked for"]);
    write("activations", &[json!({ "index": "3", "tokens": ["at"], "values": [] })]);
    fail(
        dir,
        "import /in --format neuronpedia --out /no",
        &["activations/batch-0.jsonl", "line 1: values has 0 numbers"],
    );
    assert!(!dir.join("no").exists());
}
