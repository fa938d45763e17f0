//! The one way to write a file: beside its place under a temporary name, flushed to the disk, then renamed.
//!
//! A reader therefore sees the old file or the whole new one, whenever the writer dies.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::error::{Result, StoreError};
use crate::killpoint::killpoint;

/// What stands between a file's name and the writer's process id while the file is unfinished.
const TEMPORARY_MARK: &str = ".tmp-";
const BUFFER_BYTES: usize = 1 << 18;

/// What [`write_atomic`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Length of the file.
    pub bytes: u64,
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
}

/// The sink handed to the closure of [`write_atomic`]: counts and hashes what passes.
pub struct AtomicWriter {
    sink: Box<dyn Write + Send>,
    hash: Sha256,
    bytes: u64,
    out_of_space: bool,
}

/// Writes `path` through `write`, all or nothing; missing parent directories are made.
///
/// # Errors
/// [`StoreError::DiskFull`] if no room is left, [`StoreError::Io`] for everything else; the temporary is removed.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut AtomicWriter) -> io::Result<()>) -> Result<Written> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(StoreError::io("create directory", parent))?;
    let temporary = Temporary::beside(path);
    let file = File::create(&temporary.0).map_err(|e| failure(path, e, 0, false))?;
    let to_sync = file.try_clone().map_err(StoreError::io("write", path))?;
    let written = stream(path, Box::new(BufWriter::with_capacity(BUFFER_BYTES, file)), write)?;
    to_sync.sync_all().map_err(|e| failure(path, e, written.bytes, false))?;
    drop(to_sync);
    killpoint("rename.before");
    fs::rename(&temporary.0, path).map_err(|e| failure(path, e, written.bytes, false))?;
    sync_directory(parent)?;
    killpoint("rename.after");
    Ok(written)
}

/// Removes what dead writers left unfinished under `dir`, and returns how many files that were.
///
/// Call it before writing begins: a temporary that carries our own process id is then a leftover too, since process
/// ids come round again (in a container nearly always the same).
///
/// # Errors
/// [`StoreError::Io`] if the directory cannot be read or a file not removed.
pub fn clean_temporaries(dir: &Path) -> Result<usize> {
    let mut removed = 0;
    for entry in fs::read_dir(dir).map_err(StoreError::io("list", dir))? {
        let entry = entry.map_err(StoreError::io("list", dir))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(StoreError::io("inspect", &path))?;
        if kind.is_dir() {
            removed += clean_temporaries(&path)?;
        } else if writer_of(&path).is_some_and(|pid| pid == std::process::id() || !is_alive(pid)) {
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether a path is the temporary of an unfinished file.
pub fn is_temporary(path: &Path) -> bool {
    writer_of(path).is_some()
}

fn writer_of(path: &Path) -> Option<u32> {
    path.file_name()?.to_str()?.rsplit_once(TEMPORARY_MARK)?.1.parse().ok()
}

#[cfg(unix)]
fn is_alive(pid: u32) -> bool {
    let Ok(pid) = libc::pid_t::try_from(pid) else { return false };
    // SAFETY: signal 0 only asks whether the process exists.
    let answer = unsafe { libc::kill(pid, 0) };
    answer == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH)
}

#[cfg(not(unix))]
fn is_alive(_pid: u32) -> bool {
    // Without a portable question, a leftover of another process is kept: it does no harm.
    true
}

/// Runs `write` into `sink` and tells a full disk from other failures, however the closure wraps them.
fn stream(
    path: &Path,
    sink: Box<dyn Write + Send>,
    write: impl FnOnce(&mut AtomicWriter) -> io::Result<()>,
) -> Result<Written> {
    let mut writer = AtomicWriter { sink, hash: Sha256::new(), bytes: 0, out_of_space: false };
    let outcome = write(&mut writer).and_then(|()| writer.flush());
    outcome.map_err(|e| failure(path, e, writer.bytes, writer.out_of_space))?;
    Ok(Written { bytes: writer.bytes, sha256: hex(&writer.hash.finalize()) })
}

fn failure(path: &Path, source: io::Error, written: u64, out_of_space: bool) -> StoreError {
    if out_of_space || means_full(&source) {
        return StoreError::DiskFull { path: path.to_owned(), written };
    }
    StoreError::Io { action: "write", path: path.to_owned(), source }
}

fn means_full(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// Makes the rename itself outlive a power cut. Some file systems refuse to sync a directory; that is no failure.
fn sync_directory(dir: &Path) -> Result<()> {
    #[cfg(unix)]
    {
        let handle = File::open(dir).map_err(StoreError::io("open", dir))?;
        match handle.sync_all() {
            Err(e) if e.kind() != io::ErrorKind::InvalidInput => return Err(StoreError::io("sync", dir)(e)),
            _ => {}
        }
    }
    Ok(())
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

impl Write for AtomicWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let n = self.sink.write(data).inspect_err(|e| self.out_of_space |= means_full(e))?;
        self.hash.update(&data[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush().inspect_err(|e| self.out_of_space |= means_full(e))
    }
}

/// A temporary file that goes away unless it was renamed.
struct Temporary(PathBuf);

impl Temporary {
    fn beside(path: &Path) -> Self {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(format!("{TEMPORARY_MARK}{}", std::process::id()));
        Self(path.with_file_name(name))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a successful rename there is nothing to remove.
        let _ = fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Full(usize);

    impl Write for Full {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            if self.0 < data.len() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0 -= data.len();
            Ok(data.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_named_even_if_the_closure_hides_it() {
        let hide = |w: &mut AtomicWriter| {
            w.write_all(b"12345678")?;
            w.write_all(b"12345678").map_err(|_| io::Error::other("the encoder failed"))
        };
        let error = stream(Path::new("x/part"), Box::new(Full(10)), hide).unwrap_err();
        assert!(matches!(error, StoreError::DiskFull { written: 8, .. }), "{error}");
        assert!(error.to_string().contains("disk is full") && error.to_string().contains("x/part"));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_temporary() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/file");
        write_atomic(&path, |w| w.write_all(b"old")).unwrap();
        let failed = write_atomic(&path, |w| {
            w.write_all(b"new")?;
            Err(io::Error::other("no"))
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn checksums_are_sha256_and_leftovers_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        let written = write_atomic(&dir.path().join("a"), |w| w.write_all(b"abc")).unwrap();
        assert_eq!(written.sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        fs::write(dir.path().join(format!("b.tmp-{}", u32::MAX)), b"half").unwrap();
        fs::write(dir.path().join("c.tmp-1"), b"of a living process").unwrap();
        fs::write(dir.path().join("notes.tmp-x"), b"a user's own").unwrap();
        assert_eq!(clean_temporaries(dir.path()).unwrap(), 1);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
