//! One blob: downloaded into a partial file, continued where it was cut, verified, and only then given its name.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use ureq::http::StatusCode;

use crate::cache::{RepoCache, make_parent};
use crate::checksum::Hasher;
use crate::client::{Answer, Client, FileFacts, Subject};
use crate::error::{HubError, Result};
use crate::event::{DownloadEvent, Events};
use crate::retry::{Passing, Patience, Trouble};

const BUFFER_BYTES: usize = 1 << 18;

/// Sees to it that the blob of a file is in the cache.
pub(crate) fn fetch_blob(
    client: &Client,
    cache: &RepoCache,
    subject: Subject<'_>,
    facts: &FileFacts,
    events: Events<'_>,
) -> Result<()> {
    let name = facts.checksum.blob_name();
    let blob = cache.blob(name);
    if blob.is_file() {
        return Ok(());
    }
    let shown = subject.shown();
    let _lock = cache.lock(name, &shown, events)?;
    // Whoever held the lock may have finished it.
    if blob.is_file() {
        return Ok(());
    }
    let mut download = Download::open(client, subject, &shown, facts, cache.partial(name))?;
    let had_leftover = download.done > 0;
    let host = download.run(events)?;
    let mut verified = download.verify(&host);
    if verified.is_err() && had_leftover {
        // The leftover may be from a machine that lost power, or not ours at all.
        download.restart()?;
        let host = download.run(events)?;
        verified = download.verify(&host);
    }
    if let Err(error) = verified {
        fs::remove_file(&download.path).map_err(HubError::io("remove", &download.path))?;
        return Err(error);
    }
    download.file.sync_all().map_err(|e| download.failure(e))?;
    fs::rename(&download.path, &blob).map_err(HubError::io("write", &blob))
}

/// A download under way.
struct Download<'a> {
    client: &'a Client,
    subject: Subject<'a>,
    shown: &'a str,
    facts: &'a FileFacts,
    /// The partial file.
    path: PathBuf,
    file: File,
    /// Bytes in it that `hasher` has seen.
    done: u64,
    hasher: Hasher,
}

impl<'a> Download<'a> {
    /// Opens the partial file and hashes what an earlier run left in it.
    fn open(
        client: &'a Client,
        subject: Subject<'a>,
        shown: &'a str,
        facts: &'a FileFacts,
        path: PathBuf,
    ) -> Result<Self> {
        make_parent(&path)?;
        let open = File::options().create(true).truncate(false).read(true).write(true).open(&path);
        let file = open.map_err(HubError::io("open", &path))?;
        let length = file.metadata().map_err(HubError::io("inspect", &path))?.len();
        let hasher = facts.checksum.hasher(facts.size);
        let mut download = Self { client, subject, shown, facts, path, file, done: 0, hasher };
        if length > facts.size {
            download.restart()?;
        } else if length > 0 {
            let mut buffer = vec![0; BUFFER_BYTES];
            loop {
                let n = download.file.read(&mut buffer).map_err(HubError::io("read", &download.path))?;
                if n == 0 {
                    break;
                }
                download.hasher.update(&buffer[..n]);
                download.done += n as u64;
            }
        }
        Ok(download)
    }

    /// Asks for the rest until it is there. Returns the host that sent the end of it.
    fn run(&mut self, events: Events<'_>) -> Result<String> {
        let mut patience = Patience::new(self.client.settings(), self.shown);
        let mut furthest = self.done;
        let mut host = String::from("an earlier run");
        self.tell(events);
        while self.done < self.facts.size {
            let outcome = self.client.content(self.subject, &self.facts.commit, self.done).and_then(|answer| {
                host.clone_from(&answer.host);
                self.take(answer, events)
            });
            // A server that ignores ranges begins again each time; only new ground counts.
            if self.done > furthest {
                furthest = self.done;
                patience.restore();
            }
            if let Err(trouble) = outcome {
                patience.endure(trouble, events)?;
            }
        }
        Ok(host)
    }

