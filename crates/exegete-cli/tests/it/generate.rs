//! `exegete model generate`: edits change the text, edits that do nothing change no bit.

use super::{NO_DATA, exegete, stderr, stories};

#[test]
fn adding_a_direction_changes_the_text_and_scale_0_changes_no_bit() {
    let Some(model) = stories() else { return exegete_testkit::not_run(NO_DATA) };
    let run = |edits: &[&str]| -> serde_json::Value {
        let mut command = exegete();
        command.args(["--json", "model", "generate"]).arg(&model).args(["--prompt", "Once upon a time", "--logits"]);
        let output = command.args(["--max-new-tokens", "24"]).args(edits).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let plain = run(&[]);
    let direction = "blocks.2.hook_resid_post:tokens('The dog')-tokens('The girl')";
    let zero = run(&["--add", &format!("{direction}:0")]);
    assert_eq!(zero["logits_checksum"], plain["logits_checksum"]);
    assert_eq!(zero["text"], plain["text"]);
    let strong = run(&["--add", &format!("{direction}:4")]);
    assert_ne!(strong["logits_checksum"], plain["logits_checksum"]);
    assert_ne!(strong["text"], plain["text"]);
    assert_ne!(run(&["--project-out", direction])["logits_checksum"], plain["logits_checksum"]);
    assert_eq!(run(&["--scale", "blocks.1.hook_mlp_out:1"])["logits_checksum"], plain["logits_checksum"]);
}
