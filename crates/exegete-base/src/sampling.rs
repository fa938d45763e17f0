//! Sampling by hash, not by order.
//!
//! Within a cell (a latent at a level) the sample is the `s` items of smallest hash. The result depends on
//! the set of items alone, so any split of the work into shards, in any order, merges to the same sample.

use xxhash_rust::xxh3::xxh3_64;

use crate::ids::{DocId, LatentId};

/// Hash of one firing: xxh3-64 over the little-endian bytes of (seed, doc, position in the document, latent).
pub fn firing_hash(seed: u64, doc: DocId, position: u64, latent: LatentId) -> u64 {
    let mut bytes = [0u8; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&doc.0.to_le_bytes());
    bytes[16..24].copy_from_slice(&position.to_le_bytes());
    bytes[24..].copy_from_slice(&u64::from(latent.0).to_le_bytes());
    xxh3_64(&bytes)
}

/// Hash of (seed, a, b): the order of shuffles and the split of documents.
pub fn pair_hash(seed: u64, a: u64, b: u64) -> u64 {
    let mut bytes = [0u8; 24];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&a.to_le_bytes());
    bytes[16..].copy_from_slice(&b.to_le_bytes());
    xxh3_64(&bytes)
}

/// One document in `HELD_OUT_ONE_IN` is held out of training.
pub const HELD_OUT_ONE_IN: u64 = 10;

/// Whether a document is held out of dictionary training, so that quality is measured on text not trained on.
pub fn is_held_out(seed: u64, doc: DocId) -> bool {
    pair_hash(seed, doc.0, u64::MAX).is_multiple_of(HELD_OUT_ONE_IN)
}
