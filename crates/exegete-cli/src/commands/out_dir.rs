//! A directory that is written: all of it or nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// An error unless a directory can be made at `out`: it must not exist, or be empty.
pub(crate) fn check(out: &Path) -> Result<()> {
    let named = || format!("--out {}", out.display());
    if out.file_name().is_none() {
        bail!("{}: give the directory a name", named());
    }
    match fs::read_dir(out) {
        Ok(mut entries) => match entries.next() {
            Some(_) => bail!("{} is not empty; name a directory that does not exist", named()),
            None => Ok(()),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(e).with_context(named),
    }
}

/// Makes the directory `out`: `f` fills a temporary directory beside it, which is renamed when `f` succeeds and removed
/// when it fails.
///
/// # Errors
/// [`check`]'s, those of `f`, and those of the file system.
pub(crate) fn write(out: &Path, f: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    check(out)?;
    let named = || format!("--out {}", out.display());
    let temporary = Temporary::beside(out).with_context(named)?;
    f(&temporary.0)?;
    if out.exists() {
        // It is empty, and not every system renames onto an empty directory.
        fs::remove_dir(out).with_context(named)?;
    }
    fs::rename(&temporary.0, out).with_context(named)
}

/// A directory that goes away unless it was renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(out: &Path) -> std::io::Result<Self> {
        let mut name = out.file_name().unwrap_or_default().to_owned();
        name.push(format!(".tmp-{}", std::process::id()));
        let path = out.with_file_name(name);
        if path.exists() {
            // Process ids come round again: what a dead writer left under ours is nobody's.
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a successful rename there is nothing to remove.
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn a_study_is_there_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let failed = write(&out, |into| {
            fs::write(into.join("half"), b"half")?;
            bail!("no")
        });
        assert!(failed.is_err() && names(dir.path()).is_empty());
        let fill = |into: &Path| Ok(fs::write(into.join("whole"), b"whole")?);
        // An empty directory is taken, one that is not is left as it is.
        fs::create_dir(&out).unwrap();
        write(&out, fill).unwrap();
        assert_eq!((names(dir.path()), names(&out)), (vec!["out".into()], vec!["whole".into()]));
        let refused = write(&out, fill).unwrap_err().to_string();
        assert!(refused.contains("--out") && refused.contains("not empty"), "{refused}");
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        assert!(write(&file, fill).is_err() && fs::read(&file).unwrap().is_empty());
        write(&dir.path().join("deep/er"), fill).unwrap();
        assert!(check(Path::new("..")).is_err());
    }
}
