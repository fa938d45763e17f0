//! The test kit tested on itself.

use std::process::Command;

use exegete_testkit::{Golden, assert_close, assert_rel_l2, rel_l2};

#[test]
fn golden_gives_shapes_and_values() {
    let golden = Golden::load("ops/out.safetensors");
    assert_eq!(golden.shape("linear/w"), [19, 33]);
    assert_eq!(golden.f32("linear/w").len(), 19 * 33);
    assert_eq!(golden.tokens("embedding/tokens"), [3, 0, 3, 12, 7, 12, 3, 1]);
    assert!(golden.names().any(|name| name == "row_topk/indices"));
}

#[test]
#[should_panic(expected = "to regenerate: cargo xtask golden nothing")]
fn a_missing_golden_says_how_to_make_it() {
    Golden::load("nothing/out.safetensors");
}

#[test]
fn close_is_relative_to_the_largest_wanted_value() {
    assert_close("same", &[1.0, f32::INFINITY], &[1.0, f32::INFINITY], 0.0);
    assert_close("scaled", &[100.0, 1.0005], &[100.0, 1.0], 1e-5);
    assert!((rel_l2(&[3.0, 4.1], &[3.0, 4.0]) - 0.02).abs() < 1e-7);
    assert_rel_l2("zero", &[0.0], &[0.0], 0.0);
}

#[test]
#[should_panic(expected = "at index 1 of 3")]
fn a_difference_names_its_index() {
    assert_close("x", &[0.0, 2.0, 0.5], &[0.0, 0.0, 0.0], 1e-5);
}

#[test]
#[should_panic(expected = "at index 0 of 1")]
fn a_nan_is_never_close() {
    assert_close("x", &[f32::NAN], &[0.0], 1e9);
}

/// The log goes through the environment, which a process may only set for its children.
#[test]
fn a_test_that_did_not_run_is_logged() {
    let log = tempfile::NamedTempFile::new().expect("a temporary file");
    let status = Command::new(std::env::current_exe().expect("this test binary"))
        .args(["--exact", "without_data"])
        .env_remove("EXEGETE_DATA")
        .env_remove("NEXTEST_TEST_NAME")
        .env("EXEGETE_NOT_RUN_LOG", log.path())
        .status()
        .expect("the test binary runs");
    assert!(status.success());
    let text = std::fs::read_to_string(log.path()).expect("the log");
    let line: serde_json::Value = serde_json::from_str(text.trim()).expect("one line of JSON");
    assert_eq!(line["reason"], "no data pack (EXEGETE_DATA)");
}

#[test]
fn without_data() {
    // Outside its parent's call there is nothing to show, and the gate must not count it.
    if std::env::var_os("NEXTEST_TEST_NAME").is_none() {
        let _dir = exegete_testkit::require_data!();
    }
}
