//! `cargo xtask tidy`: checks of the tree that no compiler makes.

use std::path::Path;

use anyhow::{Result, bail};

use crate::golden;
use crate::shell::{command, output, root};

const LONG_FILE: usize = 600;
const TOO_LONG_FILE: usize = 1000;

// Put together here, so that this file does not contain what it looks for.
const MACHINE_PATHS: [&str; 2] = [concat!("/wo", "rk/"), concat!("/ro", "ot/")];
const IGNORED_TEST: &str = concat!("#[ign", "ore");
const UNDONE: &str = concat!("TO", "DO");

/// Checks every file that git tracks or would add.
pub(crate) fn run() -> Result<()> {
    let mut faults = Vec::new();
    let files = output(&mut command("git", &["ls-files", "--cached", "--others", "--exclude-standard", "-z"]))?;
    for name in files.split_terminator('\0') {
        // A file that is not text, or that was removed and not yet committed, has nothing to check.
        let Ok(text) = std::fs::read_to_string(root().join(name)) else { continue };
        faults.extend(check_text(name, &text));
    }
    for case in golden::cases()? {
        if !root().join(format!("refs/{case}/versions.json")).is_file() {
            faults.push(format!("refs/{case}: no versions.json; run cargo xtask golden {case}"));
        }
    }
    for fault in &faults {
        eprintln!("tidy: {fault}");
    }
    if !faults.is_empty() {
        bail!("tidy: {} faults", faults.len());
    }
    Ok(())
}

fn check_text(name: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let is_rust = Path::new(name).extension().is_some_and(|e| e == "rs");
    let n_lines = text.lines().count();
    if is_rust && n_lines > TOO_LONG_FILE {
        faults.push(format!("{name}: {n_lines} lines, at most {TOO_LONG_FILE}; split it by subject"));
    } else if is_rust && n_lines > LONG_FILE {
        eprintln!("tidy: warning: {name}: {n_lines} lines, more than {LONG_FILE}");
    }
    for (number, line) in text.lines().enumerate() {
        let mut fault = |what: &str| faults.push(format!("{name}:{}: {what}", number + 1));
        if is_rust && line.contains(IGNORED_TEST) {
            fault("an ignored test; use testkit's not_run instead");
        }
        if MACHINE_PATHS.iter().any(|path| names_path(line, path)) {
            fault("a path of one machine");
        }
        if has_unowned_task(line) {
            fault(&format!("a task without an owner: write {UNDONE}(name)"));
        }
    }
    faults
}

/// Whether `path` begins in `line`, and is not the middle of a longer path or address.
fn names_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "/._-~$}".contains(c))
    })
}

/// Whether the word for undone work stands alone in `line` without a name in brackets after it.
fn has_unowned_task(line: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(UNDONE).any(|(at, _)| {
        let after = &line[at + UNDONE.len()..];
        !line[..at].ends_with(in_word) && !after.starts_with(in_word) && !after.starts_with('(')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str, expected: usize) {
        let faults = check_text(name, text);
        assert_eq!(faults.len(), expected, "{faults:?}");
    }

    #[test]
    fn faults_are_found() {
        check("a.rs", "fn main() {}\n", 0);
        check("a.rs", &"\n".repeat(TOO_LONG_FILE + 1), 1);
        check("a.rs", &format!("{IGNORED_TEST}]\n"), 1);
        check("a.md", &format!("see {}x and `{}y`", MACHINE_PATHS[0], MACHINE_PATHS[1]), 1);
        check("a.md", &format!("https://example.org{}x", MACHINE_PATHS[0]), 0);
        check("a.rs", &format!("// {UNDONE}: later\n// {UNDONE}(ann): later\n"), 1);
    }
}
