//! Ids that travel through files: small numbers with a meaning of their own.

use serde::{Deserialize, Serialize};

/// Index of a latent (feature) of a dictionary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LatentId(pub u32);

/// A document: the place of its source file in the sorted list of files, and its record in that file.
///
/// The id is resolved before any sharding, so that every shard names a document alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DocId(pub u64);

impl DocId {
    /// Bits that hold the record's index; the rest hold the file's index.
    const RECORD_BITS: u32 = 40;

    /// Joins the index of a source file and the index of a record in it.
    pub fn new(source_idx: u32, record_idx: u64) -> Self {
        debug_assert!(record_idx < 1 << Self::RECORD_BITS && source_idx < 1 << 24);
        Self((u64::from(source_idx) << Self::RECORD_BITS) | record_idx)
    }

    /// Index of the source file in the sorted list.
    pub fn source_idx(self) -> u32 {
        (self.0 >> Self::RECORD_BITS) as u32
    }

    /// Index of the record in its file.
    pub fn record_idx(self) -> u64 {
        self.0 & ((1 << Self::RECORD_BITS) - 1)
    }
}