    /// Writes the body of one answer.
    fn take(&mut self, answer: Answer, events: Events<'_>) -> Result<(), Trouble> {
        let host = answer.host.clone();
        if let Some(total) = total_length(&answer).filter(|total| *total != self.facts.size) {
            return Err(self.wrong_length(&host, format!("{total} bytes"))?.into());
        }
        let begins = match answer.response.status() {
            StatusCode::OK => Some(0),
            StatusCode::PARTIAL_CONTENT => answer.header("content-range").and_then(range_start),
            _ => None,
        };
        if begins != Some(self.done) {
            self.restart()?;
            if begins != Some(0) {
                let detail = "it sends another part of the file than was asked for";
                return Err(Trouble::Passing(Passing::new(host, detail)));
            }
        }
        let mut body = answer.response.into_body().into_reader();
        let mut buffer = vec![0; BUFFER_BYTES];
        loop {
            let n = match body.read(&mut buffer) {
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(Trouble::Passing(Passing::new(host, format!("the connection broke ({e})")))),
            };
            if n == 0 {
                break;
            }
            if n as u64 > self.facts.size - self.done {
                return Err(self.wrong_length(&host, format!("of more than {} bytes", self.facts.size))?.into());
            }
            self.write(&buffer[..n])?;
            self.tell(events);
        }
        if self.done < self.facts.size {
            return Err(Trouble::Passing(Passing::new(host, "the connection ended before the file")));
        }
        Ok(())
    }

    fn write(&mut self, data: &[u8]) -> Result<()> {
        self.file.write_all(data).map_err(|e| self.failure(e))?;
        self.hasher.update(data);
        self.done += data.len() as u64;
        Ok(())
    }

    /// Forgets everything that has arrived.
    fn restart(&mut self) -> Result<()> {
        let cleared = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
        cleared.map_err(HubError::io("empty", &self.path))?;
        self.hasher = self.facts.checksum.hasher(self.facts.size);
        self.done = 0;
        Ok(())
    }

    /// Compares length and checksum with the promise.
    fn verify(&mut self, host: &str) -> Result<()> {
        let fresh = self.facts.checksum.hasher(self.facts.size);
        let found = std::mem::replace(&mut self.hasher, fresh).finish();
        let promised = self.facts.checksum.blob_name();
        if found == promised {
            return Ok(());
        }
        Err(self.corrupt(host, self.facts.checksum.kind_name(), found, promised.to_owned()))
    }

    /// Removes what has arrived of a file of another length, and gives the error.
    fn wrong_length(&self, host: &str, found: String) -> Result<HubError> {
        fs::remove_file(&self.path).map_err(HubError::io("remove", &self.path))?;
        Ok(self.corrupt(host, "length", found, format!("{} bytes", self.facts.size)))
    }

    fn tell(&self, events: Events<'_>) {
        let file = self.subject.file.unwrap_or_default();
        events(DownloadEvent::Progress { file, done: self.done, total: self.facts.size });
    }

    fn corrupt(&self, host: &str, what: &'static str, found: String, promised: String) -> HubError {
        HubError::Corrupt { file: self.shown.to_owned(), host: host.to_owned(), what, found, promised }
    }

    fn failure(&self, source: io::Error) -> HubError {
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if !full {
            return HubError::io("write", &self.path)(source);
        }
        let done = on_disk(&self.path).unwrap_or(self.done);
        HubError::DiskFull { file: self.shown.to_owned(), path: self.path.clone(), done, total: self.facts.size }
    }
}

fn on_disk(path: &Path) -> Option<u64> {
    fs::metadata(path).ok().map(|metadata| metadata.len())
}

/// How long the whole file is that an answer sends, or sends a part of.
fn total_length(answer: &Answer) -> Option<u64> {
    let text = match answer.response.status() {
        StatusCode::OK => answer.header("content-length"),
        StatusCode::PARTIAL_CONTENT => answer.header("content-range").and_then(|range| range.rsplit('/').next()),
        _ => None,
    };
    text?.trim().parse().ok()
}

/// The first byte of `bytes 10-19/20`.
fn range_start(text: &str) -> Option<u64> {
    text.trim().strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
