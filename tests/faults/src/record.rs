//! The signing record as it lies on disk, read without the node's own code: an oracle must not share its mistakes.
//!
//! 4 KiB blocks: two copies of a header, then 256 slots twice. A block is length (2 bytes), CRC-32 (4), body, zeros; a
//! slot's body is sequence (8), floor (epoch 8, view 8), count (1), votes of 49 bytes: epoch, view, kind, digest.

use std::collections::BTreeSet;
use std::path::Path;

use crate::FaultError;

const BLOCK: usize = 4_096;
const SLOTS: usize = 256;
const VOTE: usize = 49;

/// Epoch and view.
pub(crate) type Moment = (u64, u64);

/// A vote without its signature: epoch, view, kind, digest.
pub(crate) type PlainVote = (u64, u64, u8, [u8; 32]);

/// What one signing record remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Remembered {
    pub(crate) votes: BTreeSet<PlainVote>,
    /// At and before this nothing new is signed.
    pub(crate) floor: Moment,
}

impl Remembered {
    /// Reads both copies of every slot; damaged copies are passed over, as a node may.
    pub(crate) fn read(path: &Path) -> Result<Self, FaultError> {
        let bytes = std::fs::read(path).map_err(|error| FaultError::Io(path.display().to_string(), error))?;
        Ok(Self::parse(&bytes))
    }

    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let mut remembered = Self::default();
        for position in 0..SLOTS {
            let copies = [2 + position, 2 + SLOTS + position];
            let bodies = copies.iter().filter_map(|block| body(bytes.get(block * BLOCK..(block + 1) * BLOCK)?));
            if let Some(newest) = bodies.filter(|body| body.len() >= 25).max_by_key(|body| number(&body[..8])) {
                let floor = (number(&newest[8..16]), number(&newest[16..24]));
                remembered.floor = remembered.floor.max(floor);
                for vote in newest[25..].chunks_exact(VOTE).take(usize::from(newest[24])) {
                    let mut digest = [0; 32];
                    digest.copy_from_slice(&vote[17..49]);
                    remembered.votes.insert((number(&vote[..8]), number(&vote[8..16]), vote[16], digest));
                }
            }
        }
        remembered
    }

    /// True if this vote is remembered, or so old that its view is closed.
    pub(crate) fn covers(&self, vote: &PlainVote) -> bool {
        self.votes.contains(vote) || (vote.0, vote.1) <= self.floor
    }
}

fn body(block: &[u8]) -> Option<&[u8]> {
    let length = usize::from(u16::from_be_bytes([block[0], block[1]]));
    let body = block.get(6..6 + length)?;
    let checksum = u32::from_be_bytes([block[2], block[3], block[4], block[5]]);
    (length > 0 && checksum == crc32fast::hash(body)).then_some(body)
}

fn number(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use bizra_driver::signing_record::{Binding, SigningRecord};
    use bizra_simplex::types::{Digest, Epoch, View};
    use bizra_simplex::{Vote, VoteKind};

    use super::*;

    #[test]
    fn it_reads_what_the_node_writes_and_sees_a_lost_vote() {
        let binding = Binding { genesis_hash: Digest([1; 32]), volume: Digest([2; 32]), public_key: [3; 32] };
        let blocks: Vec<_> = SigningRecord::create(&binding).into_iter().map(|(_, block)| block).collect();
        let mut file: Vec<u8> = blocks.iter().flat_map(|block| block.iter().copied()).collect();
        let mut record = SigningRecord::open(&binding, &blocks).unwrap();
        for view in 1..=300 {
            let vote =
                Vote { epoch: Epoch(2), view: View(view), kind: VoteKind::Notarize, digest: Digest([view as u8; 32]) };
            for (block, content) in record.reserve(&[vote]).unwrap() {
                let at = block as usize * BLOCK;
                file[at..at + BLOCK].copy_from_slice(&content[..]);
            }
        }
        let plain = |view: u64| (2, view, 2, [view as u8; 32]);
        let remembered = Remembered::parse(&file);
        assert!((1..=300).all(|view| remembered.covers(&plain(view))));
        assert!(!remembered.covers(&(2, 300, 2, [0; 32])));
        // The last vote, 300, lies in slot 44.
        for copy in [2 + 44, 2 + SLOTS + 44] {
            file[copy * BLOCK + 30] ^= 1;
        }
        assert!(!Remembered::parse(&file).covers(&plain(300)));
    }
}
