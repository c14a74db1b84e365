//! What light clients ask for (PROTOCOL E5): the link from each epoch to the next, and headers with a finalization.

use bizra_driver::light::{HEADERS_MAX, Headers, Link};
use bizra_simplex::types::{Epoch, Height};
use bytes::Bytes;

use super::BlockStore;
use super::keys;
use crate::gateway::BlockReader as _;
use crate::storage::{Family, StorageError, Writes};

impl BlockStore {
    /// Keeps the link from an epoch to the next, for ever: pruned nodes serve it too, long after the ledger has forgotten
    /// the validators.
    pub fn put_link(&self, writes: &mut Writes<'_>, link: &Link) -> Result<(), StorageError> {
        writes.put(Family::Blocks, &keys::link(link.block.epoch), &link.encode())
    }

    /// Up to `limit` links, encoded, of consecutive epochs from `from` on; empty if that epoch has not ended.
    pub fn links(&self, from: Epoch, limit: usize) -> Result<Vec<Bytes>, StorageError> {
        let mut links = Vec::new();
        let mut epoch = from;
        while links.len() < limit
            && let Some(link) = self.database().get(Family::Blocks, &keys::link(epoch))?
        {
            links.push(link.into());
            epoch = epoch.next();
        }
        Ok(links)
    }

    /// The finalised headers from `from` up to the first one that has a finalization of its own; `None` if blocks are
    /// missing, or there is none within [`HEADERS_MAX`].
    pub fn headers(&self, from: Height) -> Result<Option<Headers>, StorageError> {
        let (top, _) = self.finalized();
        let mut blocks = Vec::new();
        let mut height = Height(from.0.max(1));
        while height <= top && blocks.len() < HEADERS_MAX {
            let Some(stored) = self.get(height)? else { return Ok(None) };
            blocks.push(stored.block);
            if let Some(finalization) = self.finalization(height)? {
                return Ok(Some(Headers { blocks, finalization }));
            }
            height = height.next();
        }
        Ok(None)
    }

    /// Height of the first finalised header that names this checkpoint; `None` if no header does. `oldest` is the oldest
    /// height that is kept.
    pub fn naming(&self, checkpoint: Height, oldest: Height) -> Result<Option<Height>, StorageError> {
        // Named checkpoints never fall from one block to the next.
        let (mut low, (mut high, _)) = (checkpoint.next().max(oldest), self.finalized());
        let named = |height| Ok::<_, StorageError>(self.get(height)?.map(|stored| stored.block.checkpoint.height));
        while low < high {
            let middle = Height(low.0 + (high.0 - low.0) / 2);
            match named(middle)? {
                Some(name) if name >= checkpoint => high = middle,
                _ => low = middle.next(),
            }
        }
        Ok((low == high && named(low)? == Some(checkpoint)).then_some(low))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bizra_driver::Member;
    use bizra_driver::PublicKey;
    use bizra_simplex::types::{Digest, Power, View};
    use bizra_simplex::{Block, Certificate, Checkpoint, Reputation, Vote, VoteKind};

    use super::*;
    use crate::storage::Database;

    fn certificate(block: &Block) -> Certificate {
        let vote =
            Vote { epoch: block.epoch, view: View(block.height.0), kind: VoteKind::Finalize, digest: block.digest() };
        Certificate { vote, signatures: Vec::new() }
    }

    /// Forty blocks; every fifth has a finalization; each names the newest checkpoint eight below it.
    fn store(folder: &std::path::Path) -> BlockStore {
        let database = Database::open(folder).unwrap();
        let store = BlockStore::open(database.clone(), Block::genesis(Digest([1; 32]), 0)).unwrap();
        let mut parent = store.finalized().1;
        for five in 0..8 {
            let blocks: Vec<Block> = (1..=5_u64)
                .map(|number| {
                    let height = five * 5 + number;
                    let named = height.saturating_sub(8) / 16 * 16;
                    let checkpoint = Checkpoint { height: Height(named), ..Checkpoint::default() };
                    let block = Block { height: Height(height), checkpoint, ..Block::genesis(parent, 0) };
                    parent = block.digest();
                    block
                })
                .collect();
            let mut writes = database.writes();
            store.finalize(&mut writes, &blocks, &certificate(&blocks[4])).unwrap();
            writes.commit_unsynced().unwrap();
            store.finalized_to(&blocks[4]);
        }
        store
    }

    #[test]
    fn headers_lead_up_to_the_first_finalization() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let headers = store.headers(Height(7)).unwrap().unwrap();
        assert_eq!(headers.blocks.iter().map(|block| block.height.0).collect::<Vec<_>>(), [7, 8, 9, 10]);
        assert_eq!(headers.finalization.vote.digest, headers.blocks[3].digest());
        assert_eq!(store.headers(Height(40)).unwrap().unwrap().blocks.len(), 1);
        assert_eq!(store.headers(Height(41)).unwrap(), None);
    }

    #[test]
    fn the_first_header_that_names_a_checkpoint_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        for (checkpoint, height) in [(0, Some(1)), (16, Some(24)), (32, Some(40)), (48, None), (8, None)] {
            assert_eq!(store.naming(Height(checkpoint), Height(0)).unwrap(), height.map(Height), "{checkpoint}");
        }
    }

    #[test]
    fn links_are_served_in_pages() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path());
        let link = |epoch| {
            let block = Block { epoch: Epoch(epoch), ..Block::genesis(Digest([2; 32]), 0) };
            let next = vec![Member { key: PublicKey([3; 32]), power: Power(1), reputation: Reputation::FULL }];
            Link { finalization: certificate(&block), block, next }
        };
        let mut writes = store.database().writes();
        for epoch in 0..5 {
            store.put_link(&mut writes, &link(epoch)).unwrap();
        }
        writes.commit_unsynced().unwrap();
        let page = |from, limit| {
            let links = store.links(Epoch(from), limit).unwrap().into_iter();
            links.map(|bytes| Link::decode(bytes).unwrap().block.epoch.0).collect::<Vec<_>>()
        };
        assert_eq!(page(1, 3), [1, 2, 3]);
        assert_eq!(page(4, 3), [4]);
        assert_eq!(page(5, 3), Vec::<u64>::new());
    }
}
