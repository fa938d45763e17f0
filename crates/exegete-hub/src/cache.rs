//! The cache directory, in the layout of the Python library.
//!
//! `models--org--name/blobs/CHECKSUM` holds contents, `refs/REVISION` the commit of a branch or tag, and
//! `snapshots/COMMIT/FILE` links to a blob. `.locks/models--org--name/CHECKSUM.lock` is locked while a blob is written.

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::error::{HubError, Result};
use crate::event::{DownloadEvent, Events};
use crate::names::is_commit;

const LOCK_POLL: Duration = Duration::from_millis(100);

/// The part of the cache that belongs to one repository.
#[derive(Debug, Clone)]
pub(crate) struct RepoCache {
    root: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    /// `repo` is `org/name` and was checked.
    pub(crate) fn new(cache: &Path, repo: &str) -> Self {
        let folder = format!("models--{}", repo.replace('/', "--"));
        Self { root: cache.join(&folder), locks: cache.join(".locks").join(folder) }
    }

    /// The commit that a revision had when it was last resolved.
    pub(crate) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let text = fs::read_to_string(self.root.join("refs").join(revision)).ok()?;
        Some(text.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    /// Remembers the commit of a branch or tag.
    pub(crate) fn remember(&self, revision: &str, commit: &str) -> Result<()> {
        if revision == commit || self.commit_of(revision).as_deref() == Some(commit) {
            return Ok(());
        }
        let path = self.root.join("refs").join(revision);
        let temporary = beside(&path);
        make_parent(&path)?;
        fs::write(&temporary, commit).map_err(HubError::io("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(HubError::io("write", &path))
    }

    pub(crate) fn snapshot(&self, commit: &str) -> PathBuf {
        self.root.join("snapshots").join(commit)
    }

    /// A file of a snapshot, if it is there with its content.
    pub(crate) fn cached(&self, commit: &str, file: &str) -> Option<PathBuf> {
        Some(self.snapshot(commit).join(file)).filter(|path| path.is_file())
    }

    /// The files of a snapshot that are there with their content.
    pub(crate) fn files(&self, commit: &str) -> BTreeSet<String> {
        let root = self.snapshot(commit);
        let (mut found, mut left) = (BTreeSet::new(), vec![root.clone()]);
        while let Some(folder) = left.pop() {
            for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
                match path.strip_prefix(&root).ok().and_then(Path::to_str) {
                    // A link to a folder is none of ours.
                    Some(_) if path.is_dir() && !path.is_symlink() => left.push(path),
                    Some(name) if path.is_file() => drop(found.insert(name.replace('\\', "/"))),
                    _ => {}
                }
            }
        }
        found
    }

    pub(crate) fn blob(&self, name: &str) -> PathBuf {
        self.root.join("blobs").join(name)
    }

    /// What has arrived of a blob.
    pub(crate) fn partial(&self, name: &str) -> PathBuf {
        self.root.join("blobs").join(format!("{name}.incomplete"))
    }

    /// Puts a blob into a snapshot under the file's name.
    pub(crate) fn link(&self, commit: &str, file: &str, blob_name: &str) -> Result<PathBuf> {
        let pointer = self.snapshot(commit).join(file);
        if pointer.is_file() {
            return Ok(pointer);
        }
        make_parent(&pointer)?;
        let up = "../".repeat(2 + file.split('/').count() - 1);
        let temporary = beside(&pointer);
        let linked = link(&format!("{up}blobs/{blob_name}"), &self.blob(blob_name), &temporary);
        linked.and_then(|()| fs::rename(&temporary, &pointer)).map_err(HubError::io("link", &pointer))?;
        Ok(pointer)
    }

    /// Waits until no other process writes this blob. The lock ends with the returned file.
    pub(crate) fn lock(&self, blob_name: &str, shown: &str, events: Events<'_>) -> Result<File> {
        let path = self.locks.join(format!("{blob_name}.lock"));
        make_parent(&path)?;
        let file =
            File::options().create(true).append(true).open(&path).map_err(HubError::io("open the lock", &path))?;
        let mut told = false;
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                // A file system without locks: the checksum still tells if two processes wrote into each other.
                Err(TryLockError::Error(e)) if e.kind() == io::ErrorKind::Unsupported => return Ok(file),
                Err(TryLockError::Error(e)) => return Err(HubError::io("lock", &path)(e)),
                Err(TryLockError::WouldBlock) if !told => {
                    let reason = format!("{shown}: another process downloads it (lock {})", path.display());
                    events(DownloadEvent::Waiting { reason: &reason, pause: None });
                    told = true;
                }
                Err(TryLockError::WouldBlock) => thread::sleep(LOCK_POLL),
            }
        }
    }
}

/// Makes the folder that a file lies in.
pub(crate) fn make_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::io("create directory", parent))
}

/// A name that no other process and no other thread uses.
fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".tmp-{}-{:?}", std::process::id(), thread::current().id()).replace(['(', ')'], ""));
    path.with_file_name(name)
}

#[cfg(unix)]
fn link(target: &str, _blob: &Path, at: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, at)
}

/// Symbolic links need rights that few users have elsewhere; a second name of the same file does not.
#[cfg(not(unix))]
fn link(_target: &str, blob: &Path, at: &Path) -> io::Result<()> {
    fs::hard_link(blob, at).or_else(|_| fs::copy(blob, at).map(|_| ()))
}
