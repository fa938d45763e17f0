//! A run: a directory with a manifest, finished parts and one writer.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Component, Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::atomic::{AtomicWriter, clean_temporaries, is_temporary, write_atomic};
use crate::corpus::Source;
use crate::error::{Result, StoreError};
use crate::killpoint::killpoint;

/// Version of the run directory's layout.
pub const RUN_FORMAT: u64 = 1;
const MANIFEST: &str = "manifest.json";
const LOCK: &str = "lock";

/// What a run was made from and what of it is finished.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the layout, [`RUN_FORMAT`].
    pub format: u64,
    /// Name and version of the program that made the run.
    pub program: String,
    /// The resolved settings.
    pub settings: Value,
    /// Files that were read, with checksums.
    pub inputs: Vec<Source>,
    /// Finished files by relative path.
    pub parts: BTreeMap<String, Part>,
    /// Finished stages with their summaries.
    pub stages: BTreeMap<String, Value>,
}

/// A finished file of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// SHA-256 of the content, in hexadecimal.
    pub sha256: String,
    /// Length of the file.
    pub bytes: u64,
    /// Number of rows, or of whatever the file counts.
    pub rows: u64,
}

/// An open run: for writing (it then holds the lock until dropped) or for reading.
#[derive(Debug)]
pub struct Run {
    dir: PathBuf,
    manifest: Manifest,
    /// Held open for its lock, which the system releases when the process ends, however it ends.
    lock: Option<File>,
}

impl Run {
    /// Starts a run in `dir`, or goes on with the one there if it has the same program, settings and inputs.
    ///
    /// Leftovers of a killed writer are removed.
    ///
    /// # Errors
    /// [`StoreError::OtherSettings`] lists every key that differs, [`StoreError::OtherCommand`] names them where another command made
    /// the run; [`StoreError::Locked`] if another process writes
    /// here; [`StoreError::NotARun`] if the directory holds something else.
    pub fn create_or_resume(dir: &Path, program: &str, settings: Value, inputs: &[Source]) -> Result<Run> {
        if !dir.join(MANIFEST).exists() && holds_foreign_files(dir)? {
            let hint = " and is not empty; give a new or empty directory as --out";
            return Err(StoreError::NotARun { path: dir.to_owned(), hint });
        }
        fs::create_dir_all(dir).map_err(StoreError::io("create directory", dir))?;
        let lock = Some(take_lock(dir)?);
        clean_temporaries(dir)?;
        let fresh = Manifest {
            format: RUN_FORMAT,
            program: program.into(),
            settings,
            inputs: inputs.to_vec(),
            parts: BTreeMap::new(),
            stages: BTreeMap::new(),
        };
        if !dir.join(MANIFEST).exists() {
            let run = Run { dir: dir.to_owned(), manifest: fresh, lock };
            run.write_manifest()?;
            return Ok(run);
        }
        let manifest = read_manifest(dir)?;
        let command = |of: &Manifest| of.settings.get("command").and_then(Value::as_str).map(str::to_owned);
        if let (Some(there), Some(asked)) = (command(&manifest), command(&fresh))
            && there != asked
        {
            let keys = changed_keys(&manifest, &fresh);
            return Err(StoreError::OtherCommand { path: dir.to_owned(), there, asked, keys });
        }
        let differences = differences(&manifest, &fresh);
        if !differences.is_empty() {
            return Err(StoreError::OtherSettings { path: dir.to_owned(), differences });
        }
        Ok(Run { dir: dir.to_owned(), manifest, lock })
    }

    /// Opens a run for reading. Needs no lock, and a run being written may be read.
    ///
    /// # Errors
    /// [`StoreError::NotARun`] without a manifest, [`StoreError::Damaged`] or [`StoreError::Version`] for a bad one.
    pub fn open(dir: &Path) -> Result<Run> {
        Ok(Run { dir: dir.to_owned(), manifest: read_manifest(dir)?, lock: None })
    }

    /// Opens a run to add to it, whatever its settings.
    ///
    /// # Errors
    /// Those of [`Run::open`], and [`StoreError::Locked`] if another process writes here.
    pub fn open_to_write(dir: &Path) -> Result<Run> {
        read_manifest(dir)?;
        let lock = Some(take_lock(dir)?);
        clean_temporaries(dir)?;
        Ok(Run { dir: dir.to_owned(), manifest: read_manifest(dir)?, lock })
    }

    /// The run's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The manifest as it stands.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// When its manifest was last written, which it is with every part and every stage.
    pub fn changed(&self) -> Option<SystemTime> {
        fs::metadata(self.path(MANIFEST)).and_then(|m| m.modified()).ok()
    }

