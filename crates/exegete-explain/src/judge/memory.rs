//! Answers kept on the disk: a request that was answered once is never sent again.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;
use sha2::{Digest, Sha256};

/// A folder of answers, one file each, named by the checksum of what was asked. The key that pays is no part of either.
#[derive(Debug, Clone)]
pub struct Memory {
    dir: PathBuf,
}

impl Memory {
    /// Answers in `dir`, which is made with the first.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn path(&self, address: &str, request: &Value) -> PathBuf {
        let mut hasher = Sha256::new();
        hasher.update(address.as_bytes());
        hasher.update([0]);
        hasher.update(request.to_string().as_bytes());
        let name: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        let (folder, rest) = name.split_at(2);
        self.dir.join(folder).join(format!("{rest}.json"))
    }

    /// What was answered; an answer that is damaged counts as none.
    pub fn recall(&self, address: &str, request: &Value) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.path(address, request)).ok()?).ok()
    }

    /// Keeps an answer, whole or not at all.
    ///
    /// # Errors
    /// The disk's.
    pub fn keep(&self, address: &str, request: &Value, answer: &Value) -> std::io::Result<()> {
        let path = self.path(address, request);
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder)?;
        // Two threads may keep the same answer at once: each writes beside under a name of its own.
        let beside = path.with_extension(format!("{:?}.part", std::thread::current().id()));
        let mut file = fs::File::create(&beside)?;
        file.write_all(answer.to_string().as_bytes())?;
        file.sync_all()?;
        fs::rename(beside, path)
    }
}
