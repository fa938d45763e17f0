//! Directories that a study fills: whole, or not there at all.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// Makes the directory `out` through `f`, all or nothing: `f` fills a temporary directory beside it, which is renamed
/// when `f` succeeds and removed when it fails.
///
/// # Errors
/// If `out` is there and is not an empty directory, if it cannot be made, and what `f` says.
pub(crate) fn write(out: &Path, f: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    check(out)?;
    let name = out.file_name().with_context(|| format!("--out {}: this is no name for a directory", out.display()))?;
    let parent = out.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(parent).with_context(|| format!("--out {}: cannot make its parent", out.display()))?;
    let temporary = Temporary(parent.join(format!(".{}.tmp-{}", name.to_string_lossy(), std::process::id())));
    // What a dead process of the same number left behind is nobody's.
    let _ = std::fs::remove_dir_all(&temporary.0);
    std::fs::create_dir(&temporary.0).with_context(|| format!("cannot make {}", temporary.0.display()))?;
    f(&temporary.0)?;
    if out.exists() {
        std::fs::remove_dir(out).with_context(|| format!("--out {}: it is not empty any more", out.display()))?;
    }
    std::fs::rename(&temporary.0, out).with_context(|| format!("cannot rename a directory to {}", out.display()))
}

/// Fails unless `out` is absent or an empty directory.
fn check(out: &Path) -> Result<()> {
    match std::fs::read_dir(out) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                bail!("--out {}: the directory is not empty; name another one", out.display());
            }
            Ok(())
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("--out {}: not a directory that can be read", out.display())),
    }
}

/// A directory that is removed at the end unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::write;

    #[test]
    fn a_directory_is_made_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("deep/out");
        let fill = |at: &std::path::Path| Ok(std::fs::write(at.join("a"), "1")?);
        assert!(write(&out, |at| fill(at).and_then(|()| anyhow::bail!("stopped"))).is_err());
        assert_eq!(std::fs::read_dir(dir.path().join("deep")).unwrap().count(), 0);
        write(&out, fill).unwrap();
        assert!(out.join("a").is_file());
        let error = write(&out, fill).unwrap_err().to_string();
        assert!(error.contains("--out") && error.contains("not empty"), "{error}");
        let file = out.join("a");
        assert!(write(&file, fill).is_err() && file.is_file());
    }
}