    /// Full path of a file of the run.
    pub fn path(&self, rel: &str) -> PathBuf {
        self.dir.join(rel)
    }

    /// Whether a part is finished: recorded in the manifest, and on disk with the recorded size.
    pub fn part_done(&self, rel: &str) -> bool {
        let on_disk = || fs::metadata(self.path(rel)).map(|m| m.len()).ok();
        self.manifest.parts.get(rel).is_some_and(|part| Some(part.bytes) == on_disk())
    }

    /// Checks the content of a finished part against its checksum.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] where it is another, [`StoreError::Io`] where it cannot be read.
    pub fn verify_part(&self, rel: &str) -> Result<()> {
        let path = self.path(rel);
        let recorded = self.manifest.parts.get(rel).map(|part| part.sha256.as_str());
        match recorded == Some(&Source::of(path.clone())?.sha256) {
            true => Ok(()),
            false => Err(StoreError::damaged(&path, "its content is not what was written; remove it")),
        }
    }

    /// Paths of the finished parts whose names begin with `prefix`, in the order of their names.
    pub fn parts_under(&self, prefix: &str) -> Vec<PathBuf> {
        self.manifest.parts.keys().filter(|rel| rel.starts_with(prefix)).map(|rel| self.path(rel)).collect()
    }

    /// Writes a part whole and then records it. A crash between the two leaves a part that is written again.
    ///
    /// # Errors
    /// Those of [`write_atomic`]; [`StoreError::PartName`] for a name that leaves the run.
    pub fn commit_part(
        &mut self,
        rel: &str,
        rows: u64,
        write: impl FnOnce(&mut AtomicWriter) -> io::Result<()>,
    ) -> Result<()> {
        self.check_writable()?;
        check_name(rel)?;
        let written = write_atomic(&self.path(rel), write)?;
        self.manifest.parts.insert(rel.into(), Part { sha256: written.sha256, bytes: written.bytes, rows });
        self.commit()
    }

    /// Removes a part's file and then forgets it, so that a crash between the two leaves nothing on the disk that no
    /// one knows of. A part that was never recorded is removed too.
    ///
    /// # Errors
    /// [`StoreError::Io`] if the file cannot be removed or the manifest not written.
    pub fn remove_part(&mut self, rel: &str) -> Result<()> {
        self.check_writable()?;
        check_name(rel)?;
        let path = self.path(rel);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(StoreError::io("remove", &path)(e)),
            _ => {}
        }
        match self.manifest.parts.remove(rel) {
            Some(_) => self.commit(),
            None => Ok(()),
        }
    }

    /// Takes back a run that came to nothing: its parts, its manifest and its directory, as far as it is empty then.
    ///
    /// # Errors
    /// [`StoreError::Io`] if a file cannot be removed.
    pub fn discard(mut self) -> Result<()> {
        for rel in self.manifest.parts.keys().cloned().collect::<Vec<_>>() {
            self.remove_part(&rel)?;
            // Fails while other parts are in it, which is as it should be.
            let _ = self.path(&rel).parent().map(fs::remove_dir);
        }
        // What a job told of itself is no part.
        let _ = fs::remove_dir_all(self.path("jobs"));
        for name in [MANIFEST, LOCK] {
            let path = self.path(name);
            fs::remove_file(&path).map_err(StoreError::io("remove", &path))?;
        }
        let _ = fs::remove_dir(&self.dir);
        Ok(())
    }

    /// Records that a stage is finished, with what there is to say about it.
    ///
    /// # Errors
    /// Those of [`write_atomic`].
    pub fn finish_stage(&mut self, name: &str, summary: Value) -> Result<()> {
        self.check_writable()?;
        self.manifest.stages.insert(name.into(), summary);
        self.commit()
    }

    /// The summary of a finished stage.
    pub fn stage(&self, name: &str) -> Option<&Value> {
        self.manifest.stages.get(name)
    }

    fn commit(&self) -> Result<()> {
        killpoint("commit.before");
        self.write_manifest()?;
        killpoint("commit.after");
        Ok(())
    }

    fn write_manifest(&self) -> Result<()> {
        write_atomic(&self.path(MANIFEST), |w| {
            serde_json::to_writer_pretty(&mut *w, &self.manifest)?;
            w.write_all(b"\n")
        })?;
        Ok(())
    }

    fn check_writable(&self) -> Result<()> {
        if self.lock.is_none() { Err(StoreError::ReadOnly { path: self.dir.clone() }) } else { Ok(()) }
    }
}

