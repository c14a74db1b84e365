//! Chunks: a snapshot's items cut into pieces that are sent, checked and stored one by one.
//!
//! The rule is canonical: a chunk is a version byte and the items in order; it ends before the first item that would make
//! it longer than [`CHUNK_BYTES_MAX`]. Every item fits, so a chunk holds at least one.

use bizra_simplex::types::Digest;
use sha2::{Digest as _, Sha256};

use crate::blockchain::{Section, SnapshotItem, merkle};

pub use bizra_driver::wire::{SNAPSHOT_CHUNK_BYTES_MAX as CHUNK_BYTES_MAX, SNAPSHOT_CHUNKS_MAX as CHUNKS_MAX};

/// Longest value: the length field's width. The longest entry is a set of 128 validators, 17 KB.
const VALUE_BYTES_MAX: usize = u16::MAX as usize;

const VERSION: u8 = 1;

const ROOT_DOMAIN: &[u8] = b"bizra/v1/snapshot\0";

/// Why bytes are no chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// It is longer than any chunk.
    #[error("the chunk has {0} bytes, more than {CHUNK_BYTES_MAX}")]
    Long(usize),
    /// A format this build does not know.
    #[error("the chunk's format is not supported")]
    Version,
    /// An item is cut short, or of an unknown section.
    #[error("an item of the chunk does not decode")]
    Item,
    /// Items are not in ascending order, or there is none.
    #[error("the items of the chunk are not in order")]
    Order,
}

/// The leaf of a chunk in the tree whose root a boundary header names.
pub fn chunk_hash(chunk: &[u8]) -> Digest {
    merkle::leaf(chunk)
}

/// What a boundary header names: the Merkle root over the chunks, bound to their number. Without it a list of inner nodes
/// would have the same root as the list of leaves, and a liar could pass it off as a manifest that no chunk ever fits.
pub fn snapshot_root(hashes: &[Digest]) -> Digest {
    let hash = Sha256::new().chain_update(ROOT_DOMAIN).chain_update((hashes.len() as u64).to_be_bytes());
    Digest(hash.chain_update(merkle::root(hashes).0).finalize().into())
}

/// Cuts items into chunks.
#[derive(Debug)]
pub struct Chunker {
    limit: usize,
    chunk: Vec<u8>,
}

impl Default for Chunker {
    fn default() -> Self {
        Self { limit: CHUNK_BYTES_MAX, chunk: Vec::new() }
    }
}

impl Chunker {
    /// Takes the next item; returns a chunk if that is full now.
    pub fn push(&mut self, item: &SnapshotItem) -> Option<Vec<u8>> {
        let SnapshotItem { section, key, value } = item;
        debug_assert!(key.len() == section.key_bytes() && value.len() <= VALUE_BYTES_MAX);
        let more = 3 + key.len() + value.len();
        let full =
            (!self.chunk.is_empty() && self.chunk.len() + more > self.limit).then(|| std::mem::take(&mut self.chunk));
        if self.chunk.is_empty() {
            self.chunk.reserve(self.limit);
            self.chunk.push(VERSION);
        }
        self.chunk.push(*section as u8);
        self.chunk.extend_from_slice(key);
        self.chunk.extend_from_slice(&(value.len() as u16).to_be_bytes());
        self.chunk.extend_from_slice(value);
        full
    }

    /// The last chunk.
    pub fn finish(self) -> Option<Vec<u8>> {
        Some(self.chunk).filter(|chunk| !chunk.is_empty())
    }
}

