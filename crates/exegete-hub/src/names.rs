//! Names that come from outside, checked before they become a path or part of an address.

/// Longest path of a file in a repository.
const LONGEST_PATH: usize = 1024;
const LONGEST_PART: usize = 96;

/// Says what is wrong with `org/name`, the hub's rule: two parts of letters, digits, `-`, `_` and `.`, that neither
/// begin nor end with `-` or `.` and hold no `--` or `..`.
pub(crate) fn check_repo(repo: &str) -> Result<(), String> {
    let parts: Vec<&str> = repo.split('/').collect();
    if parts.len() != 2 {
        return Err(format!("a repository is org/name with exactly one '/', and {repo:?} has {}", parts.len() - 1));
    }
    for part in parts {
        if part.is_empty() || part.len() > LONGEST_PART {
            return Err(format!("{part:?} must have 1 to {LONGEST_PART} characters"));
        }
        if let Some(c) = part.chars().find(|c| !c.is_ascii_alphanumeric() && !"-_.".contains(*c)) {
            return Err(format!("{part:?} holds {c:?}; only letters, digits, '-', '_' and '.' can stand there"));
        }
        if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) || part.contains("--") || part.contains("..") {
            return Err(format!("{part:?} begins or ends with '-' or '.', or holds \"--\" or \"..\""));
        }
    }
    Ok(())
}

/// Says what is wrong with a branch, a tag or a commit: it becomes a path below `refs`.
pub(crate) fn check_revision(revision: &str) -> Result<(), String> {
    check_path(revision).map_err(|detail| format!("the revision {revision:?} {detail}"))?;
    match revision.chars().find(|c| c.is_whitespace() || "~^:?*[@".contains(*c)) {
        Some(c) => Err(format!("the revision {revision:?} holds {c:?}, which no branch, tag or commit can")),
        None => Ok(()),
    }
}

/// Says what is wrong with the path of a file in a repository: it becomes a path below the cache.
pub(crate) fn check_path(path: &str) -> Result<(), String> {
    let bad = |detail: &str| Err(detail.to_owned());
    if path.is_empty() || path.len() > LONGEST_PATH {
        return Err(format!("must have 1 to {LONGEST_PATH} bytes"));
    }
    if path.contains('\\') {
        return bad("holds a backslash");
    }
    if path.contains(char::is_control) {
        return bad("holds a control character");
    }
    if path.starts_with('/') || matches!(path.as_bytes(), [drive, b':', ..] if drive.is_ascii_alphabetic()) {
        return bad("is absolute");
    }
    if path.split('/').any(|part| part == "..") {
        return bad("holds \"..\"");
    }
    if path.split('/').any(|part| part.is_empty() || part == ".") {
        return bad("holds an empty part or \".\"");
    }
    Ok(())
}

/// Whether `text` is a full commit hash (of SHA-1, or of SHA-256 repositories).
pub(crate) fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_their_folder_are_refused() {
        for bad in
            ["", "/etc/passwd", "..", "a/../b", "a/..", "a\\b", "C:/x", "c:x", "a//b", "./a", "a/", "a\0", "a\nb"]
        {
            assert!(check_path(bad).is_err(), "{bad:?}");
        }
        for good in ["config.json", "a/b/c.gguf", "..a", "a..b", ".gitattributes", "ä b.txt", "ab:c"] {
            assert_eq!(check_path(good), Ok(()), "{good:?}");
        }
        assert!(check_path(&"x".repeat(1025)).is_err());
    }

    #[test]
    fn commits_are_lower_case_hexadecimal() {
        assert!(is_commit(&"0a".repeat(20)) && is_commit(&"0a".repeat(32)));
        assert!(!is_commit(&"0A".repeat(20)) && !is_commit("main") && !is_commit(&"0a".repeat(21)));
    }
}