/// Name of the `idx`-th part of a kind, so that names sort as numbers: `tokens/part-00007.parquet`.
pub fn part_name(kind: &str, idx: usize) -> String {
    format!("{kind}/part-{idx:05}.parquet")
}

fn check_name(rel: &str) -> Result<()> {
    let plain = !rel.is_empty() && Path::new(rel).components().all(|c| matches!(c, Component::Normal(_)));
    if plain { Ok(()) } else { Err(StoreError::PartName { name: rel.into() }) }
}

fn holds_foreign_files(dir: &Path) -> Result<bool> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other.map_err(StoreError::io("list", dir))?,
    };
    for entry in entries {
        let path = entry.map_err(StoreError::io("list", dir))?.path();
        // A writer killed before its first manifest leaves these two behind.
        if !is_temporary(&path) && path.file_name() != Some(LOCK.as_ref()) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Locks a directory for one writer; the system releases the lock when the file is dropped, however the process ends.
///
/// # Errors
/// [`StoreError::Locked`] if another process writes there.
pub fn take_lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            let writer = match pid.trim() {
                "" => "another process".into(),
                pid => format!("process {pid}"),
            };
            return Err(StoreError::Locked { path: dir.to_owned(), writer });
        }
        Err(TryLockError::Error(e)) => return Err(StoreError::io("lock", &path)(e)),
    }
    let write_pid = |file: &mut File| {
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())
    };
    write_pid(&mut file).map_err(StoreError::io("write", &path))?;
    Ok(file)
}

fn read_manifest(dir: &Path) -> Result<Manifest> {
    let path = dir.join(MANIFEST);
    let text = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(StoreError::NotARun { path: dir.to_owned(), hint: "" });
        }
        other => other.map_err(StoreError::io("read", &path))?,
    };
    let value: Value = serde_json::from_slice(&text).map_err(|e| StoreError::damaged(&path, e))?;
    let format = value.get("format").and_then(Value::as_u64).unwrap_or(0);
    if format != RUN_FORMAT {
        return Err(StoreError::Version { path, what: "run format", found: format, expected: RUN_FORMAT });
    }
    serde_json::from_value(value).map_err(|e| StoreError::damaged(&path, e))
}

/// One line a key in which two runs differ, with both values.
fn differences(there: &Manifest, asked: &Manifest) -> Vec<String> {
    let mut lines = Vec::new();
    if there.program != asked.program {
        lines.push(format!("program: was {}, now {}", there.program, asked.program));
    }
    lines.extend(changes(&there.settings, &asked.settings));
    let by_path = |m: &Manifest| -> BTreeMap<String, String> {
        m.inputs.iter().map(|s| (s.path.display().to_string(), s.sha256.clone())).collect()
    };
    let (old, new) = (by_path(there), by_path(asked));
    for path in old.keys().chain(new.keys().filter(|path| !old.contains_key(*path))) {
        match (old.get(path), new.get(path)) {
            (Some(a), Some(b)) if a != b => lines.push(format!("input {path}: its content has changed")),
            (Some(_), None) => lines.push(format!("input {path}: there, not now")),
            (None, Some(_)) => lines.push(format!("input {path}: not there, now")),
            _ => {}
        }
    }
    lines
}

/// Names of the settings in which runs of different commands differ, the inputs among them.
fn changed_keys(there: &Manifest, asked: &Manifest) -> Vec<String> {
    let keys = |of: &Manifest| of.settings.as_object().map_or(BTreeSet::new(), |map| map.keys().cloned().collect());
    let value = |of: &Manifest, key: &str| of.settings.get(key).cloned().unwrap_or_default();
    let is_other = |key: &String| key != "command" && value(there, key) != value(asked, key);
    let mut changed: Vec<String> = keys(there).union(&keys(asked)).filter(|key| is_other(key)).cloned().collect();
    if there.inputs != asked.inputs {
        changed.push("inputs".into());
    }
    changed
}

/// One line a key in which two settings differ, with both values: `train.k: was 32, now 64`.
pub fn changes(there: &Value, asked: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    compare("", Some(there), Some(asked), &mut lines);
    lines
}

fn compare(key: &str, there: Option<&Value>, asked: Option<&Value>, lines: &mut Vec<String>) {
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (there, asked) {
        for name in a.keys().chain(b.keys().filter(|name| !a.contains_key(*name))) {
            let inner = if key.is_empty() { name.clone() } else { format!("{key}.{name}") };
            compare(&inner, a.get(name), b.get(name), lines);
        }
    } else if there != asked {
        let shown = |value: Option<&Value>| value.map_or("(absent)".into(), Value::to_string);
        lines.push(format!("{key}: was {}, now {}", shown(there), shown(asked)));
    }
}