/// Reads a chunk. Never panics, and allocates no more than the chunk has.
pub fn decode_chunk(bytes: &[u8]) -> Result<Vec<SnapshotItem>, ChunkError> {
    if bytes.len() > CHUNK_BYTES_MAX {
        return Err(ChunkError::Long(bytes.len()));
    }
    let Some((&VERSION, mut rest)) = bytes.split_first() else { return Err(ChunkError::Version) };
    let mut items: Vec<SnapshotItem> = Vec::new();
    while let Some((&number, tail)) = rest.split_first() {
        let section = Section::from_number(number).ok_or(ChunkError::Item)?;
        let (key, tail) = tail.split_at_checked(section.key_bytes()).ok_or(ChunkError::Item)?;
        let (length, tail) = tail.split_first_chunk().ok_or(ChunkError::Item)?;
        let (value, tail) = tail.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(ChunkError::Item)?;
        if items.last().is_some_and(|last| (last.section, last.key.as_slice()) >= (section, key)) {
            return Err(ChunkError::Order);
        }
        items.push(SnapshotItem { section, key: key.to_vec(), value: value.to_vec() });
        rest = tail;
    }
    if items.is_empty() { Err(ChunkError::Order) } else { Ok(items) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn items() -> impl Strategy<Value = Vec<SnapshotItem>> {
        let item = (1_u8..=5, any::<[u8; 33]>(), prop::collection::vec(any::<u8>(), 0..60));
        prop::collection::vec(item, 1..40).prop_map(|items| {
            let item = |(number, key, value): (u8, [u8; 33], Vec<u8>)| {
                let section = Section::from_number(number).unwrap();
                SnapshotItem { section, key: key[..section.key_bytes()].to_vec(), value }
            };
            let mut items: Vec<SnapshotItem> = items.into_iter().map(item).collect();
            items.sort_by(|a, b| (a.section, &a.key).cmp(&(b.section, &b.key)));
            items.dedup_by(|a, b| (a.section, &a.key) == (b.section, &b.key));
            items
        })
    }

    fn cut(items: &[SnapshotItem], limit: usize) -> Vec<Vec<u8>> {
        let mut chunker = Chunker { limit, ..Chunker::default() };
        let mut chunks: Vec<Vec<u8>> = items.iter().filter_map(|item| chunker.push(item)).collect();
        chunks.extend(chunker.finish());
        chunks
    }

    proptest! {
        #[test]
        fn chunks_hold_all_items_in_order_and_keep_to_their_limit(items in items(), limit in 200_usize..600) {
            let chunks = cut(&items, limit);
            prop_assert!(chunks.iter().all(|chunk| chunk.len() <= limit));
            let read: Vec<SnapshotItem> = chunks.iter().flat_map(|chunk| decode_chunk(chunk).unwrap()).collect();
            prop_assert_eq!(&read, &items);
            for pair in chunks.windows(2) {
                let next = decode_chunk(&pair[1]).unwrap();
                prop_assert!(pair[0].len() + 3 + next[0].key.len() + next[0].value.len() > limit, "cut too early");
            }
        }

        #[test]
        fn cut_extended_or_arbitrary_bytes_never_panic_and_stay_canonical(
            items in items(), cut_at in 1_usize..60, noise in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let whole = cut(&items, CHUNK_BYTES_MAX).remove(0);
            let shorter = &whole[..whole.len().saturating_sub(cut_at)];
            let longer = [&whole[..], &noise].concat();
            for bytes in [shorter, &longer, &noise] {
                if let Ok(read) = decode_chunk(bytes) {
                    prop_assert_eq!(cut(&read, CHUNK_BYTES_MAX), vec![bytes.to_vec()]);
                }
            }
        }
    }

    #[test]
    fn inner_nodes_do_not_pass_for_chunks() {
        let hashes: Vec<Digest> = (0..4_u8).map(|number| chunk_hash(&[number])).collect();
        let inner: Vec<Digest> = hashes.chunks(2).map(merkle::root).collect();
        assert_eq!(merkle::root(&inner), merkle::root(&hashes));
        assert_ne!(snapshot_root(&inner), snapshot_root(&hashes));
    }

    #[test]
    fn items_out_of_order_or_twice_are_refused() {
        let item = |byte| SnapshotItem { section: Section::Totals, key: vec![byte; 8], value: vec![byte] };
        for (first, second) in [(2, 1), (1, 1)] {
            let bytes = cut(&[item(first), item(second)], CHUNK_BYTES_MAX).remove(0);
            assert_eq!(decode_chunk(&bytes), Err(ChunkError::Order));
        }
        assert_eq!(decode_chunk(&[VERSION]), Err(ChunkError::Order));
        assert_eq!(decode_chunk(&vec![VERSION; CHUNK_BYTES_MAX + 1]), Err(ChunkError::Long(CHUNK_BYTES_MAX + 1)));
    }
}
