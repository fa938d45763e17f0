//! The form of a reference.

use exegete_hub::{Reference, looks_like_reference};

use crate::world::assert_says;

#[test]
fn references_are_read_and_written() {
    for (text, repo, revision, file) in [
        ("org/name", "org/name", "main", None),
        ("org/name@v1.0", "org/name", "v1.0", None),
        ("org/name@refs/pr/1", "org/name", "refs/pr/1", None),
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B", "main", None),
        ("org/name:a/b c.gguf", "org/name", "main", Some("a/b c.gguf")),
        ("org/name@dev:x.Q4_1.gguf", "org/name", "dev", Some("x.Q4_1.gguf")),
    ] {
        let reference: Reference = text.parse().unwrap();
        assert_eq!((reference.repo.as_str(), reference.revision.as_str()), (repo, revision));
        assert_eq!(reference.file.as_deref(), file);
        assert_eq!(reference.to_string(), text);
    }
}

#[test]
fn what_is_no_reference_is_told_why() {
    for (text, why) in [
        ("", "exactly one '/'"),
        ("gpt2", "exactly one '/', and \"gpt2\" has 0"),
        ("a/b/c", "exactly one '/', and \"a/b/c\" has 2"),
        ("/absolute", "\"\" must have 1 to 96 characters"),
        ("./model", "\".\" begins or ends with"),
        ("../model", "\"..\" begins or ends with"),
        ("~/model", "\"~\" holds '~'"),
        ("org/na me", "holds ' '"),
        ("org/näme", "holds 'ä'"),
        ("org\\x/name", "holds '\\\\'"),
        ("org/-name", "begins or ends with '-' or '.'"),
        ("org/a..b", "holds \"--\" or \"..\""),
        ("org/name@", "the revision \"\" must have 1"),
        ("org/name@a/../b", "the revision \"a/../b\" holds \"..\""),
        ("org/name@/etc", "the revision \"/etc\" is absolute"),
        ("org/name@a b", "holds ' ', which no branch"),
        ("org/name@a@b", "holds '@', which no branch"),
        ("org/name:", "the file \"\" must have 1"),
        ("org/name:../x", "the file \"../x\" holds \"..\""),
        ("org/name:/x", "the file \"/x\" is absolute"),
        ("org/name:C:/x", "the file \"C:/x\" is absolute"),
        ("org/name:a\\b", "the file \"a\\\\b\" holds a backslash"),
    ] {
        assert_says(text.parse::<Reference>(), &[&format!("{text:?} is no reference to the hub"), why]);
        assert!(!looks_like_reference(text), "{text}");
    }
}

#[test]
fn a_local_path_goes_before_a_reference() {
    // Tests run in the crate's folder.
    assert!("tests/it".parse::<Reference>().is_ok());
    assert!(!looks_like_reference("tests/it"));
    assert!(looks_like_reference("tests/that-is-not-there"));
    assert!(looks_like_reference("tests/that-is-not-there@v1:x.gguf"));
}
