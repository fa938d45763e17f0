//! The checksum that an etag promises.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What an etag promises of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Checksum {
    kind: Kind,
    /// Lower-case hexadecimal: also the name of the blob in the cache.
    hex: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// A large file: SHA-256 of its content.
    Sha256,
    /// A small file: git's hash of a blob, SHA-1 over a header with the length, and the content.
    GitBlob,
}

impl Checksum {
    /// Reads an `ETag` or `X-Linked-Etag` header.
    pub(crate) fn from_etag(etag: &str) -> Option<Self> {
        let hex = etag.trim().trim_start_matches("W/").trim_matches('"');
        let kind = match hex.len() {
            64 => Kind::Sha256,
            40 => Kind::GitBlob,
            _ => return None,
        };
        hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')).then(|| Self { kind, hex: hex.to_owned() })
    }

    /// The name of a blob of this content in the cache.
    pub(crate) fn blob_name(&self) -> &str {
        &self.hex
    }

    /// Its name in a message.
    pub(crate) fn kind_name(&self) -> &'static str {
        match self.kind {
            Kind::Sha256 => "SHA-256",
            Kind::GitBlob => "git blob SHA-1",
        }
    }

    /// Begins to hash a file of `size` bytes.
    pub(crate) fn hasher(&self, size: u64) -> Hasher {
        match self.kind {
            Kind::Sha256 => Hasher::Sha256(Sha256::new()),
            Kind::GitBlob => Hasher::GitBlob(Sha1::new_with_prefix(format!("blob {size}\0"))),
        }
    }
}

/// A checksum under way.
pub(crate) enum Hasher {
    Sha256(Sha256),
    GitBlob(Sha1),
}

impl Hasher {
    pub(crate) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(data),
            Self::GitBlob(hash) => hash.update(data),
        }
    }

    /// Lower-case hexadecimal.
    pub(crate) fn finish(self) -> String {
        match self {
            Self::Sha256(hash) => format!("{:x}", hash.finalize()),
            Self::GitBlob(hash) => format!("{:x}", hash.finalize()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_agree_with_git_and_sha256sum() {
        let sha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
        let git = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0";
        for (etag, hex) in [(format!("\"{sha256}\""), sha256), (format!("W/\"{git}\""), git)] {
            let checksum = Checksum::from_etag(&etag).unwrap();
            let mut hasher = checksum.hasher(5);
            hasher.update(b"he");
            hasher.update(b"llo");
            assert_eq!((checksum.blob_name(), hasher.finish().as_str()), (hex, hex));
        }
    }

    #[test]
    fn an_etag_that_is_no_checksum_is_none() {
        for etag in ["", "\"\"", "\"abc\"", "../../etc/passwd", &"G".repeat(40), &"A".repeat(64), &"é".repeat(20)] {
            assert_eq!(Checksum::from_etag(etag), None, "{etag:?}");
        }
    }
}
